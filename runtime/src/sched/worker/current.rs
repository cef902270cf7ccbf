//! Which runtime the calling thread belongs to, and which of its workers it is.
//!
//! The hook that [`wait`] keeps says which worker a thread is. Only this file installs a hook, so
//! each hook is a [`WorkerThread`].

use std::{cell::Cell, ptr, ptr::NonNull, sync::Arc};

use super::run::WorkerThread;
use crate::{
    sched::{Shared, context},
    wait::{self, WorkerHook},
};

thread_local! {
    /// The runtime that made this thread, to run tasks or to cancel them; null: none. Set from the
    /// thread's first line to its last, hooks included.
    static RUNTIME: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

/// Makes this thread one of that runtime, to the thread's end.
pub(in crate::sched) fn join_runtime(shared: &Arc<Shared>) {
    RUNTIME.set(Arc::as_ptr(shared));
}

/// Whether this thread is one of that runtime. Such a thread cannot wait for the runtime's end.
pub(in crate::sched) fn is_thread_of(shared: &Shared) -> bool {
    ptr::eq(RUNTIME.get(), shared)
}

/// Runs `f`, in which this thread is that worker.
pub(super) fn run_as(worker: &WorkerThread, f: impl FnOnce()) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            // SAFETY: `None` needs nothing to stay valid.
            unsafe {
                wait::set_worker(None);
                context::set_own(None);
            }
        }
    }
    // SAFETY: `worker` outlives this call, and `Leave` takes both back before it returns.
    unsafe {
        wait::set_worker(Some(NonNull::from(worker as &dyn WorkerHook)));
        context::set_own(Some(NonNull::from(&worker.shared)));
    }
    let _leave = Leave;
    f();
}

/// Calls `f` with the worker that this thread is; `None`: it is no worker of that runtime.
pub(in crate::sched) fn find_worker<R>(
    shared: &Shared,
    f: impl FnOnce(Option<&WorkerThread>) -> R,
) -> R {
    let worker = wait::with_worker(|hook| ptr::from_ref(hook).cast::<WorkerThread>());
    // SAFETY: `run_as`, further up this very stack, installed the hook: it is a `WorkerThread`, and
    // borrowed until the hook is taken back.
    let worker = worker.map(|worker| unsafe { &*worker });
    f(worker.filter(|worker| ptr::eq(&raw const *worker.shared, shared)))
}

/// Calls `f` with the worker that this thread is, if it is one of that runtime.
pub(in crate::sched) fn with_worker<R>(
    shared: &Shared,
    f: impl FnOnce(&WorkerThread) -> R,
) -> Option<R> {
    find_worker(shared, |worker| worker.map(f))
}
