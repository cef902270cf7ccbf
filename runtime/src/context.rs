//! The runtime that a thread is in.

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
};

use crate::Handle;

struct Context {
    /// The runtime entered last. `None`: outside.
    handle: RefCell<Option<Handle>>,
    /// How many [`EnterGuard`]s live on this thread; they must go in reverse order.
    depth: Cell<usize>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            handle: RefCell::new(None),
            depth: Cell::new(0),
        }
    };
}

/// The runtime that this thread is in. `None` outside, and while the thread is torn down.
pub(crate) fn current_handle() -> Option<Handle> {
    CONTEXT
        .try_with(|context| context.handle.borrow().clone())
        .ok()
        .flatten()
}

/// The runtime that this thread is in, for a call that cannot do without.
///
/// # Panics
/// Outside of a runtime, naming the call.
#[track_caller]
pub(crate) fn expect_handle(call: &str) -> Handle {
    // Not in a closure, which would not know the caller.
    match current_handle() {
        Some(handle) => handle,
        None => panic!(
            "`{call}` was called outside of a runtime: call it from a task or from \
             `Runtime::block_on`, enter a runtime on this thread with `Handle::enter`, or \
             start the program with `#[umcg::main]`"
        ),
    }
}

/// Calls `f` with the runtime that this thread is in, for a call that cannot do without. On a
/// worker of that runtime without touching the count of references, which all CPUs share.
///
/// # Panics
/// Outside of a runtime, naming the call.
#[track_caller]
pub(crate) fn with_handle<R>(call: &str, f: impl FnOnce(&Handle) -> R) -> R {
    let current = CONTEXT
        .try_with(|context| context.handle.borrow().as_ref().map(Handle::address))
        .ok()
        .flatten();
    let mut f = Some(f);
    let mut run = |handle: &Handle| f.take().expect("called once")(handle);
    match current.and_then(|current| crate::sched::with_own_handle(current, &mut run)) {
        Some(done) => done,
        None => run(&expect_handle(call)),
    }
}

/// Makes `handle` the current runtime of this thread until the guard is dropped. Does nothing while
/// the thread's locals are being destroyed: a runtime may be dropped by one of their destructors.
pub(crate) fn enter(handle: &Handle) -> EnterGuard<'_> {
    let (previous, depth) = CONTEXT
        .try_with(|context| {
            let previous = context.handle.replace(Some(handle.clone()));
            let depth = context.depth.get() + 1;
            context.depth.set(depth);
            (previous, depth)
        })
        .unwrap_or_default();
    EnterGuard {
        leave: LeaveOnDrop {
            previous,
            depth,
            not_send: PhantomData,
        },
        lifetime: PhantomData,
    }
}

/// Leaves the runtime that [`Handle::enter`] entered, when dropped.
#[must_use = "the runtime is left when the guard is dropped"]
pub struct EnterGuard<'a> {
    /// Without the lifetime: a `Drop` impl of `EnterGuard` itself would count as a use of what
    /// `'a` borrows, and a runtime could not be shut down by value before its guards are dropped.
    leave: LeaveOnDrop,
    lifetime: PhantomData<&'a Handle>,
}

/// The part of an [`EnterGuard`] that does the work.
struct LeaveOnDrop {
    /// What the thread was in before.
    previous: Option<Handle>,
    /// This guard's place in the stack of guards, from 1.
    depth: usize,
    not_send: PhantomData<*mut ()>,
}

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        // While the thread is torn down there is nothing left to restore.
        let _ = CONTEXT.try_with(|context| {
            let depth = context.depth.get();
            if depth != self.depth {
                if std::thread::panicking() {
                    return;
                }
                panic!(
                    "`EnterGuard`s must be dropped in the reverse order of their making: \
                     guard {} of {depth} was dropped first",
                    self.depth
                );
            }
            context.depth.set(depth - 1);
            drop(context.handle.replace(self.previous.take()));
        });
    }
}

impl fmt::Debug for EnterGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnterGuard")
            .field("depth", &self.leave.depth)
            .finish_non_exhaustive()
    }
}
