//! Waiting for a task.

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_task::FallibleTask;

use super::{
    abort::AbortHandle,
    coop,
    error::JoinError,
    future::Output,
    header::{Meta, Runnable},
    id::Id,
};
use crate::block_on::block_on;

/// Owns the right to a task's output.
///
/// Await it, or call [`join`](Self::join) where blocking is wanted. Dropping it detaches the
/// task, which runs on; its output is then dropped when it is done.
///
/// A join that says cancelled or done means that the task's future has been dropped.
///
/// # Examples
///
/// ```
/// let runtime = umcg::Runtime::new().unwrap();
/// let task = runtime.handle().spawn(async { 6 * 7 });
/// assert_eq!(task.join().unwrap(), 42);
///
/// runtime.block_on(async {
///     let task = umcg::spawn_blocking(|| -> u32 { panic!("no luck") });
///     assert!(task.await.unwrap_err().is_panic());
/// });
/// ```
pub struct JoinHandle<T> {
    /// `None`: detached, in `drop`.
    task: Option<FallibleTask<Output<T>, Meta>>,
    abort: AbortHandle,
    /// The output was handed out.
    taken: bool,
}

impl<T> JoinHandle<T> {
    pub(super) fn new(task: async_task::Task<Output<T>, Meta>, runnable: &Runnable) -> Self {
        Self {
            task: Some(task.fallible()),
            abort: AbortHandle::new(runnable),
            taken: false,
        }
    }

    /// Blocks until the task is done, and gives its output.
    ///
    /// May be called on any thread: outside of a runtime, and on a worker, whose server
    /// meanwhile runs other tasks. Inside a future prefer to await the handle: a future that
    /// blocks holds up its own siblings (`join!`, `select!`).
    ///
    /// # Errors
    ///
    /// [`JoinError`] if the task panicked or was cancelled.
    pub fn join(self) -> Result<T, JoinError> {
        block_on(self)
    }

    /// [`poll`](Future::poll) without taking from the budget of the calling task.
    pub(super) fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        assert!(!self.taken, "`JoinHandle` polled after completion");
        let task = self.task.as_mut().expect("taken by `drop` only");
        let output = ready!(Pin::new(task).poll(cx));
        self.taken = true;
        Poll::Ready(match output {
            Some(output) => output.into_inner(),
            // The scheduler dropped the task.
            None => Err(JoinError::cancelled(self.id())),
        })
    }

    /// Asks the task to end; see [`AbortHandle::abort`].
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// A handle that aborts the task and may be cloned and sent away.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Whether the task is done: finished, panicked or cancelled.
    ///
    /// Its output may still be on its way, so a `join` after this may block for a moment.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> Id {
        self.abort.id()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let proceed = ready!(coop::poll_proceed(cx));
        let output = ready!(self.get_mut().poll_output(cx));
        proceed.made_progress();
        Poll::Ready(output)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.detach();
        }
    }
}

// The output is handed out by value, once; nothing of it can be seen through the handle.
impl<T> Unpin for JoinHandle<T> {}
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
