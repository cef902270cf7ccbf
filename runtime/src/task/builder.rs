//! Tasks with a name.

use std::{future::Future, sync::Arc};

use super::{JoinHandle, Name, spawn_closure, spawn_future};
use crate::{Handle, TrySpawnError, context, spawn::Refusal};

/// Makes tasks with a name, or on another runtime than the current one, and returns an error
/// where [`umcg::spawn`](crate::spawn()) panics or queues without limit.
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

    /// The task's name, for [`task::name`](crate::task::name). A thread of
    /// [`thread::Builder`](crate::thread::Builder) has it, too; events and metrics do not name
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
    /// [`TrySpawnError`], with the future in it: outside of a runtime with none named, or as
    /// [`Handle::try_spawn`].
    pub fn spawn<F>(self, future: F) -> Result<JoinHandle<F::Output>, TrySpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.find() {
            Ok(runtime) => Ok(spawn_future(runtime.shared(), self.name, future)),
            Err(refusal) => Err(TrySpawnError::new(refusal, future)),
        }
    }

    /// Makes a task of a closure. Never blocks.
    ///
    /// # Errors
    ///
    /// [`TrySpawnError`], with the closure in it: outside of a runtime with none named, or as
    /// [`Handle::try_spawn`].
    pub fn spawn_blocking<F, R>(self, f: F) -> Result<JoinHandle<R>, TrySpawnError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        match self.find() {
            Ok(runtime) => Ok(spawn_closure(runtime.shared(), self.name, f)),
            Err(refusal) => Err(TrySpawnError::new(refusal, f)),
        }
    }

    fn find(&self) -> Result<Handle, Refusal> {
        let runtime = match &self.runtime {
            Some(runtime) => runtime.clone(),
            None => context::current_handle().ok_or(Refusal::NoRuntime)?,
        };
        match runtime.shared().refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(runtime),
        }
    }
}
