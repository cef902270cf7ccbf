//! Timers where the system gives less than they would like.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use umcg::Builder;
use umcg_tests::fault::{apart, eventually, limits, overlap, threads};

/// What the thread that keeps the timers is called.
const KEEPER: &str = "umcg-timer";

/// The process's first timers come when it may have no thread more.
#[test]
fn timers_need_no_thread_of_their_own() {
    apart(60, || {
        limits::drop_privileges().expect("root may become anybody");
        let runtime = Builder::new().servers(2).build().expect("a runtime");
        // Below what there is: no thread more, whatever else this user does.
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
        // Others run beside them, and so do timers outside of any runtime.
        overlap(&runtime, 100);
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

        // One that has waited without the thread gets it as soon as there is room.
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

/// A waker of somebody else's panics, with a payload whose destructor panics, too.
#[test]
fn a_waker_that_panics_badly_does_not_stop_the_timers() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::panic_any(Payload);
        }
    }
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("the destructor of a payload");
        }
    }
    apart(60, || {
        let mut sleep = pin!(umcg::time::sleep(Duration::from_millis(1)));
        let waker = Waker::from(Arc::new(Panics));
        assert!(
            sleep
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        thread::sleep(Duration::from_millis(50));
        umcg::block_on(umcg::time::sleep(Duration::from_millis(1)));
    });
}
