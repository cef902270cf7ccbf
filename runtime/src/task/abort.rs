//! Aborting a task.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    task::Waker,
};

use super::{
    header::{Meta, Runnable},
    id::Id,
};

/// Aborts a task. Gives no right to join it.
///
/// Made by [`JoinHandle::abort_handle`](crate::JoinHandle::abort_handle). The handle may outlive
/// the task. It does not keep the future or the output of the task, only the allocation that they
/// were in.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = umcg::spawn(std::future::pending::<()>());
/// let abort = task.abort_handle();
/// umcg::spawn_blocking(move || abort.abort());
/// assert!(task.await.unwrap_err().is_cancelled());
/// # });
/// ```
#[derive(Clone)]
pub struct AbortHandle {
    /// A reference to the task, which keeps `meta` alive.
    waker: Waker,
    /// In the allocation of the task.
    meta: NonNull<Meta>,
}

// SAFETY: `meta` is a shared reference to a Sync value, and `Waker` is Send and Sync.
unsafe impl Send for AbortHandle {}
// SAFETY: as above.
unsafe impl Sync for AbortHandle {}

// A handle sets a flag and wakes a task; a panic cannot leave either half done.
impl UnwindSafe for AbortHandle {}
impl RefUnwindSafe for AbortHandle {}

impl AbortHandle {
    pub(super) fn new(runnable: &Runnable) -> Self {
        Self {
            waker: runnable.waker(),
            meta: NonNull::from(runnable.metadata()),
        }
    }

    pub(super) fn meta(&self) -> &Meta {
        // SAFETY: the metadata is in the allocation of the task, which is freed when the last
        // reference is gone, and `waker` is a reference.
        unsafe { self.meta.as_ref() }
    }

    /// Asks the task to end.
    ///
    /// * If it is queued or suspended, a worker soon drops its future without another poll.
    /// * If it is running, its future is dropped when it next suspends. A closure runs to its end,
    ///   since a thread cannot be stopped from outside, and so does a future that never suspends.
    /// * If it is done, nothing happens.
    ///
    /// Never blocks. A join of the task then returns an error that
    /// [`is_cancelled`](crate::JoinError::is_cancelled), unless the task finished first.
    pub fn abort(&self) {
        self.meta().set_aborted();
        self.waker.wake_by_ref();
    }

    /// The id of the task.
    #[must_use]
    pub fn id(&self) -> Id {
        self.meta().id()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle")
            .field("id", &self.id())
            .finish()
    }
}
