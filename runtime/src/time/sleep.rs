//! Waiting until a point in time.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::saturating_add;
use crate::{
    driver::{self, ArmedTimer, NoThread},
    sched::context,
    task::coop,
};

/// How long a poll blocks while there is no thread that would fire the timer.
const NAP: Duration = Duration::from_millis(1);

/// Waits for at least `duration`.
///
/// The clock starts now, not at the first poll. Dropping the future cancels the timer.
///
/// # Where the system refuses a thread
///
/// The first timer of a runtime makes the thread that fires them. If the system refuses that
/// thread (`RLIMIT_NPROC`, a cgroup's `pids.max`), an event says so, and the runtime tries again
/// from time to time. Until it succeeds, each poll of a timer blocks for up to a millisecond and
/// then has its task polled again. No timer is lost, but they cost CPU time, and on another
/// executor the millisecond stalls the tasks beside it.
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
    sleep_until(saturating_add(Instant::now(), duration))
}

/// Waits until `deadline`, and not at all if it has passed. See [`sleep`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        timer: None,
    }
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    deadline: Instant,
    /// `None`: not polled since it was made or reset, or ended.
    timer: Option<ArmedTimer>,
}

impl Sleep {
    /// The time at which the future is ready.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Changes the deadline, also of a future that was ready already.
    ///
    /// A task that waits for this future has to poll it again: the new deadline wakes no task
    /// before that.
    pub fn reset(&mut self, deadline: Instant) {
        self.timer = None;
        self.deadline = deadline;
    }

    /// Arms the timer in the driver of the current runtime, or of the process outside of runtimes.
    fn arm(&self, cx: &Context<'_>) -> Result<ArmedTimer, NoThread> {
        let waker = cx.waker().clone();
        match context::current_driver() {
            Some(driver) => driver.arm(self.deadline, waker),
            None => driver::process().arm(self.deadline, waker),
        }
    }

    /// There is no thread that would wake the task, so the task is polled again and again, at
    /// most once a [`NAP`].
    fn poll_without_thread(&self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // On a worker this is a block like any other: the server runs another worker.
        std::thread::sleep(left.min(NAP));
        if self.is_elapsed() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let budget = ready!(coop::poll_proceed(cx));
        if self.is_elapsed() {
            self.timer = None;
            budget.made_progress();
            return Poll::Ready(());
        }
        if self.timer.as_ref().is_some_and(|it| it.update(cx.waker())) {
            return Poll::Pending;
        }
        // There is no entry yet; or it fired between the look at the clock and the update, and
        // then the new entry fires at once; or its driver was shut down.
        match self.arm(cx) {
            Ok(timer) => {
                self.timer = Some(timer);
                Poll::Pending
            }
            Err(NoThread) => {
                self.timer = None;
                let polled = self.poll_without_thread(cx);
                if polled.is_ready() {
                    budget.made_progress();
                }
                polled
            }
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep")
            .field("deadline", &self.deadline)
            .field("armed", &self.timer.is_some())
            .finish()
    }
}
