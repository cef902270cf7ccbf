//! Which runtime the calling thread belongs to, and which of its workers it is.
//!
//! One thread-local record answers both questions for the whole scheduler.

use std::{cell::Cell, ptr, ptr::NonNull, sync::Arc};

use super::run::WorkerThread;
use crate::{
    sched::{Shared, context},
    wait::{self, WorkerHook},
};

struct Current {
    /// The runtime that made this thread to run its workers' code or the application's; null: none.
    /// Set from the thread's first line to its last, hooks included.
    runtime: Cell<*const Shared>,
    /// The worker that this thread is; null: none. Set while the thread is registered and runs
    /// tasks.
    worker: Cell<*const WorkerThread>,
}

thread_local! {
    static CURRENT: Current = const {
        Current {
            runtime: Cell::new(ptr::null()),
            worker: Cell::new(ptr::null()),
        }
    };
}

/// Makes this thread one of that runtime, to the thread's end.
pub(in crate::sched) fn join_runtime(shared: &Arc<Shared>) {
    CURRENT.with(|current| current.runtime.set(Arc::as_ptr(shared)));
}

/// Whether this thread is one of that runtime. Such a thread cannot wait for the runtime's end.
pub(in crate::sched) fn is_thread_of(shared: &Shared) -> bool {
    CURRENT.with(|current| ptr::eq(current.runtime.get(), shared))
}

/// Runs `f`, in which this thread is that worker.
pub(super) fn run_as(worker: &WorkerThread, f: impl FnOnce()) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            CURRENT.with(|current| current.worker.set(ptr::null()));
            // SAFETY: `None` needs nothing to stay valid.
            unsafe {
                wait::set_worker(None);
                context::set_own(None);
            }
        }
    }
    CURRENT.with(|current| current.worker.set(worker));
    // SAFETY: `worker` outlives this call, and `Leave` takes both back before it returns.
    unsafe {
        wait::set_worker(Some(NonNull::from(worker as &dyn WorkerHook)));
        context::set_own(Some(NonNull::from(&worker.shared)));
    }
    let _leave = Leave;
    f();
}

/// Calls `f` with the worker that this thread is, if it is one of that runtime.
pub(in crate::sched) fn with_worker<R>(
    shared: &Shared,
    f: impl FnOnce(&WorkerThread) -> R,
) -> Option<R> {
    let worker = CURRENT.with(|current| current.worker.get());
    // SAFETY: null, or set by `run_as` further up this very stack, which borrows it until it has
    // set null again.
    let worker = unsafe { worker.as_ref() }?;
    ptr::eq(&raw const *worker.shared, shared).then(|| f(worker))
}
