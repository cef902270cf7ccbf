//! Making tasks: the methods of [`Handle`] and the functions beside them.

use std::{error::Error, fmt, future::Future};

use crate::{
    Handle, block_on, context,
    join::join_on,
    task::{Builder, JoinHandle, spawn_closure, spawn_future},
    thread::scope::{Scope, scope_on},
};

impl Handle {
    /// Makes a task of a future on this runtime. Never blocks.
    ///
    /// The future may call whatever blocks: its server runs other tasks meanwhile. What does
    /// wait are its own siblings, the other branches of a `join!` or `select!` around it.
    ///
    /// After the runtime's shutdown the task is cancelled at once.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let task = runtime.handle().spawn(async { std::fs::read("/proc/self/comm") });
    /// assert!(task.join().unwrap().is_ok());
    /// ```
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn_future(self.shared(), None, future)
    }

    /// Makes a task of a closure on this runtime, on the same workers as futures. Never
    /// blocks.
    ///
    /// The name is that of other runtimes, so that code moves over as it is. There is no
    /// second pool, and nothing is special about a closure that blocks.
    ///
    /// After the runtime's shutdown the task is cancelled at once.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let task = runtime.handle().spawn_blocking(|| 7);
    /// assert_eq!(task.join().unwrap(), 7);
    /// ```
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        spawn_closure(self.shared(), None, f)
    }

    /// [`spawn`](Self::spawn), unless the runtime's queues are at the limit that its builder
    /// set, or it was shut down.
    ///
    /// The limit is looked at before the task is queued, so that threads that spawn at the same
    /// moment may exceed it by their number.
    ///
    /// # Errors
    ///
    /// [`TrySpawnError`], with the future in it.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Builder::new().queue_limit(1000).build().unwrap();
    /// match runtime.handle().try_spawn(async { 7 }) {
    ///     Ok(task) => assert_eq!(task.join().unwrap(), 7),
    ///     Err(error) if error.is_full() => println!("later: {error}"),
    ///     Err(error) => panic!("{error}"),
    /// }
    /// ```
    pub fn try_spawn<F>(&self, future: F) -> Result<JoinHandle<F::Output>, TrySpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match self.shared().refusal() {
            Some(refusal) => Err(TrySpawnError::new(refusal, future)),
            None => Ok(self.spawn(future)),
        }
    }

    /// [`spawn_blocking`](Self::spawn_blocking), unless the runtime's queues are at the limit
    /// that its builder set, or it was shut down. As [`try_spawn`](Self::try_spawn).
    ///
    /// # Errors
    ///
    /// [`TrySpawnError`], with the closure in it.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let handle = runtime.handle().clone();
    /// drop(runtime);
    /// let error = handle.try_spawn_blocking(|| 7).unwrap_err();
    /// assert!(error.is_shut_down());
    /// // Nothing is lost: the closure comes back.
    /// assert_eq!(error.into_inner()(), 7);
    /// ```
    pub fn try_spawn_blocking<F, R>(&self, f: F) -> Result<JoinHandle<R>, TrySpawnError<F>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        match self.shared().refusal() {
            Some(refusal) => Err(TrySpawnError::new(refusal, f)),
            None => Ok(self.spawn_blocking(f)),
        }
    }

    /// Runs `future` on the calling thread, in the context of this runtime, and blocks until
    /// it is ready.
    ///
    /// May be called anywhere, also on a worker inside a task, nested as deep as the stack
    /// goes. A wait on a worker lets its server run other tasks, and does not count against
    /// `max_workers`.
    ///
    /// # Panics
    ///
    /// With the panic of `future`.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.enter();
        block_on::block_on(future)
    }

    /// [`umcg::scope`](crate::scope()) on this runtime.
    ///
    /// # Panics
    ///
    /// As there.
    #[track_caller]
    pub fn scope<'env, F, T>(&self, f: F) -> T
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
    {
        scope_on(self.clone(), f)
    }

    /// [`umcg::join`](crate::join()) on this runtime.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn join<A, B, RA, RB>(&self, a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        join_on(self, a, b)
    }
}

/// Makes a task of a future on the current runtime. See [`Handle::spawn`].
///
/// # Panics
///
/// Outside of a runtime. [`task::Builder`](crate::task::Builder) returns an error instead.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = umcg::spawn(async { 6 * 7 });
/// assert_eq!(task.await.unwrap(), 42);
/// # });
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    context::with_handle("umcg::spawn", |runtime| runtime.spawn(future))
}

/// Makes a task of a closure on the current runtime. See [`Handle::spawn_blocking`].
///
/// # Panics
///
/// Outside of a runtime. [`task::Builder`](crate::task::Builder) returns an error instead.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = umcg::spawn_blocking(|| std::fs::read("/proc/self/comm"));
/// assert!(task.await.unwrap().is_ok());
/// # });
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    context::with_handle("umcg::spawn_blocking", |runtime| runtime.spawn_blocking(f))
}

/// Calls `f`. It is here so that code written for other runtimes moves over as it is: any code
/// may block anywhere in a task, and nothing needs to be said beforehand.
///
/// May be called anywhere, outside of a runtime as well.
///
/// # Examples
///
/// ```
/// assert_eq!(umcg::block_in_place(|| 7), 7);
/// ```
pub fn block_in_place<F, R>(f: F) -> R
where
    F: FnOnce() -> R,
{
    f()
}

/// Makes a task of a future on the current runtime, if there is one with room. See
/// [`Handle::try_spawn`].
///
/// # Errors
///
/// [`TrySpawnError`], with the future in it.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = umcg::try_spawn(async { 7 }).unwrap();
/// assert_eq!(task.await.unwrap(), 7);
/// # });
/// // On a thread that is in no runtime:
/// assert!(umcg::try_spawn(async { 7 }).is_err());
/// ```
pub fn try_spawn<F>(future: F) -> Result<JoinHandle<F::Output>, TrySpawnError<F>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Builder::new().spawn(future)
}

/// A task was not made. It has the future or the closure.
pub struct TrySpawnError<F> {
    refusal: Refusal,
    rejected: F,
}

/// Why a runtime takes no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queues are at their limit.
    Full,
    /// It was shut down.
    ShutDown,
    /// There is none here.
    NoRuntime,
}

impl<F> TrySpawnError<F> {
    pub(crate) fn new(refusal: Refusal, rejected: F) -> Self {
        Self { refusal, rejected }
    }

    /// Whether the runtime's queues are at their limit: worth another try, later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.refusal == Refusal::Full
    }

    /// Whether the runtime was shut down.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.refusal == Refusal::ShutDown
    }

    /// The future or the closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.rejected
    }
}

impl<F> fmt::Display for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.refusal {
            Refusal::Full => "the runtime's queues are full: try again when some tasks are done",
            Refusal::ShutDown => "the runtime was shut down",
            Refusal::NoRuntime => {
                "no runtime on this thread: call it from a task, enter one with \
                 `Handle::enter`, or name one with `task::Builder::runtime`"
            }
        })
    }
}

impl<F> fmt::Debug for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrySpawnError").field(&self.refusal).finish()
    }
}

impl<F> Error for TrySpawnError<F> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::runtime;

    #[test]
    fn tasks_of_both_kinds_run_and_spawn() {
        let runtime = runtime();
        let sum = runtime.block_on(async {
            let inner = spawn(async { spawn_blocking(|| 3).await.unwrap() });
            inner.await.unwrap()
                + spawn_blocking(|| spawn(async { 4 }).join().unwrap())
                    .await
                    .unwrap()
        });
        assert_eq!(sum, 7);
    }

    #[test]
    fn block_on_nests_on_a_worker() {
        let runtime = runtime();
        let nested = runtime.clone();
        let task = runtime
            .spawn(async move { nested.block_on(async { spawn(async { 7 }).await.unwrap() }) });
        assert_eq!(task.join().unwrap(), 7);
    }

    #[test]
    fn try_spawn_after_shutdown_gives_the_future_back() {
        let runtime = runtime();
        runtime.shared().stop();
        let error = runtime.try_spawn_blocking(|| 7).unwrap_err();
        assert!(error.is_shut_down() && !error.is_full());
        assert_eq!(error.into_inner()(), 7);
    }

    #[test]
    fn try_spawn_outside_of_a_runtime_is_an_error() {
        let error = try_spawn(async { 7 }).unwrap_err();
        assert!(error.to_string().contains("Handle::enter"));
        assert_eq!(block_on::block_on(error.into_inner()), 7);
    }

    #[test]
    fn named_tasks_know_their_name() {
        let runtime = runtime();
        let name = Builder::new()
            .name("some task")
            .runtime(&runtime)
            .spawn(async { crate::task::name() })
            .unwrap();
        assert_eq!(name.join().unwrap().as_deref(), Some("some task"));
    }
}
