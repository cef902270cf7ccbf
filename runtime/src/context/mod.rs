//! What a thread knows about the runtime it is in.
//!
//! One thread-local record: the runtime that was entered, the scheduler's hook if the thread is
//! one of its workers, and the task whose code runs right now. The task layer reads it, the
//! scheduler fills it: a worker thread calls [`set_worker`] once, before its first task.

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    ptr::{self, NonNull},
};

use crate::{Handle, task::Meta, wait::Parker};

/// What the task layer asks of the worker thread that it runs on. Implemented by the scheduler.
pub(crate) trait WorkerHook {
    /// The worker is about to sleep in one of the runtime's own waits: it does not count
    /// against `max_workers` until [`end_managed_blocking`](Self::end_managed_blocking) (trace A12). Waits do
    /// not nest.
    fn begin_managed_blocking(&self);

    /// The wait is over: the place to stop until the server picks this worker.
    fn end_managed_blocking(&self);

    /// Gives the slot up and sleeps until somebody unparks: the owner of `parker`, which is
    /// PARKED, is this worker. Returns with the token there, or else with the parker PARKED:
    /// then the caller sleeps as any thread does.
    fn sleep(&self, parker: &Parker);

    /// Lets others of this server run first; returns when this worker was picked again.
    fn yield_now(&self);

    /// User code, or a sleep of ours, may have blocked: the place to stop until the server
    /// picks this worker.
    fn checkpoint(&self);
}

struct Context {
    /// The runtime entered last. `None`: outside.
    handle: RefCell<Option<Handle>>,
    /// How many [`EnterGuard`]s live on this thread; they must go in reverse order.
    depth: Cell<usize>,
    /// The scheduler's record of this thread, if it is a worker.
    worker: Cell<Option<NonNull<dyn WorkerHook>>>,
    /// Inside a wait of the runtime's own: the hook was told already.
    waiting: Cell<bool>,
    /// The task whose future is being polled or dropped on this thread; null: none.
    task: Cell<*const Meta>,
}

thread_local! {
    static CONTEXT: Context = const {
        Context {
            handle: RefCell::new(None),
            depth: Cell::new(0),
            worker: Cell::new(None),
            waiting: Cell::new(false),
            task: Cell::new(ptr::null()),
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

/// Calls `f` with the runtime that this thread is in, without counting another reference to it.
/// `None` outside, and while the thread is torn down. `f` must neither enter nor leave a runtime.
pub(crate) fn with_current_handle<R>(f: impl Fn(Option<&Handle>) -> R) -> R {
    CONTEXT
        .try_with(|context| f(context.handle.borrow().as_ref()))
        .unwrap_or_else(|_| f(None))
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

/// Tells this thread that it is a worker, or with `None` that it no longer is.
///
/// # Safety
/// The hook stays valid until the next call on this thread, or the end of the thread.
pub(crate) unsafe fn set_worker(hook: Option<NonNull<dyn WorkerHook>>) {
    CONTEXT.with(|context| context.worker.set(hook));
}

/// Calls `f` with the hook, if this thread is a worker.
pub(crate) fn with_worker<R>(f: impl FnOnce(&dyn WorkerHook) -> R) -> Option<R> {
    let hook = CONTEXT
        .try_with(|context| context.worker.get())
        .ok()
        .flatten()?;
    // SAFETY: `set_worker`: valid until it is replaced, which the worker thread itself does,
    // never from inside a task.
    Some(f(unsafe { hook.as_ref() }))
}

/// Marks a wait of the runtime's own (join, scope, park, nested `block_on`, a pool's join) from here to
/// the guard's end. To be held around every blocking wait of ours; nothing but the wait itself
/// may happen under it. Off-worker, and inside another one, it does nothing.
#[must_use = "the wait is over when the guard is dropped"]
pub(crate) fn managed_blocking() -> ManagedBlocking {
    let begun = CONTEXT
        .try_with(|context| context.worker.get().is_some() && !context.waiting.replace(true))
        .unwrap_or(false);
    if begun {
        with_worker(|hook| hook.begin_managed_blocking());
    }
    ManagedBlocking {
        begun,
        not_send: PhantomData,
    }
}

/// See [`managed_blocking`].
#[derive(Debug)]
pub(crate) struct ManagedBlocking {
    /// This guard told the hook, and must tell it the end.
    begun: bool,
    not_send: PhantomData<*mut ()>,
}

impl Drop for ManagedBlocking {
    fn drop(&mut self) {
        if self.begun {
            CONTEXT.with(|context| context.waiting.set(false));
            with_worker(|hook| hook.end_managed_blocking());
        }
    }
}

/// Makes `meta` the current task of this thread until the guard goes. While the thread is torn
/// down: nothing.
pub(crate) fn enter_task(meta: &Meta) -> TaskGuard<'_> {
    TaskGuard {
        previous: CONTEXT
            .try_with(|context| context.task.replace(meta))
            .unwrap_or(ptr::null()),
        lifetime: PhantomData,
    }
}

/// See [`enter_task`].
#[derive(Debug)]
pub(crate) struct TaskGuard<'a> {
    previous: *const Meta,
    lifetime: PhantomData<&'a Meta>,
}

impl Drop for TaskGuard<'_> {
    fn drop(&mut self) {
        let _ = CONTEXT.try_with(|context| context.task.set(self.previous));
    }
}

/// Calls `f` with the task whose code runs on this thread.
pub(crate) fn with_task<R>(f: impl FnOnce(&Meta) -> R) -> Option<R> {
    let task = CONTEXT.try_with(|context| context.task.get()).ok()?;
    // SAFETY: null, or set by a `TaskGuard` that is alive further up this stack and borrows it.
    unsafe { task.as_ref() }.map(f)
}
