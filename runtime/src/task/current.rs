//! The task whose code runs on this thread.

use std::{cell::Cell, marker::PhantomData, ptr};

use super::header::Meta;
use crate::sync::thread_local_cell;

thread_local_cell! {
    /// The task whose future is polled or dropped on this thread, or whose output is dropped; null:
    /// none. Set by the innermost [`TaskGuard`], which borrows the task.
    static TASK: Cell<*const Meta> = Cell::new(ptr::null())
}

thread_local_cell! {
    /// How many [`TaskGuard`]s there are on this thread. Above 1 while a task is dropped inside of
    /// another one's code.
    static DEPTH: Cell<usize> = Cell::new(0)
}

/// Makes `meta` the current task of this thread until the guard is dropped.
#[inline]
pub(super) fn enter_task(meta: &Meta) -> TaskGuard<'_> {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    TaskGuard {
        outer: TASK.with(|task| task.replace(meta)),
        lifetime: PhantomData,
    }
}

/// See [`enter_task`].
#[derive(Debug)]
pub(super) struct TaskGuard<'a> {
    /// The task that was current before; null: none.
    outer: *const Meta,
    lifetime: PhantomData<&'a Meta>,
}

impl Drop for TaskGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        TASK.with(|task| task.set(self.outer));
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Calls `f` with the task whose code runs on this thread.
pub(crate) fn with_task<R>(f: impl FnOnce(&Meta) -> R) -> Option<R> {
    let task = TASK.with(Cell::get);
    // SAFETY: null, or set by a `TaskGuard` that is alive further up this stack and borrows it.
    unsafe { task.as_ref() }.map(f)
}

/// How many tasks this code is inside of.
pub(crate) fn depth() -> usize {
    DEPTH.with(Cell::get)
}
