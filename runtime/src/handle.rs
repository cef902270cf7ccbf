//! A reference to a runtime.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use crate::{
    block_on::block_on,
    error::{TryCurrentError, TrySpawnError},
    join::join_on,
    metrics::RuntimeMetrics,
    sched::{
        Shared,
        context::{self, Entered},
    },
    task::{JoinHandle, spawn_closure, spawn_future},
    thread::scope::{Scope, scope_on},
};

/// A reference to a runtime. Cheap to clone, and for any thread.
///
/// It does not keep the runtime running: once the [`Runtime`](crate::Runtime) was dropped or shut
/// down, tasks that are spawned by a handle are cancelled at once.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The runtime that the calling thread is in: as one of its workers, inside of
    /// [`block_on`](Self::block_on), or since [`enter`](Self::enter).
    ///
    /// # Panics
    ///
    /// Outside of a runtime; [`try_current`](Self::try_current) returns an error there.
    ///
    /// # Examples
    ///
    /// ```
    /// # umcg::Runtime::new().unwrap().block_on(async {
    /// let handle = umcg::Handle::current();
    /// std::thread::spawn(move || handle.spawn(async { 7 }).join().unwrap());
    /// # });
    /// ```
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        Self::new(context::expect_current("Handle::current"))
    }

    /// The runtime that the calling thread is in.
    ///
    /// # Errors
    ///
    /// [`TryCurrentError`]: the thread is in no runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use umcg::Handle;
    ///
    /// assert!(Handle::try_current().unwrap_err().is_missing_context());
    /// umcg::Runtime::new().unwrap().block_on(async {
    ///     assert!(Handle::try_current().is_ok());
    /// });
    /// ```
    pub fn try_current() -> Result<Self, TryCurrentError> {
        context::current().map(Self::new)
    }

    /// Makes this the current runtime of the thread until the guard is dropped, so that
    /// [`umcg::spawn`](crate::spawn()) and other calls that need a runtime work here. No task runs
    /// on this thread because of it.
    ///
    /// Guards nest, and must be dropped in the reverse order of their making.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let _entered = runtime.handle().enter();
    /// assert_eq!(umcg::spawn(async { 7 }).join().unwrap(), 7);
    /// ```
    pub fn enter(&self) -> EnterGuard<'_> {
        EnterGuard {
            entered: context::enter(&self.shared),
            lifetime: PhantomData,
        }
    }

    /// Makes a task of a future on this runtime. Never blocks.
    ///
    /// The future may call anything that blocks: its server runs other tasks meanwhile. What does
    /// wait is what is polled with it: the other branches of a `join!` or `select!` around it.
    ///
    /// After the shutdown of the runtime the task is cancelled at once.
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
        spawn_future(&self.shared, None, future)
    }

    /// Makes a task of a closure on this runtime. It runs on the same workers as futures do. Never
    /// blocks.
    ///
    /// The name is the one that other runtimes use, so that code can be ported without a change.
    /// There is no second pool, and nothing is special about a closure that blocks.
    ///
    /// After the shutdown of the runtime the task is cancelled at once.
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
        spawn_closure(&self.shared, None, f)
    }

    /// [`spawn`](Self::spawn), unless the run queues of the runtime are at the limit that
    /// [`Builder::queue_limit`](crate::Builder::queue_limit) set, or the runtime was shut down.
    ///
    /// The limit is checked before the task is queued. Threads that spawn at the same moment may
    /// exceed it by their number.
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
        match self.shared.refusal() {
            Some(refusal) => Err(TrySpawnError::new(refusal, future)),
            None => Ok(self.spawn(future)),
        }
    }

    /// [`spawn_blocking`](Self::spawn_blocking), under the conditions of
    /// [`try_spawn`](Self::try_spawn).
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
        match self.shared.refusal() {
            Some(refusal) => Err(TrySpawnError::new(refusal, f)),
            None => Ok(self.spawn_blocking(f)),
        }
    }

    /// Runs `future` on the calling thread, in the context of this runtime, and blocks until
    /// it is ready.
    ///
    /// May be called on any thread, also on a worker inside a task, nested as deep as the stack
    /// permits. While a worker waits here its server runs other tasks, and the worker does not
    /// count against `max_workers`.
    ///
    /// # Panics
    ///
    /// With the panic of `future`.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.enter();
        block_on(future)
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
        scope_on(Arc::clone(&self.shared), f)
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
        join_on(&self.shared, a, b)
    }

    /// The numbers of the runtime as they are now. Takes one pass over the records of all workers.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let metrics = runtime.handle().metrics();
    /// println!("{} because {}", metrics.provider_kind(), metrics.provider_why());
    /// assert!(metrics.workers_peak() >= 1);
    /// ```
    #[must_use]
    pub fn metrics(&self) -> RuntimeMetrics {
        self.shared.metrics()
    }
}

// A panic in a call of a handle leaves the runtime as it was: panics of application code are
// contained, and a panic of the scheduler ends the process.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("runtime", &Arc::as_ptr(&self.shared))
            .finish()
    }
}

/// Leaves the runtime that [`Handle::enter`] entered, when it is dropped.
#[must_use = "the runtime is left when the guard is dropped"]
pub struct EnterGuard<'a> {
    /// The guard that does the work, without the lifetime: a `Drop` impl of `EnterGuard` itself
    /// would count as a use of what `'a` borrows, and a runtime could not be shut down by value
    /// before its guards are dropped.
    entered: Entered,
    lifetime: PhantomData<&'a Handle>,
}

impl fmt::Debug for EnterGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EnterGuard").field(&self.entered).finish()
    }
}
