//! Timers and timeouts.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use umcg::Builder;
use umcg_tests::{
    BlockerGate, eventually, isolated, limits,
    runtime::{default_runtime, run_mixed_tasks},
    threads,
};

#[test]
fn timers_fire_late_rather_than_early_and_in_order() {
    isolated(60, || {
        let runtime = default_runtime();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tasks: Vec<_> = [80_u64, 20, 140, 50, 110]
            .into_iter()
            .map(|ms| {
                let order = Arc::clone(&order);
                runtime.spawn(async move {
                    let begun = Instant::now();
                    umcg::time::sleep(Duration::from_millis(ms)).await;
                    assert!(begun.elapsed() >= Duration::from_millis(ms));
                    order.lock().unwrap().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        let order = order.lock().unwrap();
        assert_eq!(*order, [20, 50, 80, 110, 140]);
    });
}

#[test]
fn a_timer_fires_while_other_tasks_block_or_compute() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let gate = Arc::new(BlockerGate::new());
        let theirs = Arc::clone(&gate);
        let blocked = runtime.spawn(async move { theirs.wait() });
        eventually("it is blocked", || gate.waiting() == 1);
        let begun = Instant::now();
        let timed = runtime.spawn(umcg::time::sleep(Duration::from_millis(20)));
        timed.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        gate.open();
        blocked.join().unwrap();
    });
}

#[test]
fn timeouts_end_futures_and_timers_may_be_dropped() {
    isolated(60, || {
        let runtime = default_runtime();
        runtime.block_on(async {
            let late = umcg::time::timeout(Duration::from_millis(10), std::future::pending::<()>());
            assert!(late.await.is_err());
            let quick = umcg::time::timeout(Duration::from_secs(3600), async {
                umcg::time::sleep(Duration::from_millis(1)).await;
                5
            });
            assert_eq!(quick.await.unwrap(), 5);
        });
        // Far more timers than threads, and all but one in each task are cancelled.
        let done = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..2_000)
            .map(|_| {
                let done = Arc::clone(&done);
                runtime.spawn(async move {
                    let mut timer = pin!(umcg::time::sleep(Duration::from_secs(3600)));
                    poll_fn(|cx| {
                        assert!(timer.as_mut().poll(cx).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    umcg::time::sleep(Duration::from_millis(30)).await;
                    done.store(true, SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(done.load(SeqCst));
    });
}

/// The name of the thread that keeps the timers.
const KEEPER: &str = "umcg-timer";

/// The first timers of the process come when it may have no more threads.
#[test]
fn timers_need_no_thread_of_their_own() {
    isolated(60, || {
        limits::drop_privileges().expect("root may become anybody");
        let runtime = Builder::new().servers(2).build().expect("a runtime");
        // Below the number of threads that exist, so that none can be made, whatever else this user
        // does.
        limits::set_soft(libc::RLIMIT_NPROC, 1).expect("a lower limit is permitted");
        assert!(
            thread::Builder::new().spawn(|| ()).is_err(),
            "the limit does not hold"
        );

        let begun = Instant::now();
        let tasks: Vec<_> = (0..30_u64)
            .map(|i| {
                runtime.spawn(async move {
                    let time = Duration::from_millis(i);
                    let begun = Instant::now();
                    umcg::time::sleep(time).await;
                    assert!(begun.elapsed() >= time, "early");
                    let late = umcg::time::timeout(time, std::future::pending::<()>()).await;
                    assert!(late.is_err());
                    assert!(begun.elapsed() >= 2 * time, "early");
                    i
                })
            })
            .collect();
        // Other tasks run meanwhile, and timers outside of any runtime work as well.
        run_mixed_tasks(&runtime, 100);
        umcg::block_on(umcg::time::sleep(Duration::from_millis(5)));
        let mut interval = umcg::time::interval(Duration::from_millis(2));
        let ticks = umcg::block_on(async {
            let first = interval.tick().await;
            interval.tick().await - first
        });
        assert_eq!(ticks, Duration::from_millis(2));
        for (i, task) in (0..).zip(tasks) {
            assert_eq!(task.join().expect("no timer fails its task"), i);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(threads::named(KEEPER), 0);

        // A timer that has waited without the thread gets the thread as soon as there is room.
        let waits = runtime.spawn(umcg::time::sleep(Duration::from_secs(3600)));
        let hard = limits::get(libc::RLIMIT_NPROC).expect("it has a limit");
        limits::set_soft(libc::RLIMIT_NPROC, hard.rlim_max).expect("up to the hard limit");
        eventually("the thread is made", || threads::named(KEEPER) == 1);
        runtime
            .spawn(umcg::time::sleep(Duration::from_millis(5)))
            .join()
            .expect("no timer fails its task");
        waits.abort();
    });
}

/// A waker of the application panics, and the destructor of its payload panics as well.
#[test]
fn a_waker_that_panics_badly_does_not_stop_the_timers() {
    struct Panics(AtomicBool);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
            std::panic::panic_any(Payload);
        }
    }
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("the destructor of a payload");
        }
    }
    isolated(60, || {
        let mut sleep = pin!(umcg::time::sleep(Duration::from_millis(1)));
        let panics = Arc::new(Panics(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&panics));
        let first = sleep.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(first.is_pending());
        eventually("the timer fires", || panics.0.load(SeqCst));
        umcg::block_on(umcg::time::sleep(Duration::from_millis(1)));
    });
}
