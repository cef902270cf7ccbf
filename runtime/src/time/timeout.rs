//! A limit on the time that a future may take.

use std::{
    error::Error,
    fmt,
    future::{Future, IntoFuture},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    saturating_add,
    sleep::{Sleep, sleep_until},
};
use crate::task::coop;

/// Waits for `future`, but not longer than `duration`.
///
/// The future is polled before the clock is looked at, so a future that is ready when it is polled
/// is never late. When the time is up, the future is not dropped by itself: it is dropped with the
/// `Timeout`, which `.await` does.
///
/// # What a timeout ends
///
/// The clock is looked at when a poll of the future has returned. So a timeout ends
///
/// * a future that is suspended, at the deadline;
/// * a future that is always ready but consumes the
///   [cooperative budget](crate::task::coop) of its task, such as a loop over
///   [`JoinHandle`](crate::JoinHandle)s, timers, or
///   [`consume_budget`](crate::task::coop::consume_budget): such a loop suspends after 128
///   operations.
///
/// It does not end
///
/// * a future whose poll blocks in the kernel or computes: its end is seen after that poll, while
///   the other tasks of the runtime go on. To give up on a blocking call at a deadline, run it by
///   [`spawn_blocking`](crate::spawn_blocking) and put the timeout around the `JoinHandle`;
/// * a loop over futures that are always ready and do not consume the budget: `std::future::ready`,
///   and the channels of most crates. [`task::coop`](crate::task::coop) lists them. Call
///   `consume_budget` in the loop, or wrap the future by
///   [`cooperative`](crate::task::coop::cooperative()).
///
/// # Errors
///
/// [`Elapsed`] when the time is up.
///
/// # Examples
///
/// ```
/// use std::{future::pending, time::Duration};
/// use umcg::time::timeout;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
/// assert!(timeout(Duration::from_millis(1), pending::<()>()).await.is_err());
///
/// // Never suspends for longer than it takes to poll it again, and is ended all the same.
/// let busy = async {
///     loop {
///         umcg::task::coop::consume_budget().await;
///     }
/// };
/// assert!(timeout(Duration::from_millis(1), busy).await.is_err());
/// # });
/// ```
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    timeout_at(saturating_add(Instant::now(), duration), future)
}

/// Waits for `future`, but not beyond `deadline`. See [`timeout`].
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    Timeout {
        future: future.into_future(),
        sleep: sleep_until(deadline),
    }
}

/// The future of [`timeout`] and [`timeout_at`].
#[must_use = "futures do nothing unless they are awaited"]
#[derive(Debug)]
pub struct Timeout<F> {
    /// Structurally pinned.
    future: F,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    /// The future that has the limit.
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// The future that has the limit.
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// The future without the limit.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is pinned with the whole `Timeout`: that has no `Drop`, is `Unpin` only
        // if `F` is, and gives `future` away only by `&mut self` or by value, neither of which a
        // pinned `Timeout` allows. `sleep` is `Unpin`.
        let (future, sleep) = unsafe {
            let this = self.get_unchecked_mut();
            (
                Pin::new_unchecked(&mut this.future),
                Pin::new(&mut this.sleep),
            )
        };
        let had_budget = coop::has_budget_remaining();
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        // If the future has used up the budget, the timer would be refused as well, at each poll.
        let _unconstrained =
            (had_budget && !coop::has_budget_remaining()).then(coop::enter_unconstrained);
        sleep.poll(cx).map(|()| Err(Elapsed(())))
    }
}

/// The error of a [`timeout`]: the deadline passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline passed before the future was ready")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}
