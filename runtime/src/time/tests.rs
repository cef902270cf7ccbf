use std::{
    future::{Future, pending, poll_fn, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio_test::{assert_pending, assert_ready, task};

use super::*;
use crate::{Builder, block_on::block_on, driver, testing::runtime};

/// Tests that look at the counters of the process's driver run one at a time, together with all
/// others that use that driver.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn sleep_never_ends_early() {
    let _alone = alone();
    for i in 0..5 {
        let start = Instant::now();
        block_on(sleep(i * MS));
        assert!(start.elapsed() >= i * MS);
    }
}

#[test]
fn deadline_in_the_past_is_ready_at_once_without_a_timer() {
    let _alone = alone();
    let number = driver::process().next_number();
    let mut sleep = pin!(sleep_until(Instant::now()));
    assert!(poll_once(sleep.as_mut()).is_ready());
    assert_eq!(driver::process().next_number(), number);
}

#[test]
fn clock_starts_when_the_sleep_is_made() {
    let _alone = alone();
    let mut sleep = pin!(sleep(MS));
    std::thread::sleep(2 * MS);
    assert!(poll_once(sleep.as_mut()).is_ready());
}

#[test]
fn dropped_sleep_leaves_no_timer() {
    let _alone = alone();
    let number = driver::process().next_number();
    {
        let mut sleep = pin!(sleep(LONG));
        assert!(poll_once(sleep.as_mut()).is_pending());
        assert_eq!(driver::process().armed(number), 1);
    }
    assert_eq!(driver::process().armed(number), 0);
}

#[test]
fn sleep_that_was_never_polled_makes_no_timer() {
    let _alone = alone();
    let number = driver::process().next_number();
    drop(sleep(LONG));
    assert_eq!(driver::process().next_number(), number);
}

#[test]
fn polled_twice_is_one_timer() {
    let _alone = alone();
    let number = driver::process().next_number();
    let mut sleep = pin!(sleep(LONG));
    for _ in 0..3 {
        assert!(poll_once(sleep.as_mut()).is_pending());
    }
    assert_eq!(driver::process().armed(number), 1);
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn last_waker_is_the_one_that_is_woken() {
    let _alone = alone();
    let stale = Arc::new(Count(AtomicUsize::new(0)));
    let mut sleep = pin!(sleep(5 * MS));
    let waker = Waker::from(Arc::clone(&stale));
    let polled = sleep.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    block_on(sleep);
    assert_eq!(stale.0.load(SeqCst), 0);
}

#[test]
fn earlier_timer_overtakes_a_later_one() {
    let _alone = alone();
    let mut later = pin!(sleep(LONG));
    assert!(poll_once(later.as_mut()).is_pending());
    let start = Instant::now();
    block_on(sleep(2 * MS));
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn many_timers_fire_in_order() {
    let _alone = alone();
    let start = Instant::now() + 20 * MS;
    let mut sleeps: Vec<_> = (0..50_u32)
        .rev()
        .map(|i| Box::pin(sleep_until(start + i * MS / 10)))
        .collect();
    let mut fired = Vec::new();
    block_on(poll_fn(|cx| {
        sleeps.retain_mut(|sleep| {
            let done = sleep.as_mut().poll(cx).is_ready();
            if done {
                fired.push(sleep.deadline());
            }
            !done
        });
        if sleeps.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    assert_eq!(fired.len(), 50);
    assert!(Instant::now() >= start + 49 * MS / 10);
}

#[test]
fn no_wake_ups_without_a_timer() {
    let _alone = alone();
    // The thread may wake once for a cancelled timer, at its deadline.
    {
        let mut cancelled = pin!(sleep(2 * MS));
        assert!(poll_once(cancelled.as_mut()).is_pending());
    }
    block_on(sleep(5 * MS));
    let wakes = driver::process().wakes();
    std::thread::sleep(50 * MS);
    assert!(driver::process().wakes() <= wakes + 1);
}

#[test]
fn reset_moves_the_deadline() {
    let _alone = alone();
    let number = driver::process().next_number();
    let mut sleep = sleep(LONG);
    assert!(poll_once(Pin::new(&mut sleep)).is_pending());
    sleep.reset(Instant::now() + 2 * MS);
    assert_eq!(driver::process().armed(number), 0);
    block_on(&mut sleep);
    assert!(sleep.is_elapsed());
    sleep.reset(Instant::now() + 2 * MS);
    block_on(&mut sleep);
}

#[test]
fn timeout_gives_the_output_of_a_future_in_time() {
    assert_eq!(block_on(timeout(LONG, ready(7))), Ok(7));
    assert_eq!(block_on(timeout(Duration::ZERO, ready(7))), Ok(7));
}

#[test]
fn timeout_ends_a_future_that_takes_too_long() {
    let _alone = alone();
    let number = driver::process().next_number();
    let elapsed = block_on(timeout(2 * MS, pending::<()>())).unwrap_err();
    assert_eq!(
        std::io::Error::from(elapsed).kind(),
        std::io::ErrorKind::TimedOut
    );
    assert_eq!(driver::process().armed(number), 0);
}

#[test]
fn endless_durations_are_long_ones() {
    let _alone = alone();
    assert_eq!(block_on(timeout(Duration::MAX, ready(7))), Ok(7));
    let mut sleep = pin!(sleep(Duration::MAX));
    assert!(poll_once(sleep.as_mut()).is_pending());
}

#[test]
fn interval_ticks_at_its_period_and_catches_up() {
    let _alone = alone();
    let mut interval = interval(MS);
    let first = block_on(interval.tick());
    std::thread::sleep(5 * MS);
    for i in 1..=5 {
        assert_eq!(block_on(interval.tick()), first + i * MS);
    }
    interval.reset();
    assert!(block_on(interval.tick()) > first + 5 * MS);
}

#[test]
fn interval_with_an_endless_period_ticks_once() {
    let _alone = alone();
    let mut interval = interval(Duration::MAX);
    block_on(interval.tick());
    assert!(poll_once(pin!(interval.tick())).is_pending());
    interval.reset();
    assert!(poll_once(pin!(interval.tick())).is_pending());
}

#[test]
fn interval_that_has_not_begun_may_be_reset_to_an_endless_period() {
    let _alone = alone();
    let mut interval = interval_at(Instant::now() + LONG, Duration::MAX);
    assert!(poll_once(pin!(interval.tick())).is_pending());
    interval.reset();
    assert!(poll_once(pin!(interval.tick())).is_pending());
}

#[test]
#[should_panic(expected = "must not be zero")]
fn interval_of_zero_is_refused() {
    interval(Duration::ZERO);
}

#[test]
fn wakers_that_panic_do_not_stop_the_others() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("in a waker");
        }
    }

    let _alone = alone();
    let waker = Waker::from(Arc::new(Bad));
    let mut bad = pin!(sleep(MS));
    assert!(
        bad.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    block_on(sleep(3 * MS));
    block_on(sleep(MS));
}

#[test]
fn late_ticks_are_on_time_within_the_tolerance() {
    let _alone = alone();
    let mut interval = interval(LONG);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    assert_eq!(interval.missed_tick_behavior(), MissedTickBehavior::Delay);
    assert_eq!(interval.period(), LONG);
    let due = Instant::now();
    interval.reset_at(due);
    // This tick is less than 5 ms late, unless the machine stalls. Only then are later ones moved.
    block_on(interval.tick());
    let read = Instant::now();
    let next = interval.next_deadline();
    assert!(next == due + LONG || read > due + 5 * MS, "{next:?}");
}

#[test]
fn missed_ticks_burst_shift_or_are_left_out() {
    let start = Instant::now();
    let at = |ms| start + ms * MS;
    let next = |behavior: MissedTickBehavior, due, now| behavior.next(at(due), at(now), 10 * MS);
    use MissedTickBehavior::{Burst, Delay, Skip};
    assert_eq!(MissedTickBehavior::default(), Burst);
    // The tick at 20 is handed out at 45.
    assert_eq!(next(Burst, 20, 45), at(30));
    assert_eq!(next(Delay, 20, 45), at(55));
    assert_eq!(next(Skip, 20, 45), at(50));
    // At the very time of a tick, that tick counts as passed.
    assert_eq!(next(Skip, 20, 50), at(60));
    // Missed by less than a period.
    assert_eq!(next(Skip, 20, 26), at(30));
    for behavior in [Burst, Delay, Skip] {
        assert!(behavior.next(start, at(100), Duration::MAX) > start + LONG);
    }
}

#[test]
fn interval_is_reset_to_now_to_later_and_to_a_time() {
    let _alone = alone();
    let mut interval = interval_at(Instant::now() + LONG, LONG);
    interval.reset_immediately();
    let first = block_on(interval.tick());
    assert!(first <= Instant::now());
    assert_eq!(interval.next_deadline(), first + LONG);
    let before = Instant::now();
    interval.reset_after(2 * MS);
    assert!(block_on(interval.tick()) >= before + 2 * MS);
    let at = Instant::now() + 2 * MS;
    interval.reset_at(at);
    assert_eq!(block_on(interval.tick()), at);
    interval.reset();
    assert!(interval.next_deadline() > at + LONG);
}

/// The number of threads of this process that have the name.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.trim_end() == name)
        .count()
}

#[test]
fn first_timer_makes_the_thread_of_its_runtime_which_ends_with_it() {
    let runtime = Builder::new()
        .servers(1)
        .thread_name("tm-own")
        .build()
        .unwrap();
    runtime.block_on(async { crate::spawn(crate::yield_now()).await.unwrap() });
    assert!(!runtime.handle().shared().driver().has_thread());
    runtime.block_on(sleep(MS));
    assert!(runtime.handle().shared().driver().has_thread());
    assert_eq!(threads("tm-own-timer"), 1);
    drop(runtime);
    // The thread was joined. The kernel removes it from this list a moment after that.
    let limit = Instant::now() + Duration::from_secs(30);
    while threads("tm-own-timer") != 0 {
        assert!(Instant::now() < limit, "the thread is still there");
        std::thread::yield_now();
    }
}

#[test]
fn runtime_polled_in_has_the_timer_and_a_dropped_task_takes_it_along() {
    let _alone = alone();
    let number = driver::process().next_number();
    let runtime = runtime();
    let task = runtime.spawn(sleep(LONG));
    let driver = runtime.shared().driver();
    let limit = Instant::now() + Duration::from_secs(30);
    while driver.armed(0) == 0 {
        assert!(Instant::now() < limit, "the task does not sleep");
        std::thread::yield_now();
    }
    assert_eq!(driver::process().armed(number), 0);
    task.abort();
    assert!(task.join().unwrap_err().is_cancelled());
    assert_eq!(driver.armed(0), 0);
}

#[test]
fn timer_of_another_executor_outlives_its_runtime() {
    let _alone = alone();
    let runtime = Builder::new().servers(1).build().unwrap();
    let mut sleep = task::spawn(sleep(20 * MS));
    {
        let _entered = runtime.enter();
        assert_pending!(sleep.poll());
    }
    assert_eq!(runtime.handle().shared().driver().armed(0), 1);
    let number = driver::process().next_number();
    let handle = runtime.handle().clone();
    drop(runtime);
    assert!(
        sleep.is_woken(),
        "the end of its driver is a reason to poll again"
    );
    // The poll that follows is made inside of the runtime that has ended.
    let _entered = handle.enter();
    assert_pending!(sleep.poll());
    assert_eq!(driver::process().armed(number), 1);
    let limit = Instant::now() + Duration::from_secs(30);
    while !sleep.is_woken() {
        assert!(Instant::now() < limit, "nobody wakes it");
        std::thread::yield_now();
    }
    assert_ready!(sleep.poll());
}

#[test]
fn blocked_closure_sleeps_through_the_shutdown_of_its_runtime() {
    let runtime = Builder::new().servers(1).build().unwrap();
    let (begun, seen) = std::sync::mpsc::channel();
    let task = runtime.spawn_blocking(move || {
        let start = Instant::now();
        begun.send(()).unwrap();
        crate::Handle::current().block_on(sleep(50 * MS));
        start.elapsed()
    });
    seen.recv().unwrap();
    drop(runtime);
    assert!(task.join().unwrap() >= 50 * MS);
}

#[test]
fn runtime_may_be_dropped_by_a_waker_on_its_own_timer_thread() {
    struct Drops(Mutex<Option<crate::Runtime>>, std::sync::mpsc::Sender<()>);
    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            let _ = self.1.send(());
        }
    }
    let _alone = alone();
    let runtime = Builder::new().servers(1).build().unwrap();
    let handle = runtime.handle().clone();
    let (dropped, seen) = std::sync::mpsc::channel();
    let waker = Waker::from(Arc::new(Drops(Mutex::new(Some(runtime)), dropped)));
    let mut sleep = pin!(sleep(5 * MS));
    {
        let _entered = handle.enter();
        assert_pending!(sleep.as_mut().poll(&mut Context::from_waker(&waker)));
    }
    seen.recv_timeout(Duration::from_secs(60))
        .expect("the runtime ends");
}

/// Aborts the process if `f` does not return: without a budget the futures of these tests keep a
/// worker busy without end, and the end of the test would wait for it.
fn ends<R>(f: impl FnOnce() -> R) -> R {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let waited = wait.recv_timeout(Duration::from_secs(60));
        if waited == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("a future that is always ready was not ended by its timeout");
            std::process::abort();
        }
    });
    let result = f();
    drop(done);
    watchdog.join().unwrap();
    result
}

#[test]
fn timeout_ends_a_loop_over_timers_that_are_always_ready() {
    let runtime = runtime();
    let ready = async {
        loop {
            sleep(Duration::ZERO).await;
        }
    };
    let task = runtime.spawn(timeout(2 * MS, ready));
    assert!(ends(|| task.join()).unwrap().is_err());
}

#[test]
fn timeout_ends_a_loop_over_ticks_and_other_timeouts() {
    let runtime = runtime();
    let ready = async {
        let mut interval = interval(Duration::from_nanos(1));
        loop {
            interval.tick().await;
            let _ = timeout(Duration::ZERO, pending::<()>()).await;
        }
    };
    assert!(ends(|| runtime.block_on(timeout(2 * MS, ready))).is_err());
}
