//! Aborting a task from afar.

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

/// Aborts a task, without the right to join it.
///
/// Made by [`JoinHandle::abort_handle`](crate::JoinHandle::abort_handle). It may outlive the
/// task; the task's future and output go when they are due, only the task's bare allocation
/// stays as long as the handle.
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
    /// A reference to the task: keeps `meta` alive.
    waker: Waker,
    /// Inside the task's allocation.
    meta: NonNull<Meta>,
}

// SAFETY: `meta` is a shared reference to a Sync value, and `Waker` is Send and Sync.
unsafe impl Send for AbortHandle {}
// SAFETY: as above.
unsafe impl Sync for AbortHandle {}

// What can be done by a handle, to set a flag and to wake, does not stop half-way.
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
        // SAFETY: the metadata lives in the task's allocation, which is freed only when the
        // last reference is gone, and `waker` is one.
        unsafe { self.meta.as_ref() }
    }

    /// Asks the task to end.
    ///
    /// * Queued or suspended: its future is dropped by a worker, soon, without another poll.
    /// * Running: it is dropped when it next suspends. A closure runs to its end, since a
    ///   thread cannot be stopped from outside; so does a future that never suspends.
    /// * Done: nothing happens.
    ///
    /// Never blocks. The join handle then says
    /// [`is_cancelled`](crate::JoinError::is_cancelled), unless the task finished first.
    pub fn abort(&self) {
        self.meta().set_aborted();
        self.waker.wake_by_ref();
    }

    /// The task's id.
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
