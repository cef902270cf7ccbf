//! Letting other tasks run, in a future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// Lets other tasks run first.
///
/// The task goes to the back of its server's run queue, never into the LIFO slot. In a closure or a
/// thread, call [`thread::yield_now`](crate::thread::yield_now) instead.
///
/// On another executor the future wakes its task once. What that means for the order of tasks is up
/// to the executor.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// umcg::task::yield_now().await;
/// # });
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct YieldNow {
    /// It was polled once.
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
