//! Waiting for the end of a task.

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

/// Owns the right to the output of a task.
///
/// Await it, or call [`join`](Self::join) to block. If the handle is dropped, the task is detached:
/// it continues to run, and its output is dropped when it is done.
///
/// When a join returns, with the output or with an error, the future of the task has been dropped.
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
    /// `None`: detached; only in `drop`.
    task: Option<FallibleTask<Output<T>, Meta>>,
    /// Keeps the allocation of the task, which its output refers to.
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

    /// Blocks the calling thread until the task is done, and returns its output.
    ///
    /// (To run two closures in parallel is [`umcg::join`](crate::join()).)
    ///
    /// May be called on any thread: outside of a runtime, and on a worker, whose server runs other
    /// tasks meanwhile. Inside a future, prefer to await the handle: a future that blocks also
    /// blocks the other branches of a `join!` or `select!` around it.
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
            // The scheduler has dropped the task.
            None => Err(JoinError::cancelled(self.id())),
        })
    }

    /// Asks the task to end; see [`AbortHandle::abort`].
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// A handle that aborts the task, and can be cloned and sent to other threads.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        self.abort.clone()
    }

    /// Whether the task is done: it finished, panicked, or was cancelled.
    ///
    /// The thread that ran it may still be at its last steps, so a `join` may block for a moment.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(FallibleTask::is_finished)
    }

    /// The id of the task.
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

// The output is handed out once, by value. Nothing of it can be seen through the handle.
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
