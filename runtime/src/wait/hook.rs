//! What code that waits or gives way asks of the scheduler, if its thread is a worker.

use std::{cell::Cell, ptr::NonNull, time::Instant};

use super::Parker;
use crate::sync::thread_local_cell;

/// A worker thread, as the code that runs on it sees it. Implemented by the scheduler.
pub(crate) trait WorkerHook {
    /// A managed wait begins: this worker does not count against `max_workers` until
    /// [`end_managed_blocking`](Self::end_managed_blocking) (trace A12). Waits do not nest.
    fn begin_managed_blocking(&self);

    /// The managed wait is over. This is a checkpoint: the worker stops here until its server
    /// picks it.
    fn end_managed_blocking(&self);

    /// Gives the slot up and sleeps until `parker` has its token, or until `deadline`. The owner of
    /// `parker`, which is PARKED, is this worker.
    ///
    /// Returns with the token there, or after the deadline. It also returns, with the parker
    /// PARKED, when this worker cannot sleep without its slot: its server has gone, or no timer
    /// can be made for the deadline. Then the caller sleeps as any thread does.
    fn sleep(&self, parker: &Parker, deadline: Option<Instant>);

    /// The application is about to block in code that nobody watches: gives the slot away, if
    /// somebody has use for it. A [`checkpoint`](Self::checkpoint) follows when the block is over.
    fn announce_block(&self);

    /// Lets others of this server run first, and returns when this worker was picked again.
    fn yield_now(&self);

    /// A checkpoint: the worker may have been blocked, by user code or by a sleep of the
    /// runtime's, and stops here until its server picks it.
    fn checkpoint(&self);
}

thread_local_cell! {
    /// The worker that this thread is. `None`: it is not one, or not any more.
    static WORKER: Cell<Option<NonNull<dyn WorkerHook>>> = Cell::new(None)
}

/// Tells this thread that it is a worker, or with `None` that it no longer is.
///
/// # Safety
/// The hook stays valid until the next call on this thread, or the end of the thread.
pub(crate) unsafe fn set_worker(hook: Option<NonNull<dyn WorkerHook>>) {
    WORKER.with(|worker| worker.set(hook));
}

/// Calls `f` with the hook, if this thread is a worker.
pub(crate) fn with_worker<R>(f: impl FnOnce(&dyn WorkerHook) -> R) -> Option<R> {
    let hook = WORKER.with(Cell::get)?;
    // SAFETY: `set_worker`: valid until it is replaced, which the worker thread itself does, never
    // from inside a task.
    Some(f(unsafe { hook.as_ref() }))
}
