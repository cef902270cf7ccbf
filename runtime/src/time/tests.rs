use std::{
    future::{Future, pending, poll_fn, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::*;
use crate::block_on::block_on;
use crate::driver::timer::Driver;

/// Tests that look at the driver's counters take turns with all others that make timers.
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
    let number = Driver::get().next_number();
    let mut sleep = pin!(sleep_until(Instant::now()));
    assert!(poll_once(sleep.as_mut()).is_ready());
    assert_eq!(Driver::get().next_number(), number);
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
    let number = Driver::get().next_number();
    {
        let mut sleep = pin!(sleep(LONG));
        assert!(poll_once(sleep.as_mut()).is_pending());
        assert_eq!(Driver::get().armed(number), 1);
    }
    assert_eq!(Driver::get().armed(number), 0);
}

#[test]
fn sleep_that_was_never_polled_makes_no_timer() {
    let _alone = alone();
    let number = Driver::get().next_number();
    drop(sleep(LONG));
    assert_eq!(Driver::get().next_number(), number);
}

#[test]
fn polled_twice_is_one_timer() {
    let _alone = alone();
    let number = Driver::get().next_number();
    let mut sleep = pin!(sleep(LONG));
    for _ in 0..3 {
        assert!(poll_once(sleep.as_mut()).is_pending());
    }
    assert_eq!(Driver::get().armed(number), 1);
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
    // Cancelled: the thread may wake once for it, at its deadline.
    {
        let mut cancelled = pin!(sleep(2 * MS));
        assert!(poll_once(cancelled.as_mut()).is_pending());
    }
    block_on(sleep(5 * MS));
    let wakes = Driver::get().wakes();
    std::thread::sleep(50 * MS);
    assert!(Driver::get().wakes() <= wakes + 1);
}

#[test]
fn reset_moves_the_deadline() {
    let _alone = alone();
    let number = Driver::get().next_number();
    let mut sleep = sleep(LONG);
    assert!(poll_once(Pin::new(&mut sleep)).is_pending());
    sleep.reset(Instant::now() + 2 * MS);
    assert_eq!(Driver::get().armed(number), 0);
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
    let number = Driver::get().next_number();
    let elapsed = block_on(timeout(2 * MS, pending::<()>())).unwrap_err();
    assert_eq!(
        std::io::Error::from(elapsed).kind(),
        std::io::ErrorKind::TimedOut
    );
    assert_eq!(Driver::get().armed(number), 0);
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
