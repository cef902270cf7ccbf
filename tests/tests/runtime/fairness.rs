//! Nobody waits forever: yielding tasks, queued tasks, unblocked workers, and tasks beside two that
//! wake each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::Builder;
use umcg_tests::{
    BlockerGate, eventually, isolated,
    runtime::{SERVERS, compute, runtime_with},
};

/// The task waits for one that is queued behind it. With one server this needs a second worker.
#[test]
fn a_task_may_yield_until_a_queued_one_has_run() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let handle = runtime.handle().clone();
            let task = runtime.spawn_blocking(move || {
                let flag = Arc::new(AtomicBool::new(false));
                let set = Arc::clone(&flag);
                drop(handle.spawn_blocking(move || set.store(true, SeqCst)));
                while !flag.load(SeqCst) {
                    umcg::thread::yield_now();
                }
            });
            task.join().unwrap();
        }
    });
}

#[test]
fn many_yielders_take_turns() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    runtime.spawn_blocking(|| {
                        for _ in 0..100 {
                            umcg::thread::yield_now();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
        }
    });
}

/// Trace B1: a worker that unblocks gets its turn although the stream of short tasks never ends.
#[test]
fn an_unblocked_worker_is_not_starved_by_a_stream_of_tasks() {
    fn again(stop: Arc<AtomicBool>, passed: Arc<AtomicUsize>) {
        passed.fetch_add(1, SeqCst);
        compute(Duration::from_micros(20));
        if !stop.load(SeqCst) {
            drop(umcg::spawn_blocking(move || again(stop, passed)));
        }
    }
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let stop = Arc::new(AtomicBool::new(false));
            let passed = Arc::new(AtomicUsize::new(0));
            for _ in 0..4 * servers {
                let (stop, passed) = (Arc::clone(&stop), Arc::clone(&passed));
                drop(runtime.spawn_blocking(move || again(stop, passed)));
            }
            eventually("the stream flows", || passed.load(SeqCst) > 100);
            let mut gaps = runtime
                .spawn_blocking(|| {
                    let nap = |_| {
                        let begun = Instant::now();
                        // Ends with a checkpoint, where the worker waits for a slot.
                        umcg::thread::sleep(Duration::from_millis(1));
                        begun.elapsed()
                    };
                    (0..200).map(nap).collect::<Vec<_>>()
                })
                .join()
                .unwrap();
            stop.store(true, SeqCst);
            gaps.sort_unstable();
            // An unblocked worker waits for 8 tasks or 100 us, so this is 1.2 ms on a machine at
            // rest. Without the rule it would be forever, or 10 ms by the server's time slice.
            assert!(
                gaps[100] < Duration::from_millis(8),
                "median {:?}",
                gaps[100]
            );
            // The machine itself may stand still now and then; a starved worker would wait each
            // time.
            assert!(gaps[194] < Duration::from_millis(500), "{gaps:?}");
            // Short tasks give up the slot by themselves: nobody needs to be preempted for that.
            let preempted = runtime.metrics().provider().preempted;
            assert!(preempted < 100, "{preempted} preemptions in 200 naps");
        }
    });
}

/// A worker that unblocks, and a future whose timer fires, get their turns among futures that wake
/// themselves again and again.
#[test]
fn a_ticker_is_not_starved_by_futures_that_yield() {
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let stop = Arc::new(AtomicBool::new(false));
            let stream: Vec<_> = (0..4 * servers)
                .map(|_| {
                    let stop = Arc::clone(&stop);
                    runtime.spawn(async move {
                        while !stop.load(SeqCst) {
                            umcg::yield_now().await;
                        }
                    })
                })
                .collect();
            let blocking = runtime.spawn_blocking(|| {
                for _ in 0..50 {
                    umcg::thread::sleep(Duration::from_millis(1));
                }
            });
            let timed = runtime.spawn(async {
                for _ in 0..50 {
                    umcg::time::sleep(Duration::from_millis(1)).await;
                }
            });
            blocking.join().unwrap();
            timed.join().unwrap();
            stop.store(true, SeqCst);
            for task in stream {
                task.join().unwrap();
            }
        }
    });
}

/// Trace A13: a worker holds what every other worker spins for, and waits behind them for a slot.
#[test]
fn a_spinner_is_preempted_for_the_ready_worker_that_it_waits_for() {
    isolated(60, || {
        for relax in [std::hint::spin_loop as fn(), thread::yield_now] {
            for servers in SERVERS {
                let runtime = runtime_with(servers);
                let gate = Arc::new(BlockerGate::new());
                let released = Arc::new(AtomicBool::new(false));
                let (blocks, releases) = (Arc::clone(&gate), Arc::clone(&released));
                let holder = runtime.spawn_blocking(move || {
                    blocks.wait();
                    // It stops here until it is picked.
                    umcg::thread::yield_now();
                    releases.store(true, SeqCst);
                });
                eventually("the holder is blocked", || gate.waiting() == 1);
                let spinning = Arc::new(AtomicUsize::new(0));
                let spinners: Vec<_> = (0..servers)
                    .map(|_| {
                        let (released, spinning) = (Arc::clone(&released), Arc::clone(&spinning));
                        runtime.spawn_blocking(move || {
                            spinning.fetch_add(1, SeqCst);
                            while !released.load(SeqCst) {
                                relax();
                            }
                        })
                    })
                    .collect();
                eventually("all servers spin", || spinning.load(SeqCst) == servers);
                gate.open();
                for task in spinners.into_iter().chain([holder]) {
                    task.join().unwrap();
                }
            }
        }
    });
}

/// The same for a spinner that no server dispatched: it unblocked while its server idled, and took
/// the slot by itself.
#[test]
fn a_spinner_that_took_an_idle_slot_is_preempted_too() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let released = Arc::new(AtomicBool::new(false));
            let (tell, told) = mpsc::channel();
            let holders: Vec<_> = (0..servers)
                .map(|_| {
                    let (release, tell) = (Arc::clone(&released), tell.clone());
                    runtime.spawn_blocking(move || {
                        tell.send(()).unwrap();
                        std::thread::sleep(Duration::from_millis(60));
                        umcg::thread::yield_now();
                        release.store(true, SeqCst);
                    })
                })
                .collect();
            for _ in 0..servers {
                told.recv().unwrap();
            }
            let spinners: Vec<_> = (0..servers)
                .map(|_| {
                    let released = Arc::clone(&released);
                    runtime.spawn_blocking(move || {
                        // Nothing is queued and no worker runs, so the servers idle.
                        std::thread::sleep(Duration::from_millis(20));
                        umcg::thread::yield_now();
                        while !released.load(SeqCst) {
                            std::hint::spin_loop();
                        }
                    })
                })
                .collect();
            for task in spinners.into_iter().chain(holders) {
                task.join().unwrap();
            }
        }
    });
}

/// Two futures that wake each other through the LIFO slot do not starve the queues.
#[test]
fn a_ping_pong_does_not_starve_the_queue() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (a_sends, mut a_gets) = tokio::sync::mpsc::channel(1);
        let (b_sends, mut b_gets) = tokio::sync::mpsc::channel(1);
        let stopped = Arc::clone(&stop);
        let ping = runtime.spawn(async move {
            while !stopped.load(SeqCst) {
                a_sends.send(()).await.unwrap();
                b_gets.recv().await.unwrap();
            }
        });
        let pong = runtime.spawn(async move {
            while a_gets.recv().await.is_some() {
                if b_sends.send(()).await.is_err() {
                    break;
                }
            }
        });
        for i in 0..200 {
            // The outer task comes through the injector, the inner one through the queue of the
            // server.
            let task = runtime.spawn(async move { umcg::spawn(async move { i }).await.unwrap() });
            assert_eq!(task.join().unwrap(), i);
        }
        stop.store(true, SeqCst);
        ping.join().unwrap();
        pong.join().unwrap();
    });
}

/// Tasks from outside are taken in batches, and not one for every 61 turns of tasks that keep
/// yielding.
#[test]
fn tasks_from_outside_take_turns_with_yielders() {
    const OUTSIDE: usize = 5_000;
    isolated(60, || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let (queued, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let turns = Arc::new(AtomicUsize::new(0));
        let yielders: Vec<_> = (0..4)
            .map(|_| {
                let (queued, done) = (Arc::clone(&queued), Arc::clone(&done));
                let turns = Arc::clone(&turns);
                runtime.spawn(async move {
                    while done.load(SeqCst) < OUTSIDE {
                        if queued.load(SeqCst) {
                            turns.fetch_add(1, SeqCst);
                        }
                        umcg::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..OUTSIDE {
            let done = Arc::clone(&done);
            drop(runtime.spawn(async move { done.fetch_add(1, SeqCst) }));
        }
        queued.store(true, SeqCst);
        for task in yielders {
            task.join().unwrap();
        }
        let turns = turns.load(SeqCst);
        assert!(turns < 10 * OUTSIDE, "{turns} turns for {OUTSIDE} tasks");
    });
}

/// A task from outside does not wait for 61 turns of tasks that compute for long. That would take 3
/// s here.
#[test]
fn a_task_from_outside_does_not_wait_for_61_long_turns() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
                runtime.spawn(async move {
                    while !stop.load(SeqCst) {
                        begun.fetch_add(1, SeqCst);
                        let start = Instant::now();
                        while start.elapsed() < Duration::from_millis(50) {
                            std::hint::spin_loop();
                        }
                        umcg::task::yield_now().await;
                    }
                })
            })
            .collect();
        while begun.load(SeqCst) < 8 {
            std::thread::yield_now();
        }
        let before = begun.load(SeqCst);
        let at = Arc::clone(&begun);
        let turns = runtime
            .spawn(async move { at.load(SeqCst) - before })
            .join()
            .unwrap();
        stop.store(true, SeqCst);
        for task in tasks {
            task.join().unwrap();
        }
        assert!(turns < 20, "{turns} long turns before a task from outside");
    });
}

/// Two threads that park and wake each other hand the slot to each other, and never look at the
/// queues. A task that they spawn runs all the same, on their server or on another one.
#[test]
fn two_threads_that_wake_each_other_do_not_starve_a_task() {
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let _entered = runtime.enter();
            let (ran, stop) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicBool::new(false)),
            );
            let first = Arc::new(std::sync::OnceLock::<umcg::thread::Thread>::new());
            let (answers, stopped) = (Arc::clone(&first), Arc::clone(&stop));
            let second = umcg::thread::spawn(move || {
                loop {
                    umcg::thread::park();
                    if stopped.load(SeqCst) {
                        return;
                    }
                    answers
                        .get()
                        .expect("it is set before the first wake-up")
                        .unpark();
                }
            });
            let wakes = second.thread().clone();
            let task = umcg::thread::spawn(move || {
                first.set(umcg::thread::current()).expect("set once");
                // Until both of them take part: the second thread may not have begun yet.
                for _ in 0..100 {
                    wakes.unpark();
                    umcg::thread::park();
                }
                let sets = Arc::clone(&ran);
                drop(umcg::spawn_blocking(move || sets.store(true, SeqCst)));
                let begin = Instant::now();
                while !ran.load(SeqCst) && begin.elapsed() < Duration::from_secs(15) {
                    wakes.unpark();
                    umcg::thread::park();
                }
                stop.store(true, SeqCst);
                wakes.unpark();
                ran.load(SeqCst)
            });
            assert!(task.join().unwrap(), "it never ran");
            second.join().unwrap();
        }
    });
}
