//! Threads in the shape of [`std::thread`], on the runtime's workers.
//!
//! A program moves over by `use umcg::thread` in place of `use std::thread`. A thread that is made
//! here is a closure task of the current runtime. Making one costs a queue entry instead of a
//! kernel thread, and at most one of a server's threads uses a CPU at a time. The code in it may
//! block like that of any other thread.
//!
//! What differs from std:
//!
//! * A thread begins when a worker takes it from a queue. If `max_workers` threads are blocked,
//!   the next ones stay queued. Threads that wait for each other in a cycle of more than
//!   `max_workers` therefore need a larger limit. Waits in `join`, [`park`] and [`scope`] do not
//!   count against it.
//! * Workers are reused. A thread-local variable outlives the thread that set it, and is seen by
//!   later threads and tasks on the same worker. [`std::thread::current`] is the worker, whose name
//!   is the runtime's; [`current`] is the thread.
//! * When the runtime shuts down, threads that have not begun are cancelled: their closure is
//!   dropped without being called, and joining them returns an error whose payload is a
//!   [`JoinError`]. A thread that has begun runs to its end.
//! * [`std::thread::park`] and [`park`] have one token each. A program should use only one of them.

mod builder;
mod current;
mod park;
pub(crate) mod scope;
mod sleep;

use std::fmt;

pub use std::thread::{AccessError, LocalKey, Result, available_parallelism, panicking};

pub use self::scope::{Scope, ScopedJoinHandle, scope};
pub use self::{
    builder::Builder,
    current::{Thread, ThreadId, current},
    park::{park, park_timeout},
    sleep::{sleep, yield_now},
};
use crate::{JoinError, sched::context, task};

/// Runs `f` in a new thread of the current runtime.
///
/// Never blocks. If the handle is dropped, the thread runs on detached.
///
/// # Panics
///
/// Outside of a runtime; [`Builder::spawn`] returns an error instead.
///
/// # Examples
///
/// ```
/// use umcg::thread;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let thread = thread::spawn(|| {
///     std::fs::read_to_string("/proc/self/comm").map(|name| name.len())
/// });
/// assert!(thread.join().unwrap().unwrap() > 0);
/// # });
/// ```
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    context::with_current("umcg::thread::spawn", |runtime| {
        builder::spawn_on(runtime, None, f)
    })
}

/// Owns the right to join a thread. If it is dropped, the thread runs on detached.
pub struct JoinHandle<T> {
    task: task::JoinHandle<T>,
    thread: Thread,
}

impl<T> JoinHandle<T> {
    /// Blocks until the thread has ended, and returns its result.
    ///
    /// # Errors
    ///
    /// The payload of the thread's panic; or a [`JoinError`], if the runtime shut down before
    /// the thread began.
    pub fn join(self) -> Result<T> {
        self.task.join().map_err(into_payload)
    }

    /// The thread itself, which has its name and can be [unparked](Thread::unpark).
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Whether the thread has ended, so that [`join`](Self::join) returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

/// The error of a task, as the payload that std's `join` would return.
pub(crate) fn into_payload(error: JoinError) -> Box<dyn std::any::Any + Send> {
    error
        .try_into_panic()
        .unwrap_or_else(|cancelled| Box::new(cancelled))
}

#[cfg(test)]
mod tests;
