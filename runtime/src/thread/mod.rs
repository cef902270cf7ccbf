//! Threads in the shape of [`std::thread`], on the runtime's workers.
//!
//! A program moves over by `use umcg::thread` in place of `use std::thread`. A thread made here
//! is a closure task of the current runtime, so making one costs a queue entry and not a kernel
//! thread, and at most one of a server's threads uses a CPU at a time. Everything that blocks a
//! std thread may be used in it.
//!
//! What differs from std:
//!
//! * A thread starts when a server picks it. With `max_workers` threads blocked, the next ones
//!   queue; threads that wait for one another in a ring larger than that need a larger
//!   `max_workers`. Waits in `join`, [`park`] and [`scope`] do not count.
//! * Workers are used again, so thread-locals outlive the thread that set them, and
//!   [`std::thread::current`] names the worker. [`current`] names the thread.
//! * When the runtime shuts down, threads that have not begun are cancelled, and joining them
//!   is an error whose payload is a [`JoinError`].
//! * [`std::thread::park`] and [`park`] have a token each; use one of them.

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
/// The thread runs on when its handle is dropped. Never blocks.
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

/// Owns the right to join a thread. Dropped: the thread runs on.
pub struct JoinHandle<T> {
    task: task::JoinHandle<T>,
    thread: Thread,
}

impl<T> JoinHandle<T> {
    /// Waits until the thread is done, blocking, and gives its result.
    ///
    /// # Errors
    ///
    /// The payload of the thread's panic; or a [`JoinError`], if the runtime shut down before
    /// the thread began.
    pub fn join(self) -> Result<T> {
        self.task.join().map_err(into_payload)
    }

    /// The thread itself, to [`unpark`](Thread::unpark) it or for its name.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Whether the thread is done, so that [`join`](Self::join) would not block for long.
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

/// The error of a task as the payload that std's `join` would give.
pub(crate) fn into_payload(error: JoinError) -> Box<dyn std::any::Any + Send> {
    error
        .try_into_panic()
        .unwrap_or_else(|cancelled| Box::new(cancelled))
}

#[cfg(test)]
mod tests;
