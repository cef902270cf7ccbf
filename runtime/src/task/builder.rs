//! Tasks with a name.

use std::{future::Future, io, sync::Arc};

use super::{
    header::Name,
    join_handle::JoinHandle,
    spawn::{spawn_closure, spawn_future},
};
use crate::{
    Handle,
    error::Refusal,
    sched::{Shared, context},
};

/// Makes tasks with a name, or on another runtime than the current one. Returns an error where
/// [`umcg::spawn`](crate::spawn()) panics or queues without limit.
///
/// The errors are those of [`thread::Builder`](crate::thread::Builder), too. They do not have the
/// future or the closure; those of [`Handle::try_spawn`] do.
///
/// # Examples
///
/// ```
/// use umcg::task;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = task::Builder::new()
///     .name("answer")
///     .spawn(async { task::name() })
///     .unwrap();
/// assert_eq!(task.await.unwrap().as_deref(), Some("answer"));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder makes no task by itself"]
pub struct Builder {
    name: Name,
    /// `None`: the current one.
    runtime: Option<Handle>,
}

impl Builder {
    /// No name, on the current runtime.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the task, for [`task::name`](crate::task::name). A thread of
    /// [`thread::Builder`](crate::thread::Builder) has it, too. Events and metrics do not name
    /// tasks.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(Arc::new(name.into()));
        self
    }

    /// The runtime to run the task, instead of the current one.
    pub fn runtime(mut self, runtime: &Handle) -> Self {
        self.runtime = Some(runtime.clone());
        self
    }

    /// Makes a task of a future. Never blocks.
    ///
    /// # Errors
    ///
    /// * `NotFound`: outside of a runtime, and none was named.
    /// * `WouldBlock`: the queues of the runtime are at their limit.
    /// * `Other`: the runtime was shut down.
    pub fn spawn<F>(self, future: F) -> io::Result<JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let runtime = self.find()?;
        Ok(spawn_future(&runtime, self.name, future))
    }

    /// Makes a task of a closure. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn spawn_blocking<F, R>(self, f: F) -> io::Result<JoinHandle<R>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let runtime = self.find()?;
        Ok(spawn_closure(&runtime, self.name, f))
    }

    /// The runtime, if it takes a task now.
    fn find(&self) -> Result<Arc<Shared>, Refusal> {
        let runtime = match &self.runtime {
            Some(runtime) => Arc::clone(runtime.shared()),
            None => context::current().map_err(|_| Refusal::NoRuntime)?,
        };
        match runtime.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(runtime),
        }
    }
}
