//! Waiting until a point in time.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::from_now;
use crate::driver::timer::{Driver, Key};

/// How long a poll blocks while there is no thread that would keep the timer.
const NAP: Duration = Duration::from_millis(1);

/// Waits for at least `duration`.
///
/// The clock starts now, not at the first poll. Dropping the future cancels the timer.
///
/// # Where no thread can be had
///
/// Timers are kept by a thread, which the first poll of the process makes. Where the system
/// refuses it (`RLIMIT_NPROC`, a cgroup's `pids.max`) an event says so, and until it can be made
/// each poll blocks for up to a millisecond and has its task polled again: no timer is lost, but
/// they cost CPU time, and on an executor of another kind that millisecond is everybody's.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let start = Instant::now();
/// umcg::time::sleep(Duration::from_millis(5)).await;
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// # });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(from_now(duration))
}

/// Waits until `deadline`; at once if it has passed. See [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        key: None,
    }
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    deadline: Instant,
    /// The entry in the driver. `None`: not polled since it was made or reset, or it fired.
    key: Option<Key>,
}

impl Sleep {
    /// When it ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Changes the deadline, also of a sleep that has ended. A task that waits on it must poll
    /// it again: the new deadline wakes nobody before that.
    pub fn reset(&mut self, deadline: Instant) {
        self.cancel();
        self.deadline = deadline;
    }

    /// Nobody will wake the task, so it is polled again and again, not too often.
    fn poll_without_driver(&self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A block like any other on a worker, whose server runs somebody else.
        std::thread::sleep(left.min(NAP));
        if self.is_elapsed() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn cancel(&mut self) {
        if let Some(key) = self.key.take() {
            Driver::get().remove(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_elapsed() {
            self.cancel();
            return Poll::Ready(());
        }
        let armed = self
            .key
            .is_some_and(|key| Driver::get().update(key, cx.waker()));
        if !armed {
            // Not entered yet, or it fired between the look at the clock and the update: then
            // the new entry fires at once.
            self.key = Driver::get().insert(self.deadline, cx.waker().clone()).ok();
            if self.key.is_none() {
                return self.poll_without_driver(cx);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .field("armed", &self.key.is_some())
            .finish()
    }
}
