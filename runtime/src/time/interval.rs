//! Ticks at a period.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    saturating_add,
    sleep::{Sleep, sleep_until},
};

/// A tick that is waited for this much later than it was due still counts as on time. Timers are
/// not exact, and a tick that is a little late must not move the later ones.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Ticks every `period`, the first time at once.
///
/// # Panics
///
/// If `period` is zero.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let mut interval = umcg::time::interval(Duration::from_millis(2));
/// let first = interval.tick().await;
/// let second = interval.tick().await;
/// assert_eq!(second - first, Duration::from_millis(2));
/// # });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, the first time at `start`.
///
/// # Panics
///
/// If `period` is zero.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "`period` must not be zero");
    Interval {
        sleep: sleep_until(start),
        period,
        missed: MissedTickBehavior::default(),
    }
}

/// What an [`Interval`] does when a tick was not waited for in time.
///
/// A tick counts as missed when it is waited for more than 5 ms after it was due. The examples
/// are of a period of 10 ms, with ticks due at 0, 10, 20 and so on, whose user was busy from the
/// tick at 10 until 45.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// The missed ticks follow one another at once, so that none is lost: three at 45, the next
    /// one at 50. The default.
    #[default]
    Burst,
    /// The ticks shift: the one that was missed comes at once, at 45, and the later ones a period
    /// after it, at 55, 65 and so on.
    Delay,
    /// The one that was missed comes at once, at 45. Others that were missed are left out, and
    /// the later ones come when they were due: 50, 60 and so on.
    Skip,
}

impl MissedTickBehavior {
    /// The tick after the one that was due at `due` and is handed out at `now`, too late.
    pub(super) fn next(self, due: Instant, now: Instant, period: Duration) -> Instant {
        match self {
            Self::Burst => saturating_add(due, period),
            Self::Delay => saturating_add(now, period),
            Self::Skip => {
                let late = (now - due).as_nanos() % period.as_nanos();
                // Less than `period`. What does not fit into 64 bits of nanoseconds is 584 years.
                let late = Duration::from_nanos(u64::try_from(late).unwrap_or(u64::MAX));
                saturating_add(now, period.saturating_sub(late))
            }
        }
    }
}

/// A sequence of ticks; made by [`interval`] and [`interval_at`].
#[derive(Debug)]
pub struct Interval {
    /// Until the next tick.
    sleep: Sleep,
    /// Not zero.
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick, and returns the time at which it was due.
    ///
    /// Cancel safe: a tick that was not returned comes at the next call.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// Polls for the next tick.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.sleep).poll(cx));
        let due = self.sleep.deadline();
        let now = Instant::now();
        let next = if now.saturating_duration_since(due) > TOLERANCE {
            self.missed.next(due, now, self.period)
        } else {
            saturating_add(due, self.period)
        };
        self.sleep.reset(next);
        Poll::Ready(due)
    }

    /// The next tick comes one period from now, and the later ones follow it.
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// The next tick comes now, and the later ones follow it.
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick comes `after` from now, and the later ones follow it.
    pub fn reset_after(&mut self, after: Duration) {
        self.reset_at(saturating_add(Instant::now(), after));
    }

    /// The next tick comes at `deadline`, and the later ones follow it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// # umcg::Runtime::new().unwrap().block_on(async {
    /// let mut interval = umcg::time::interval(Duration::from_secs(3600));
    /// interval.tick().await;
    /// let soon = Instant::now() + Duration::from_millis(5);
    /// interval.reset_at(soon);
    /// assert_eq!(interval.tick().await, soon);
    /// # });
    /// ```
    pub fn reset_at(&mut self, deadline: Instant) {
        self.sleep.reset(deadline);
    }

    /// The time between ticks.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What happens to ticks that are not waited for in time.
    #[must_use]
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed
    }

    /// Sets what happens to ticks that are not waited for in time.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }

    #[cfg(test)]
    pub(super) fn next_deadline(&self) -> Instant {
        self.sleep.deadline()
    }
}
