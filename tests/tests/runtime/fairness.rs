//! Nobody waits for ever: yielders, queued tasks, unblocked workers, two tasks that wake each
//! other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use umcg::Builder;

use crate::common::{SERVERS, within};

const LIMIT: Duration = Duration::from_secs(60);

/// The task that it waits for is queued behind it, and on one server needs a second worker.
#[test]
fn a_task_that_yields_until_a_queued_one_ran_gets_there() {
    for servers in SERVERS {
        within(LIMIT, "spinning on yield_now", move || {
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
        });
    }
}

#[test]
fn many_yielders_take_turns() {
    for servers in SERVERS {
        within(LIMIT, "yielders", move || {
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
        });
    }
}

/// Trace B1: a worker that unblocks comes back although short tasks never run out.
#[test]
fn an_unblocked_worker_is_not_starved_by_a_stream_of_tasks() {
    for servers in [1, 2] {
        within(LIMIT, "a ticker beside a stream", move || {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let handle = runtime.handle().clone();
            let stop = Arc::new(AtomicBool::new(false));
            for _ in 0..4 * servers {
                let (again, stop) = (handle.clone(), Arc::clone(&stop));
                stream(again, stop);
            }
            let mut sleeps = runtime
                .spawn_blocking(|| {
                    let sleep = |_| {
                        let start = Instant::now();
                        // With a checkpoint at its end, where it waits for the slot.
                        umcg::thread::sleep(Duration::from_millis(1));
                        start.elapsed()
                    };
                    (0..200).map(sleep).collect::<Vec<_>>()
                })
                .join()
                .unwrap();
            stop.store(true, SeqCst);
            sleeps.sort_unstable();
            // The machine itself may stand still now and then; who is starved, is each time.
            assert!(sleeps[194] < Duration::from_millis(500), "{sleeps:?}");
            // Short tasks hand over by themselves: nobody needs to be preempted for that.
            let preempted = runtime.metrics().preempted;
            assert!(preempted < 100, "{preempted} of 200");
        });
    }
}

/// A task that queues itself again, for ever.
fn stream(handle: umcg::Handle, stop: Arc<AtomicBool>) {
    if !stop.load(SeqCst) {
        let next = handle.clone();
        drop(handle.spawn(async move { stream(next, stop) }));
    }
}

/// Trace A13: the worker that holds what a spinning one waits for is waiting behind it.
#[test]
fn a_spinner_is_preempted_for_the_worker_behind_it() {
    for servers in SERVERS {
        within(LIMIT, "a spin lock across a block", move || {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let released = Arc::new(AtomicBool::new(false));
            let release = Arc::clone(&released);
            let (tell, told) = mpsc::channel();
            let holder = runtime.spawn_blocking(move || {
                tell.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                // Stops here behind a spinner.
                umcg::thread::yield_now();
                release.store(true, SeqCst);
            });
            told.recv().unwrap();
            let spinners: Vec<_> = (0..servers)
                .map(|_| {
                    let released = Arc::clone(&released);
                    runtime.spawn_blocking(move || {
                        while !released.load(SeqCst) {
                            std::hint::spin_loop();
                        }
                    })
                })
                .collect();
            for task in spinners.into_iter().chain([holder]) {
                task.join().unwrap();
            }
        });
    }
}

/// The same for one that nobody dispatched: it unblocked while its server idled, and took the
/// slot itself.
#[test]
fn a_spinner_that_took_the_slot_itself_is_preempted_too() {
    for servers in SERVERS {
        within(LIMIT, "a spin lock in an idle slot", move || {
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
                        // Nothing is queued and nobody runs: the servers idle.
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
        });
    }
}

#[test]
fn two_tasks_that_wake_each_other_do_not_starve_the_queue() {
    within(LIMIT, "ping-pong beside a queued task", || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let (to_b, from_a) = async_pair();
        let (to_a, from_b) = async_pair();
        let stop = Arc::new(AtomicBool::new(false));
        let rounds = Arc::new(AtomicUsize::new(0));
        let (stop_a, rounds_a) = (Arc::clone(&stop), Arc::clone(&rounds));
        let a = runtime.spawn(async move {
            while !stop_a.load(SeqCst) {
                rounds_a.fetch_add(1, SeqCst);
                to_b.set();
                from_b.get().await;
            }
            to_b.set();
        });
        let stop_b = Arc::clone(&stop);
        let b = runtime.spawn(async move {
            while !stop_b.load(SeqCst) {
                from_a.get().await;
                to_a.set();
            }
            to_a.set();
        });
        crate::common::eventually("they play", || rounds.load(SeqCst) > 100);
        // The first comes through the injector, the one that it spawns through the queue of the
        // players' own server.
        runtime
            .spawn(async { umcg::spawn(async {}).await.unwrap() })
            .join()
            .unwrap();
        stop.store(true, SeqCst);
        // Whoever saw `stop` first set the other's flag once more.
        a.join().unwrap();
        b.join().unwrap();
    });
}

/// A flag that a task can wait for.
struct Flag(std::sync::Mutex<(bool, Option<std::task::Waker>)>);

struct Setter(Arc<Flag>);
struct Getter(Arc<Flag>);

fn async_pair() -> (Setter, Getter) {
    let flag = Arc::new(Flag(std::sync::Mutex::new((false, None))));
    (Setter(Arc::clone(&flag)), Getter(flag))
}

impl Setter {
    fn set(&self) {
        let waker = {
            let mut flag = self.0.0.lock().unwrap();
            flag.0 = true;
            flag.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Getter {
    async fn get(&self) {
        std::future::poll_fn(|cx| {
            let mut flag = self.0.0.lock().unwrap();
            if std::mem::take(&mut flag.0) {
                return std::task::Poll::Ready(());
            }
            flag.1 = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }
}

/// Tasks from outside come in shares, not one for each 61 turns of those that keep yielding.
#[test]
fn tasks_from_outside_take_turns_with_yielders() {
    const OUTSIDE: usize = 5_000;
    within(LIMIT, "tasks from outside beside yielders", || {
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

/// Nor do they wait for 61 turns of tasks that compute for long: here that would be 3 s.
#[test]
fn a_task_from_outside_waits_for_no_61_long_tasks() {
    within(LIMIT, "a task from outside beside long ones", || {
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

/// Two threads that park and wake each other hand the slot to and fro and never come by the queues:
/// what they spawn runs all the same, on their server or on another.
#[test]
fn two_threads_that_wake_each_other_do_not_keep_a_task_out() {
    for servers in [1, 2] {
        within(LIMIT, "the task beside the two", move || {
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
                    answers.get().expect("set before it wakes us").unpark();
                }
            });
            let wakes = second.thread().clone();
            let task = umcg::thread::spawn(move || {
                first.set(umcg::thread::current()).expect("set once");
                // Until they are at it: the second one may have to be begun first.
                for _ in 0..100 {
                    wakes.unpark();
                    umcg::thread::park();
                }
                let sets = Arc::clone(&ran);
                drop(umcg::spawn_blocking(move || sets.store(true, SeqCst)));
                let begin = Instant::now();
                while !ran.load(SeqCst) && begin.elapsed() < LIMIT / 4 {
                    wakes.unpark();
                    umcg::thread::park();
                }
                stop.store(true, SeqCst);
                wakes.unpark();
                ran.load(SeqCst)
            });
            assert!(task.join().unwrap(), "it never ran");
            second.join().unwrap();
        });
    }
}
