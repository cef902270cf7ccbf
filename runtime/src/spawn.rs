//! Making tasks on the current runtime.

use std::future::Future;

use crate::{
    error::{Refusal, TrySpawnError},
    sched::context,
    task::{BlockGuard, JoinHandle, spawn_closure, spawn_future},
};

/// Makes a task of a future on the current runtime. See [`Handle::spawn`](crate::Handle::spawn).
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
    context::with_current("umcg::spawn", |runtime| spawn_future(runtime, None, future))
}

/// Makes a task of a closure on the current runtime. See
/// [`Handle::spawn_blocking`](crate::Handle::spawn_blocking).
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
    context::with_current("umcg::spawn_blocking", |runtime| {
        spawn_closure(runtime, None, f)
    })
}

/// Calls `f`, which may block, and says so to the scheduler first: see
/// [`BlockGuard`].
///
/// Any code may block anywhere in a task, and needs no announcement. One is worth while where the
/// block is long and nobody else announces it: the thread of the provider that would notice it need
/// not look, and the next task begins at once.
///
/// May be called on any thread, also outside of a runtime.
///
/// # Panics
///
/// If `f` does.
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
    let _block = BlockGuard::begin();
    f()
}

/// Makes a task of a future on the current runtime, if there is a runtime and its run queues are
/// not at their limit. See [`Handle::try_spawn`](crate::Handle::try_spawn).
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
    match context::current() {
        Ok(runtime) => match runtime.refusal() {
            Some(refusal) => Err(TrySpawnError::new(refusal, future)),
            None => Ok(spawn_future(&runtime, None, future)),
        },
        Err(_) => Err(TrySpawnError::new(Refusal::NoRuntime, future)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{block_on, task::Builder, testing::runtime};

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
        assert_eq!(block_on(error.into_inner()), 7);
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
