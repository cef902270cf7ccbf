//! The runtime that a thread is in.

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    ptr::NonNull,
    sync::Arc,
};

use super::Shared;
use crate::{driver::DriverRef, error::TryCurrentError};

struct Context {
    /// The runtime that was entered last. `None`: outside.
    entered: RefCell<Option<Arc<Shared>>>,
    /// How many [`Entered`]s there are on this thread.
    depth: Cell<usize>,
    /// The reference of the worker that this thread is to its runtime. See [`set_own`].
    own: Cell<Option<NonNull<Arc<Shared>>>>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            entered: RefCell::new(None),
            depth: Cell::new(0),
            own: Cell::new(None),
        }
    };
}

/// The runtime that this thread is in.
///
/// # Errors
/// The thread is in none, or is ending.
pub(crate) fn current() -> Result<Arc<Shared>, TryCurrentError> {
    CONTEXT
        .try_with(|context| context.entered.borrow().clone())
        .map_err(|_| TryCurrentError::thread_local_destroyed())?
        .ok_or_else(TryCurrentError::missing_context)
}

/// The driver of the runtime that this thread is in. `None`: the thread is in none, or is ending.
/// Does not count another reference to the runtime.
pub(crate) fn current_driver() -> Option<DriverRef> {
    CONTEXT
        .try_with(|context| {
            let entered = context.entered.borrow();
            entered.as_ref().map(|shared| shared.driver().reference())
        })
        .ok()
        .flatten()
}

/// The runtime that this thread is in, for a call that needs one.
///
/// # Panics
/// Outside of a runtime. The message has the name of the call and says what to do; its location is
/// the caller's.
#[track_caller]
pub(crate) fn expect_current(call: &str) -> Arc<Shared> {
    // Not in a closure, which would not know the caller.
    match current() {
        Ok(shared) => shared,
        Err(_) => panic!(
            "`{call}` was called outside of a runtime: call it from a task or from \
             `Runtime::block_on`, enter a runtime on this thread with `Handle::enter`, or \
             start the program with `#[umcg::main]`"
        ),
    }
}

/// Calls `f` with the runtime that this thread is in, for a call that needs one. On a worker of
/// that runtime this does not touch the count of references, which all CPUs share.
///
/// # Panics
/// As [`expect_current`].
#[track_caller]
pub(crate) fn with_current<R>(call: &str, f: impl FnOnce(&Arc<Shared>) -> R) -> R {
    let own = CONTEXT.try_with(|context| {
        let own = context.own.get()?;
        // SAFETY: `set_own`.
        let is_entered = |entered: &Arc<Shared>| Arc::ptr_eq(entered, unsafe { own.as_ref() });
        let entered = context.entered.borrow();
        entered.as_ref().is_some_and(is_entered).then_some(own)
    });
    match own {
        // SAFETY: `set_own`. The worker replaces it between two tasks only, so it outlives `f`,
        // which application code may run in: that may enter and leave runtimes, too.
        Ok(Some(own)) => f(unsafe { own.as_ref() }),
        _ => f(&expect_current(call)),
    }
}

/// Tells this thread which reference [`with_current`] may use without counting one more.
///
/// # Safety
/// The reference stays valid until the next call on this thread, or the end of the thread. The next
/// call does not come from inside a task.
pub(super) unsafe fn set_own(own: Option<NonNull<Arc<Shared>>>) {
    CONTEXT.with(|context| context.own.set(own));
}

/// Makes `shared` the current runtime of this thread until the guard is dropped. Does nothing while
/// the locals of the thread are being destroyed: a runtime may be dropped by one of their
/// destructors.
pub(crate) fn enter(shared: &Arc<Shared>) -> Entered {
    let (previous, depth) = CONTEXT
        .try_with(|context| {
            let previous = context.entered.replace(Some(Arc::clone(shared)));
            let depth = context.depth.get() + 1;
            context.depth.set(depth);
            (previous, depth)
        })
        .unwrap_or_default();
    Entered {
        previous,
        depth,
        not_send: PhantomData,
    }
}

/// Leaves the runtime that [`enter`] entered, when dropped.
#[must_use = "the runtime is left when the guard is dropped"]
pub(crate) struct Entered {
    /// The runtime that the thread was in before.
    previous: Option<Arc<Shared>>,
    /// The place of this guard in the stack of guards, from 1.
    depth: usize,
    /// It is dropped on the same thread.
    not_send: PhantomData<*mut ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // While the thread is torn down there is nothing left to restore.
        let left = CONTEXT.try_with(|context| {
            let depth = context.depth.get();
            if depth != self.depth {
                if std::thread::panicking() {
                    return None;
                }
                panic!(
                    "`EnterGuard`s must be dropped in the reverse order of their making: \
                     guard {} of {depth} was dropped first",
                    self.depth
                );
            }
            context.depth.set(depth - 1);
            context.entered.replace(self.previous.take())
        });
        // Outside of the borrow: it may be the last reference to the runtime.
        drop(left);
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered")
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}
