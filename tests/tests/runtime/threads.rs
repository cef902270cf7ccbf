//! Threads, scopes, pools, sets and timers on the whole runtime, with few and many servers.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    time::{Duration, Instant},
};

use umcg::{Builder, JoinSet, Runtime, ThreadPool, thread, time};

use crate::common::{SERVERS, eventually, within};

const LIMIT: Duration = Duration::from_secs(60);

fn each(what: &str, f: impl Fn(&Runtime) + Clone + Send + 'static) {
    for servers in SERVERS {
        let f = f.clone();
        within(LIMIT, &format!("{what}, {servers} servers"), move || {
            let runtime = Builder::new().servers(servers).build().unwrap();
            f(&runtime);
        });
    }
}

#[test]
fn threads_that_park_and_unpark_each_other() {
    each("park ping-pong", |runtime| {
        let _entered = runtime.handle().enter();
        let turn = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|me| {
                let turn = Arc::clone(&turn);
                let (send, receive) = mpsc::channel::<thread::Thread>();
                let thread = thread::spawn(move || {
                    let other = receive.recv().unwrap();
                    for round in 0..200 {
                        while turn.load(SeqCst) != round * 2 + me {
                            thread::park();
                        }
                        turn.fetch_add(1, SeqCst);
                        other.unpark();
                    }
                });
                (thread, send)
            })
            .collect();
        let names: Vec<_> = threads
            .iter()
            .map(|(thread, _)| thread.thread().clone())
            .collect();
        for (me, (_, send)) in threads.iter().enumerate() {
            send.send(names[1 - me].clone()).unwrap();
        }
        for (thread, _) in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn std_channels_and_condvars_between_threads() {
    each("channels and condvars", |runtime| {
        let _entered = runtime.handle().enter();
        let gate = Arc::new((Mutex::new(0), Condvar::new()));
        let (send, receive) = mpsc::sync_channel(1);
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let (gate, send) = (Arc::clone(&gate), send.clone());
                thread::spawn(move || {
                    let (turn, changed) = &*gate;
                    let mut turn = changed
                        .wait_while(turn.lock().unwrap(), |t| *t != i)
                        .unwrap();
                    send.send(i).unwrap();
                    *turn += 1;
                    changed.notify_all();
                })
            })
            .collect();
        drop(send);
        assert_eq!(
            receive.iter().collect::<Vec<_>>(),
            (0..8).collect::<Vec<_>>()
        );
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// The shape that hangs where a waiting thread runs other jobs on its own stack: the job that
/// it would pick up takes the lock that it holds.
#[test]
fn lock_held_across_scope_and_join() {
    each("a lock held across a scope", |runtime| {
        let _entered = runtime.handle().enter();
        let lock = Mutex::new(0);
        umcg::scope(|s| {
            for _ in 0..16 {
                s.spawn(|| {
                    let mut held = lock.lock().unwrap();
                    umcg::scope(|s| {
                        s.spawn(|| thread::sleep(Duration::from_micros(100)));
                    });
                    let (one, two) = umcg::join(|| 1, || 2);
                    *held += one + two;
                });
            }
        });
        assert_eq!(*lock.lock().unwrap(), 48);
    });
}

#[test]
fn scopes_and_joins_deeper_than_the_cap_on_workers() {
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

    within(LIMIT, "nested scopes", || {
        let runtime = Builder::new().servers(2).max_workers(2).build().unwrap();
        let _entered = runtime.handle().enter();
        assert_eq!(umcg::spawn_blocking(|| depth(40)).join().unwrap(), 40);
        assert_eq!(umcg::spawn_blocking(|| fib(12)).join().unwrap(), 144);
    });
}

#[test]
fn parked_threads_do_not_count_against_the_cap() {
    within(LIMIT, "parked threads", || {
        let runtime = Builder::new().servers(1).max_workers(2).build().unwrap();
        let _entered = runtime.handle().enter();
        let begun = Arc::new(AtomicUsize::new(0));
        let parked: Vec<_> = (0..10)
            .map(|_| {
                let begun = Arc::clone(&begun);
                thread::spawn(move || {
                    begun.fetch_add(1, SeqCst);
                    thread::park();
                })
            })
            .collect();
        eventually("all threads begin", || begun.load(SeqCst) == 10);
        for thread in parked {
            thread.thread().unpark();
            thread.join().unwrap();
        }
    });
}

#[test]
fn tasks_of_a_set_block_and_are_joined() {
    each("a set of blocking tasks", |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for i in 0..200_usize {
                if i % 2 == 0 {
                    set.spawn(async move {
                        std::thread::sleep(Duration::from_micros(200));
                        i
                    });
                } else {
                    set.spawn_blocking(move || i);
                }
            }
            let sum: usize = set.join_all().await.into_iter().sum();
            assert_eq!(sum, 199 * 200 / 2);
        });
    });
}

#[test]
fn aborted_tasks_go_while_others_run() {
    each("aborts", |runtime| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for _ in 0..200 {
            let token = Arc::clone(&dropped);
            tasks.push(runtime.handle().spawn(async move {
                loop {
                    umcg::task::yield_now().await;
                    let _ = &token;
                }
            }));
        }
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            let error: umcg::JoinError = task
                .join()
                .map(|never: std::convert::Infallible| match never {})
                .unwrap_err();
            assert!(error.is_cancelled());
        }
        assert_eq!(Arc::strong_count(&dropped), 1);
    });
}

#[test]
fn timers_fire_while_tasks_block() {
    each("timers", |runtime| {
        runtime.block_on(async {
            let blockers: Vec<_> = (0..4)
                .map(|_| umcg::spawn_blocking(|| std::thread::sleep(Duration::from_millis(50))))
                .collect();
            let tasks: Vec<_> = (0..100_u64)
                .map(|i| {
                    umcg::spawn(async move {
                        let start = Instant::now();
                        time::sleep(Duration::from_micros(i * 100)).await;
                        start.elapsed() >= Duration::from_micros(i * 100)
                    })
                })
                .collect();
            for task in tasks {
                assert!(task.await.unwrap(), "no sleep ends early");
            }
            let late = umcg::spawn(std::future::pending::<()>());
            assert!(time::timeout(Duration::from_millis(1), late).await.is_err());
            for blocker in blockers {
                blocker.await.unwrap();
            }
        });
    });
}

#[test]
fn pools_of_one_runtime_keep_their_limits() {
    each("two pools", |runtime| {
        let _entered = runtime.handle().enter();
        let pools = [ThreadPool::new(1), ThreadPool::new(3)];
        let most: Vec<_> = pools
            .iter()
            .map(|_| Arc::new([const { AtomicUsize::new(0) }; 2]))
            .collect();
        for _ in 0..50 {
            for (pool, counts) in pools.iter().zip(&most) {
                let counts = Arc::clone(counts);
                pool.execute(move || {
                    counts[1].fetch_max(counts[0].fetch_add(1, SeqCst) + 1, SeqCst);
                    std::thread::sleep(Duration::from_micros(100));
                    counts[0].fetch_sub(1, SeqCst);
                });
            }
        }
        for pool in &pools {
            pool.join();
        }
        assert!(most[0][1].load(Relaxed) == 1 && most[1][1].load(Relaxed) <= 3);
    });
}
