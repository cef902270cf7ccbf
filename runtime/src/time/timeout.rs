//! Not waiting for ever.

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

/// Waits for `future`, but not longer than `duration`.
///
/// The future is polled first, so one that is ready is never late. When the time is up it is
/// not dropped by itself: drop the `Timeout`, as `.await` does.
///
/// A future that blocks inside its poll cannot be timed out before it returns.
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
    /// The future that is waited for.
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// The future that is waited for.
    pub fn get_mut(&mut self) -> &mut F {
        &mut self.future
    }

    /// The future that is waited for, without the limit.
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is pinned with the whole: `Timeout` has no `Drop`, is `Unpin` only
        // if `F` is, and hands `future` out only by `&mut self` or by value, which a pinned
        // one does not give. `sleep` is `Unpin`.
        let (future, sleep) = unsafe {
            let this = self.get_unchecked_mut();
            (
                Pin::new_unchecked(&mut this.future),
                Pin::new(&mut this.sleep),
            )
        };
        if let Poll::Ready(output) = future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.poll(cx).map(|()| Err(Elapsed(())))
    }
}

/// The time of a [`timeout`] was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was up before the future was ready")
    }
}

impl Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}
