//! `umcg::thread`, scopes and parking.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::Builder;
use umcg_tests::{isolated, runtime::default_runtime};

#[test]
fn scopes_borrow_nest_and_wait() {
    isolated(60, || {
        let runtime = default_runtime();
        let mut data = vec![1_u64; 1_000];
        let sum = AtomicUsize::new(0);
        // Not on a worker: through the handle of the runtime.
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
    isolated(60, || {
        let runtime = default_runtime();
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
fn scopes_and_joins_may_be_deeper_than_max_workers() {
    fn depth(n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        umcg::scope(|s| s.spawn(|| depth(n - 1)).join().unwrap()) + 1
    }

    fn fib(n: u32) -> u32 {
        if n < 2 {
            return n;
        }
        let (a, b) = umcg::join(|| fib(n - 1), || fib(n - 2));
        a + b
    }

    isolated(60, || {
        let runtime = Builder::new().servers(2).max_workers(2).build().unwrap();
        let _entered = runtime.handle().enter();
        assert_eq!(umcg::spawn_blocking(|| depth(40)).join().unwrap(), 40);
        assert_eq!(umcg::spawn_blocking(|| fib(12)).join().unwrap(), 144);
    });
}

#[test]
fn threads_have_names_ids_and_results() {
    isolated(60, || {
        let runtime = default_runtime();
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
    isolated(60, || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let _entered = runtime.enter();
        // Two threads give a turn to each other by nothing but tokens.
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
        // A token may be given before the park.
        umcg::thread::spawn(|| {
            umcg::thread::current().unpark();
            umcg::thread::park();
        })
        .join()
        .unwrap();
    });
}

#[test]
fn the_parking_of_std_works_too() {
    isolated(60, || {
        let runtime = default_runtime();
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

/// The destructor of another task runs inside of the code of a thread, and asks for the current
/// thread.
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
        // The task is cancelled at once, on this thread.
        drop(gone.spawn_blocking(move || drop(asks)));
        assert_eq!(umcg::thread::current().id(), me.id());
        me.unpark();
        umcg::thread::park();
    }
    isolated(60, || {
        let ended = default_runtime();
        let gone = ended.handle().clone();
        drop(ended);
        check(&gone);
        let runtime = default_runtime();
        let _entered = runtime.enter();
        umcg::thread::spawn(move || check(&gone))
            .join()
            .expect("it comes to its end");
    });
}
