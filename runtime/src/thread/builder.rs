//! Threads with a name.

use std::{io, sync::Arc};

use super::{JoinHandle, Scope, ScopedJoinHandle, Thread};
use crate::{
    Handle,
    error::Refusal,
    sched::{Shared, context},
    task,
    task::Name,
};

/// Makes threads with a name, or on another runtime than the current one. The shape of
/// [`std::thread::Builder`].
///
/// # Examples
///
/// ```
/// use umcg::thread;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let thread = thread::Builder::new()
///     .name("reader".to_owned())
///     .spawn(|| thread::current().name().map(str::to_owned))
///     .unwrap();
/// assert_eq!(thread.join().unwrap().as_deref(), Some("reader"));
/// # });
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder makes no thread by itself"]
pub struct Builder {
    name: Name,
    /// The least stack that the thread needs, in bytes. `None`: any.
    stack_size: Option<usize>,
    /// `None`: the current runtime.
    runtime: Option<Handle>,
}

impl Builder {
    /// A builder for a thread without a name, on the current runtime.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the thread, which [`Thread::name`] returns. The worker keeps its own name,
    /// which is what the operating system shows.
    ///
    /// The name must not contain NUL bytes: as in std, [`spawn`](Self::spawn) panics otherwise.
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(Arc::new(name.into()));
        self
    }

    /// Sets the least stack that the thread needs, in bytes.
    ///
    /// A thread runs on a worker, and the runtime's
    /// [`thread_stack_size`](crate::Builder::thread_stack_size) sets the stack of all workers. If
    /// that is smaller, [`spawn`](Self::spawn) returns an error.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets the runtime that runs the thread, instead of the current one. Has no effect on
    /// [`spawn_scoped`](Self::spawn_scoped): a [`Scope`] has a runtime of its own.
    pub fn runtime(mut self, runtime: &Handle) -> Self {
        self.runtime = Some(runtime.clone());
        self
    }

    /// Runs `f` in a new thread.
    ///
    /// # Errors
    ///
    /// * `NotFound`: the calling thread is in no runtime, and none was set.
    /// * `WouldBlock`: the queues of the runtime are at their limit.
    /// * `Other`: the runtime was shut down.
    /// * `InvalidInput`: the runtime's workers have a smaller stack than was asked for.
    ///
    /// # Panics
    ///
    /// If the name contains a NUL byte, as in std.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let runtime = match &self.runtime {
            Some(runtime) => Arc::clone(runtime.shared()),
            None => context::current().map_err(|_| Refusal::NoRuntime)?,
        };
        self.check_name();
        self.check_stack(&runtime)?;
        if let Some(refusal) = runtime.refusal() {
            return Err(refusal.into());
        }
        Ok(spawn_on(&runtime, self.name, f))
    }

    /// Runs `f` in a new thread of `scope`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the runtime's workers have a smaller stack than was asked for.
    ///
    /// # Panics
    ///
    /// If the name contains a NUL byte, as in std.
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.check_name();
        self.check_stack(scope.runtime())?;
        Ok(scope.spawn_named(self.name, f))
    }

    #[track_caller]
    fn check_name(&self) {
        // The message of std.
        assert!(
            !self.name.as_ref().is_some_and(|name| name.contains('\0')),
            "thread name may not contain interior null bytes"
        );
    }

    fn check_stack(&self, runtime: &Shared) -> io::Result<()> {
        let has = runtime.thread_stack_size();
        match self.stack_size {
            Some(wanted) if wanted > has => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a stack of {wanted} bytes was asked for, but this runtime's workers have \
                     {has}: raise `thread_stack_size` in the runtime's `Builder`"
                ),
            )),
            _ => Ok(()),
        }
    }
}

pub(super) fn spawn_on<F, T>(runtime: &Arc<Shared>, name: Name, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let thread = Thread::new(name.as_ref().map(Arc::clone));
    let theirs = thread.clone();
    JoinHandle {
        task: task::spawn_closure(runtime, name, move || theirs.run(f)),
        thread,
    }
}
