//! The model's twin of `context`: no runtime, no worker; waits and tasks are nobody's.

use crate::task::Meta;

/// Nothing to tell anybody.
#[derive(Debug)]
pub(crate) struct ManagedBlocking;

pub(crate) fn managed_blocking() -> ManagedBlocking {
    ManagedBlocking
}

/// No thread knows its task.
#[derive(Debug)]
pub(crate) struct TaskGuard;

pub(crate) fn enter_task(_meta: &Meta) -> TaskGuard {
    TaskGuard
}

pub(crate) fn with_task<R>(_f: impl FnOnce(&Meta) -> R) -> Option<R> {
    None
}
