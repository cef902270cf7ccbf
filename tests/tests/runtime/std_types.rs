//! What programs already use: std's locks and channels, thread-locals, `umcg::thread`, scopes,
//! parking, `ThreadPool`.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::{Builder, Runtime, ThreadPool};
use umcg_tests::fault::{Dam, apart, eventually};

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

#[test]
fn mutex_and_condvar_between_tasks() {
    apart(60, || {
        let runtime = runtime();
        // A hand-made bounded queue: producers and consumers wait for each other.
        struct Queue {
            items: Mutex<Vec<usize>>,
            changed: Condvar,
        }
        let queue = Arc::new(Queue {
            items: Mutex::new(Vec::new()),
            changed: Condvar::new(),
        });
        let producers: Vec<_> = (0..6)
            .map(|producer| {
                let queue = Arc::clone(&queue);
                runtime.spawn_blocking(move || {
                    for i in 0..100 {
                        let mut items = queue.items.lock().unwrap();
                        while items.len() >= 4 {
                            items = queue.changed.wait(items).unwrap();
                        }
                        items.push(producer * 100 + i);
                        queue.changed.notify_all();
                    }
                })
            })
            .collect();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                runtime.spawn_blocking(move || {
                    let mut taken = Vec::new();
                    while taken.len() < 200 {
                        let mut items = queue.items.lock().unwrap();
                        loop {
                            if let Some(item) = items.pop() {
                                taken.push(item);
                                break;
                            }
                            items = queue.changed.wait(items).unwrap();
                        }
                        queue.changed.notify_all();
                    }
                    taken
                })
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        let mut all: Vec<_> = consumers
            .into_iter()
            .flat_map(|c| c.join().unwrap())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..600).collect::<Vec<_>>());
    });
}

#[test]
fn channels_between_tasks_and_outside_threads() {
    apart(60, || {
        let runtime = runtime();
        let (to_task, from_outside) = mpsc::sync_channel::<u64>(2);
        let (to_outside, from_task) = mpsc::channel();
        let task = runtime.spawn_blocking(move || {
            for value in from_outside {
                to_outside.send(value * 2).unwrap();
            }
        });
        for i in 0..500 {
            to_task.send(i).unwrap();
            assert_eq!(from_task.recv().unwrap(), i * 2);
        }
        drop(to_task);
        task.join().unwrap();
    });
}

#[test]
fn a_ring_of_threads_passes_a_token() {
    apart(60, || {
        let runtime = runtime();
        const RING: usize = 24;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..RING).map(|_| mpsc::channel()).unzip();
        let first = senders[0].clone();
        let threads: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(i, receiver)| {
                let next = senders[(i + 1) % RING].clone();
                runtime.spawn_blocking(move || {
                    for token in receiver {
                        if token == 0 {
                            return i;
                        }
                        if next.send(token - 1).is_err() {
                            return RING;
                        }
                    }
                    RING
                })
            })
            .collect();
        drop(senders);
        first.send(1_000_usize).unwrap();
        drop(first);
        let ends: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(ends.iter().filter(|&&end| end < RING).count(), 1);
        assert_eq!(ends[1_000 % RING], 1_000 % RING);
    });
}

#[test]
fn locks_once_and_barrier() {
    apart(60, || {
        let runtime = runtime();
        let (once, calls) = (Arc::new(Once::new()), Arc::new(AtomicUsize::new(0)));
        let cell = Arc::new(OnceLock::new());
        let lock = Arc::new(RwLock::new(0_u64));
        let barrier = Arc::new(Barrier::new(20));
        let handles: Vec<_> = (0..20)
            .map(|i| {
                let (once, calls, cell) =
                    (Arc::clone(&once), Arc::clone(&calls), Arc::clone(&cell));
                let (lock, barrier) = (Arc::clone(&lock), Arc::clone(&barrier));
                runtime.spawn_blocking(move || {
                    barrier.wait();
                    once.call_once(|| {
                        // Whoever comes meanwhile blocks until this is done.
                        thread::sleep(Duration::from_millis(5));
                        calls.fetch_add(1, SeqCst);
                    });
                    assert_eq!(calls.load(SeqCst), 1);
                    let value = *cell.get_or_init(|| {
                        umcg::thread::yield_now();
                        i
                    });
                    for _ in 0..20 {
                        *lock.write().unwrap() += 1;
                        drop(lock.read().unwrap());
                    }
                    barrier.wait();
                    assert_eq!(*lock.read().unwrap(), 400);
                    value
                })
            })
            .collect();
        let values: HashSet<_> = handles.into_iter().map(|h| h.join().unwrap()).collect();
        assert_eq!(values.len(), 1);
    });
}

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    static LIST: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A closure has its thread for itself, from its beginning to its end, across blocks and waits.
#[test]
fn a_closure_keeps_its_thread_locals_across_blocks() {
    apart(60, || {
        let runtime = runtime();
        let handles: Vec<_> = (1..=100_usize)
            .map(|i| {
                runtime.spawn_blocking(move || {
                    let this = thread::current().id();
                    NUMBER.set(i);
                    for round in 0..5 {
                        match (i + round) % 4 {
                            0 => thread::sleep(Duration::from_micros(300)),
                            1 => umcg::thread::yield_now(),
                            2 => umcg::spawn_blocking(|| NUMBER.set(0)).join().unwrap(),
                            _ => umcg::thread::park_timeout(Duration::from_micros(300)),
                        }
                        assert_eq!(NUMBER.get(), i);
                        assert_eq!(thread::current().id(), this);
                    }
                    LIST.with_borrow_mut(|list| list.push(i));
                })
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

/// Workers are used again: what a task leaves in a thread-local, another one may find; its
/// destructors run when the worker ends.
#[test]
fn destructors_of_thread_locals_run_when_the_workers_end() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            // The runtime may be used still, to no avail.
            assert!(umcg::Handle::try_current().is_none() || !thread::panicking());
            self.0.fetch_add(1, SeqCst);
        }
    }
    thread_local! {
        static COUNTS: RefCell<Option<Counts>> = const { RefCell::new(None) };
    }
    apart(60, || {
        let runtime = runtime();
        let (made, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let handles: Vec<_> = (0..60)
            .map(|_| {
                let (made, dropped) = (Arc::clone(&made), Arc::clone(&dropped));
                runtime.spawn_blocking(move || {
                    COUNTS.with_borrow_mut(|counts| {
                        counts.get_or_insert_with(|| {
                            made.fetch_add(1, SeqCst);
                            Counts(dropped)
                        });
                    });
                    thread::sleep(Duration::from_millis(1));
                })
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
        drop(runtime);
        assert!(made.load(SeqCst) > 0);
        assert_eq!(dropped.load(SeqCst), made.load(SeqCst));
    });
}

#[test]
fn sockets_between_tasks() {
    apart(60, || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let address = listener.local_addr().unwrap();
        let server = runtime.spawn_blocking(move || {
            for _ in 0..20 {
                let (mut stream, _) = listener.accept().unwrap();
                drop(umcg::spawn_blocking(move || {
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    stream.write_all(text.to_uppercase().as_bytes()).unwrap();
                }));
            }
        });
        let clients: Vec<_> = (0..20)
            .map(|i| {
                runtime.spawn_blocking(move || {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.write_all(format!("client {i}").as_bytes()).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    assert_eq!(text, format!("CLIENT {i}"));
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
    });
}

#[test]
fn scopes_borrow_nest_and_wait() {
    apart(60, || {
        let runtime = runtime();
        let mut data = vec![1_u64; 1_000];
        let sum = AtomicUsize::new(0);
        // Off-worker, by the runtime's handle.
        runtime.handle().scope(|scope| {
            for chunk in data.chunks_mut(100) {
                let sum = &sum;
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(1));
                    // Nested, on a worker.
                    let total: u64 = umcg::scope(|inner| {
                        let halves: Vec<_> = chunk
                            .chunks_mut(50)
                            .map(|half| {
                                inner.spawn(move || {
                                    half.iter_mut().for_each(|value| *value *= 2);
                                    half.iter().sum::<u64>()
                                })
                            })
                            .collect();
                        halves.into_iter().map(|half| half.join().unwrap()).sum()
                    });
                    sum.fetch_add(total as usize, SeqCst);
                });
            }
        });
        assert_eq!(sum.load(SeqCst), 2_000);
        assert!(data.iter().all(|&value| value == 2));
    });
}

#[test]
fn a_scope_waits_for_its_threads_even_when_it_panics() {
    apart(60, || {
        let runtime = runtime();
        let _entered = runtime.enter();
        let done = AtomicUsize::new(0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            umcg::scope(|scope| {
                for _ in 0..10 {
                    scope.spawn(|| {
                        thread::sleep(Duration::from_millis(5));
                        done.fetch_add(1, SeqCst);
                    });
                }
                panic!("in the scope");
            })
        }));
        assert!(caught.is_err());
        assert_eq!(done.load(SeqCst), 10);
    });
}

#[test]
fn threads_have_names_ids_and_results() {
    apart(60, || {
        let runtime = runtime();
        let _entered = runtime.enter();
        let named = umcg::thread::Builder::new()
            .name("reader".to_owned())
            .spawn(|| umcg::thread::current().name().map(str::to_owned))
            .unwrap();
        assert_eq!(named.thread().name(), Some("reader"));
        assert_eq!(named.join().unwrap().as_deref(), Some("reader"));
        let ids: HashSet<_> = (0..50)
            .map(|_| umcg::thread::spawn(|| umcg::thread::current().id()))
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(ids.len(), 50);
        let payload = umcg::thread::spawn(|| panic!("as in std"))
            .join()
            .unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"as in std"));
    });
}

#[test]
fn park_and_unpark() {
    apart(60, || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let _entered = runtime.enter();
        // Two threads hand a turn to each other, by nothing but tokens.
        let turn = Arc::new(AtomicUsize::new(0));
        let partners = Arc::new(Mutex::new(Vec::<umcg::thread::Thread>::new()));
        let threads: Vec<_> = (0..2)
            .map(|me| {
                let (turn, partners) = (Arc::clone(&turn), Arc::clone(&partners));
                umcg::thread::spawn(move || {
                    umcg::thread::park();
                    let other = partners.lock().unwrap()[1 - me].clone();
                    for _ in 0..500 {
                        while turn.load(SeqCst) % 2 != me {
                            umcg::thread::park();
                        }
                        turn.fetch_add(1, SeqCst);
                        other.unpark();
                    }
                })
            })
            .collect();
        let handles: Vec<_> = threads
            .iter()
            .map(|thread| thread.thread().clone())
            .collect();
        partners.lock().unwrap().extend(handles.clone());
        handles.iter().for_each(umcg::thread::Thread::unpark);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(turn.load(SeqCst), 1_000);
        // A token given before.
        umcg::thread::spawn(|| {
            umcg::thread::current().unpark();
            umcg::thread::park();
        })
        .join()
        .unwrap();
    });
}

#[test]
fn std_s_own_parking_works_too() {
    apart(60, || {
        let runtime = runtime();
        let (gives, thread) = mpsc::channel();
        let woken = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&woken);
        let task = runtime.spawn_blocking(move || {
            gives.send(thread::current()).unwrap();
            while !theirs.load(SeqCst) {
                thread::park();
            }
        });
        let worker = thread.recv().unwrap();
        woken.store(true, SeqCst);
        worker.unpark();
        task.join().unwrap();
    });
}

#[test]
fn a_thread_pool_of_the_crate_threadpool_s_shape() {
    apart(60, || {
        let pool = ThreadPool::with_name("pool".to_owned(), 4);
        assert_eq!(pool.max_count(), 4);
        let (sum, dam) = (Arc::new(AtomicUsize::new(0)), Arc::new(Dam::new()));
        for i in 0..40 {
            let (sum, dam) = (Arc::clone(&sum), Arc::clone(&dam));
            pool.execute(move || {
                dam.wait();
                sum.fetch_add(i, SeqCst);
            });
        }
        // As many at a time as the pool has threads, although they block.
        eventually("four run", || dam.waiting() == 4);
        eventually("they are counted", || pool.active_count() == 4);
        assert_eq!(pool.queued_count(), 36);
        dam.open();
        pool.join();
        assert_eq!(sum.load(SeqCst), 780);
        assert_eq!((pool.active_count(), pool.queued_count()), (0, 0));
        for _ in 0..3 {
            pool.execute(|| panic!("in a job"));
        }
        pool.join();
        assert_eq!(pool.panic_count(), 3);
    });
}

#[test]
fn a_thread_pool_of_rayon_s_shape() {
    apart(60, || {
        let pool = ThreadPool::new(3);
        fn fibonacci(n: u64) -> u64 {
            if n < 10 {
                return (1..=n).fold((0, 1), |(a, b), _| (b, a + b)).0;
            }
            let (a, b) = umcg::join(|| fibonacci(n - 1), || fibonacci(n - 2));
            a + b
        }
        assert_eq!(pool.install(|| fibonacci(20)), 6_765);
        let mut values = vec![0_usize; 100];
        pool.scope(|scope| {
            for (i, value) in values.iter_mut().enumerate() {
                scope.spawn(move |_| *value = i);
            }
        });
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    });
}

/// Another task's destructor runs inside of a thread's code, and asks who it is.
#[test]
fn a_thread_stays_itself_while_a_task_is_dropped_on_it() {
    struct Asks;
    impl Drop for Asks {
        fn drop(&mut self) {
            drop(umcg::thread::current());
        }
    }
    fn check(gone: &umcg::Handle) {
        let me = umcg::thread::current();
        let asks = Asks;
        // Cancelled at once, here.
        drop(gone.spawn_blocking(move || drop(asks)));
        assert_eq!(umcg::thread::current().id(), me.id());
        me.unpark();
        umcg::thread::park();
    }
    apart(60, || {
        let ended = runtime();
        let gone = ended.handle().clone();
        drop(ended);
        check(&gone);
        let runtime = runtime();
        let _entered = runtime.enter();
        umcg::thread::spawn(move || check(&gone))
            .join()
            .expect("it comes to its end");
    });
}

/// A job of one pool waits for another one, whose job comes back to the first.
#[test]
fn pools_may_wait_for_each_other() {
    apart(60, || {
        let (a, b) = (ThreadPool::new(1), ThreadPool::new(1));
        let (first, second) = (a.clone(), b.clone());
        let sum = a.install(move || 1 + second.install(|| 2 + first.install(|| 4)));
        assert_eq!(sum, 7);
        // The limits are what they were.
        for pool in [&a, &b] {
            let most = AtomicUsize::new(0);
            let now = AtomicUsize::new(0);
            pool.scope(|s| {
                for _ in 0..20 {
                    s.spawn(|_| {
                        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                        thread::sleep(Duration::from_millis(1));
                        now.fetch_sub(1, SeqCst);
                    });
                }
            });
            assert_eq!(most.into_inner(), 1);
        }
    });
}
