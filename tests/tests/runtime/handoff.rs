//! Managed blocking: a worker that waits in a call of the runtime gives its slot directly to the
//! next worker and gets a slot back the same way. A worker that was woken is not forgotten behind
//! one that only computes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg::Builder;
use umcg_tests::{
    isolated,
    runtime::{SERVERS, runtime_with},
    skip, threads, wrong_verdicts,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Spins until the flag is set, without a yield or a checkpoint. Returns false if that takes too
/// long.
fn spin_until(flag: &AtomicBool) -> bool {
    let begin = Instant::now();
    while !flag.load(SeqCst) {
        if begin.elapsed() > LIMIT / 2 {
            return false;
        }
        std::hint::spin_loop();
    }
    true
}

/// Nobody has to notice that the joining worker blocks, and only the two workers run.
#[test]
fn a_join_needs_no_verdict_and_no_server() {
    isolated(60, || {
        if wrong_verdicts() {
            skip!("this run makes verdicts where none are needed");
        }
        const ROUNDS: u64 = 2_000;
        let runtime = Builder::new()
            .servers(1)
            .thread_name("direct")
            .build()
            .unwrap();
        let switches_of_the_server = || threads::by_name("direct-s0").expect("the server").switches;
        let before = switches_of_the_server();
        runtime
            .spawn_blocking(|| {
                for i in 0..ROUNDS {
                    assert_eq!(umcg::thread::spawn(move || i).join().unwrap(), i);
                }
            })
            .join()
            .unwrap();
        let metrics = runtime.metrics();
        let seen = metrics.provider().blocks_sentinel
            + metrics.provider().blocks_monitor
            + metrics.provider().blocks_sibling;
        let seen = seen + metrics.provider().blocks_kernel;
        assert!(
            seen < ROUNDS / 10,
            "{seen} blocks were reported: {metrics:#?}"
        );
        assert!(metrics.workers_peak() <= 4, "{metrics:#?}");
        // On the device nobody watches, so each resumed worker wakes the server.
        if metrics.provider_kind() == umcg::ProviderKind::Emulated {
            let sleeps = switches_of_the_server() - before;
            assert!(sleeps < ROUNDS / 5, "the server slept {sleeps} times");
        }
    });
}

/// Trace A13 for a worker that was unparked: it waits behind its waker, which waits for it.
#[test]
fn a_waker_may_spin_for_the_thread_that_it_woke() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let ran = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&ran);
            let done = runtime
                .spawn_blocking(move || {
                    let begun = Arc::new(AtomicBool::new(false));
                    let begins = Arc::clone(&begun);
                    let sleeper = umcg::thread::spawn(move || {
                        begins.store(true, SeqCst);
                        umcg::thread::park();
                        theirs.store(true, SeqCst);
                    });
                    // It must have begun, because nobody preempts a spinner for a task that has
                    // not. Then it parks, on this server or on another one.
                    let mut turns = 0;
                    while turns < 100 {
                        umcg::thread::yield_now();
                        turns += u32::from(begun.load(SeqCst));
                    }
                    sleeper.thread().unpark();
                    spin_until(&ran)
                })
                .join()
                .unwrap();
            assert!(done, "it never ran beside its waker");
        }
    });
}

/// The same for a worker that is woken from outside while another one computes on its server.
#[test]
fn a_thread_woken_from_outside_runs_beside_one_that_computes() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let (ran, computes) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicU32::new(0)),
            );
            let entered = runtime.enter();
            let theirs = Arc::clone(&ran);
            let sleeper = umcg::thread::spawn(move || {
                umcg::thread::park();
                theirs.store(true, SeqCst);
            });
            let spinners: Vec<_> = (0..servers)
                .map(|_| {
                    let (ran, computes) = (Arc::clone(&ran), Arc::clone(&computes));
                    umcg::thread::spawn(move || {
                        computes.fetch_add(1, SeqCst);
                        spin_until(&ran)
                    })
                })
                .collect();
            while computes.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            sleeper.thread().unpark();
            for spinner in spinners {
                assert!(spinner.join().unwrap(), "it never ran");
            }
            sleeper.join().unwrap();
            drop(entered);
        }
    });
}

/// The first task that a task spawns is left to its own server. If the spawning task goes on
/// computing, another server takes it.
#[test]
fn a_task_may_spin_for_its_first_child() {
    isolated(60, || {
        let runtime = runtime_with(2);
        for _ in 0..20 {
            let done = runtime
                .spawn_blocking(|| {
                    let ran = Arc::new(AtomicBool::new(false));
                    let theirs = Arc::clone(&ran);
                    drop(umcg::spawn_blocking(move || theirs.store(true, SeqCst)));
                    spin_until(&ran)
                })
                .join()
                .unwrap();
            assert!(done, "the child never ran beside its spawner");
        }
    });
}

/// The same for a task that was woken.
#[test]
fn a_waker_may_spin_for_the_future_that_it_woke() {
    isolated(60, || {
        let runtime = runtime_with(2);
        if runtime.metrics().provider_kind() == umcg::ProviderKind::Device {
            // On the device nobody watches, and a task that was woken waits until its waker comes
            // back to the scheduler.
            return;
        }
        for _ in 0..20 {
            let (tell, told) = tokio::sync::oneshot::channel();
            let ran = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&ran);
            let future = runtime.spawn(async move {
                told.await.expect("it is told");
                theirs.store(true, SeqCst);
            });
            let done = runtime
                .spawn_blocking(move || {
                    tell.send(()).expect("the future waits");
                    spin_until(&ran)
                })
                .join()
                .unwrap();
            assert!(done, "the future never ran beside its waker");
            future.join().unwrap();
        }
    });
}

/// Many threads park and unpark each other in a ring, with few servers and with many.
#[test]
fn threads_park_and_unpark_each_other_in_a_ring() {
    const THREADS: usize = 12;
    const ROUNDS: u32 = 300;
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let turn = Arc::new(AtomicU32::new(0));
            let threads: Arc<Mutex<Vec<umcg::thread::Thread>>> = Arc::default();
            let _entered = runtime.enter();
            let handles: Vec<_> = (0..THREADS)
                .map(|me| {
                    let (turn, all) = (Arc::clone(&turn), Arc::clone(&threads));
                    let handle = umcg::thread::spawn(move || {
                        let me = me as u32;
                        for round in 0..ROUNDS {
                            while turn.load(SeqCst) != round * THREADS as u32 + me {
                                umcg::thread::park();
                            }
                            turn.fetch_add(1, SeqCst);
                            let next = (me as usize + 1) % THREADS;
                            let next = all.lock().unwrap().get(next).cloned();
                            if let Some(next) = next {
                                next.unpark();
                            }
                        }
                    });
                    threads.lock().unwrap().push(handle.thread().clone());
                    handle
                })
                .collect();
            // For threads that looked for their neighbour before it was there.
            for thread in threads.lock().unwrap().iter() {
                thread.unpark();
            }
            for handle in handles {
                handle.join().unwrap();
            }
            assert_eq!(turn.load(SeqCst), ROUNDS * THREADS as u32);
        }
    });
}
