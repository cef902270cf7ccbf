//! What programs use already: the locks, channels, sockets and thread-locals of std.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::Builder;
use umcg_tests::{isolated, runtime::default_runtime};

#[test]
fn mutex_and_condvar_between_tasks() {
    isolated(60, || {
        let runtime = default_runtime();
        // A simple bounded queue, in which producers and consumers wait for each other.
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
    isolated(60, || {
        let runtime = default_runtime();
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
    isolated(60, || {
        let runtime = default_runtime();
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
    isolated(60, || {
        let runtime = default_runtime();
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
                        // The other callers block until this is done.
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

#[test]
fn sockets_between_tasks() {
    isolated(60, || {
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

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    static LIST: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// A closure has its thread to itself from beginning to end, across blocks and waits.
#[test]
fn a_closure_keeps_its_thread_locals_across_blocks() {
    isolated(60, || {
        let runtime = default_runtime();
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

/// Workers are used again. What a task leaves in a thread-local another task may find, and its
/// destructor runs when the worker ends.
#[test]
fn destructors_of_thread_locals_run_when_the_workers_end() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            // The runtime may still be called, without effect.
            assert!(umcg::Handle::try_current().is_err() || !thread::panicking());
            self.0.fetch_add(1, SeqCst);
        }
    }
    thread_local! {
        static COUNTS: RefCell<Option<Counts>> = const { RefCell::new(None) };
    }
    isolated(60, || {
        let runtime = default_runtime();
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
