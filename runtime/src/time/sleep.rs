//! Waiting until a point in time.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    driver::{Driver, Key},
    from_now,
};

/// Waits for at least `duration`.
///
/// The clock starts now, not at the first poll. Dropping the future cancels the timer.
///
/// # Panics
///
/// When polled, if the timer thread cannot be made, which only the process's first timer, and
/// those after such a failure, try.
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
            match Driver::get().insert(self.deadline, cx.waker().clone()) {
                Ok(key) => self.key = Some(key),
                Err(error) => panic!("the timer thread could not be made: {error}"),
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
