//! Tasks: futures and closures that a runtime runs.
//!
//! [`spawn`](crate::spawn()) and [`spawn_blocking`](crate::spawn_blocking()) make a task; a
//! [`Builder`] makes one with a name. A [`JoinHandle`] waits for it, an [`AbortHandle`] aborts it,
//! and a [`JoinSet`] does both for many. A task costs one allocation. Its panic is contained: it
//! becomes the [`JoinError`] that a join returns.
//!
//! # How a task ends
//!
//! A task that is queued or suspended when it is aborted, or when its runtime shuts down, is
//! cancelled: it is dropped without another poll, on a thread of the runtime. A future that is
//! running is cancelled at its next suspension point. A closure that has begun runs to its end. A
//! join of a cancelled task says so: [`JoinError::is_cancelled`].
//!
//! The destructors of a task's future and of its output run inside the context of the task:
//! [`try_id`] gives its id. A future whose poll panicked is dropped while the thread unwinds.
//!
//! # Task-locals and thread-locals
//!
//! `tokio::task_local!` works as it is: it needs no tokio runtime, and sets its value around each
//! poll of the future that `scope` wraps. A thread-local is that of the worker. Several tasks use
//! the same worker, one after the other, and a future may be on another worker after each `.await`.
//!
//! # What is not offered
//!
//! `LocalSet` and `spawn_local`: every task may move to another worker.

mod abort;
pub mod coop;
mod current;
mod error;
mod future;
mod header;
mod id;
mod join_handle;
mod owned;
mod spawn;
mod yield_now;

// A builder, a join set and the unit tests need a runtime. There is none in a model.
cfg_if::cfg_if! {
    if #[cfg(loom)] {
        #[cfg(test)]
        mod model;
    } else {
        mod block;
        mod builder;
        mod join_set;
        #[cfg(test)]
        mod tests;

        pub use self::{block::BlockGuard, builder::Builder, join_set::JoinSet};
    }
}

use std::sync::Arc;

pub use self::{
    abort::AbortHandle,
    coop::{Unconstrained, consume_budget, unconstrained},
    error::JoinError,
    id::Id,
    join_handle::JoinHandle,
    yield_now::{YieldNow, yield_now},
};
pub(crate) use self::{
    current::{depth, with_task},
    header::{Meta, Name, Origin, Runnable, Schedule},
    owned::OwnedTasks,
    spawn::{spawn_closure, spawn_closure_unchecked, spawn_future},
};

/// The id of the task that runs on this thread.
///
/// `None` outside of tasks. Inside a destructor of a task's future it is still that task.
#[must_use]
pub fn try_id() -> Option<Id> {
    with_task(Meta::id)
}

/// The id of the task that runs on this thread.
///
/// # Panics
///
/// Outside of tasks; [`try_id`] says `None` there.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = umcg::spawn(async { umcg::task::id() });
/// let id = task.id();
/// assert_eq!(task.await.unwrap(), id);
/// # });
/// ```
#[must_use]
#[track_caller]
pub fn id() -> Id {
    try_id().expect("`umcg::task::id()` was called outside of a task")
}

/// The name of the task that runs on this thread. `None`: it has none, or there is no task.
#[must_use]
pub fn name() -> Option<Arc<str>> {
    with_task(Meta::name).flatten()
}
