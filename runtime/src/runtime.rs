//! A runtime and its end.

use std::{
    fmt,
    future::Future,
    panic::{RefUnwindSafe, UnwindSafe},
    time::{Duration, Instant},
};

use crate::{EnterGuard, Handle, JoinHandle, RuntimeMetrics, sched::Threads};

/// Servers, workers, and the tasks on them.
///
/// # Shutting down
///
/// There are three ways to shut a runtime down. All of them begin alike: the runtime accepts no
/// more tasks, and the tasks that are queued or suspended are cancelled. Their futures and closures
/// are dropped on threads of the runtime, inside its context. Tasks that are running continue: a
/// future until its next suspension point, where it is dropped, a closure until its end. The ways
/// differ in what happens then.
///
/// | | waits for running tasks and for destructors | a task or a destructor that blocks forever |
/// |---|---|---|
/// | dropping the `Runtime` | until they are done | hangs the drop |
/// | [`shutdown_timeout`](Self::shutdown_timeout) | until the timeout | is left behind |
/// | [`shutdown_background`](Self::shutdown_background) | not at all | is left behind |
///
/// A task that is left behind runs on in an ordinary thread, which ends with it. No thread is
/// ever killed. A runtime that is dropped on one of its own threads does not wait for itself.
///
/// # What a destructor may do
///
/// The destructor of a cancelled task, of a job of a [`ThreadPool`](crate::ThreadPool), or of a
/// value that one of them captured, may use the runtime's context, spawn (the new task is cancelled
/// at once), sleep, and join a task that has ended or been dropped already.
///
/// It must not wait for another task of the same runtime that has not ended: that task may be
/// queued behind it, to be dropped after it on the same thread. Then the destructor waits forever,
/// as does everything that joins a task behind it. Dropping the `Runtime` waits forever with it,
/// and [`shutdown_timeout`](Self::shutdown_timeout) waits until its deadline;
/// [`shutdown_background`](Self::shutdown_background) returns at once. Nothing else is affected:
/// other runtimes go on, nothing is dropped twice, and no lock of the runtime is held while a
/// destructor runs.
///
/// # Fork
///
/// A forked child has only the thread that forked, so a runtime does not work in it. The child must
/// not use anything of the runtime. `exec`, as in [`std::process::Command`], is fine.
///
/// # Examples
///
/// ```
/// let runtime = umcg::Runtime::new()?;
/// let words = runtime.block_on(async {
///     // This blocks, and needs no special call: the server runs other tasks meanwhile.
///     let file = umcg::spawn(async { std::fs::read_to_string("/proc/self/status") });
///     file.await.unwrap().unwrap().split_whitespace().count()
/// });
/// assert!(words > 0);
/// # Ok::<(), umcg::BuildError>(())
/// ```
pub struct Runtime {
    handle: Handle,
    /// The threads to be joined at the end. `None`: the runtime was shut down.
    threads: Option<Threads>,
}

impl Runtime {
    pub(crate) fn from_parts(handle: Handle, threads: Threads) -> Self {
        Self {
            handle,
            threads: Some(threads),
        }
    }

    /// A reference to the runtime, which other threads can have as well.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// [`Handle::enter`].
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// [`Handle::spawn`].
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// [`Handle::spawn_blocking`].
    pub fn spawn_blocking<F, R>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.handle.spawn_blocking(f)
    }

    /// [`Handle::block_on`].
    ///
    /// # Panics
    ///
    /// With the panic of `future`.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// [`Handle::metrics`].
    #[must_use]
    pub fn metrics(&self) -> RuntimeMetrics {
        self.handle.metrics()
    }

    /// Shuts down, and waits at most `timeout` for running tasks and for the destructors of
    /// cancelled ones. What has not ended by then is left behind, see [above](Self#shutting-down);
    /// see also [what a destructor may do](Self#what-a-destructor-may-do). Does not wait if it is
    /// called on one of the runtime's own threads.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{
    ///     sync::mpsc,
    ///     time::{Duration, Instant},
    /// };
    ///
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let (send, receive) = mpsc::channel::<()>();
    /// // Blocks until the end of this example.
    /// drop(runtime.spawn_blocking(move || receive.recv()));
    /// let begun = Instant::now();
    /// runtime.shutdown_timeout(Duration::from_millis(50));
    /// assert!(begun.elapsed() < Duration::from_secs(20));
    /// // The task is left behind, not killed: it ends when it can.
    /// drop(send);
    /// ```
    pub fn shutdown_timeout(mut self, timeout: Duration) {
        let deadline = Instant::now().checked_add(timeout);
        self.shut_down(|runtime| {
            let shared = runtime.handle.shared();
            let all = shared.is_current() || shared.wait_for_all(deadline);
            if !all {
                shared.abandon();
            }
            // The destructors of the threads' locals may take any time; they are not waited for.
            false
        });
    }

    /// Shuts down and waits for nothing, see [above](Self#shutting-down). Cancelled tasks may be
    /// dropped after this returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let runtime = umcg::Runtime::new().unwrap();
    /// let suspended = runtime.spawn(std::future::pending::<()>());
    /// let (send, receive) = mpsc::channel::<()>();
    /// drop(runtime.spawn_blocking(move || receive.recv()));
    /// runtime.shutdown_background();
    /// assert!(suspended.join().unwrap_err().is_cancelled());
    /// // The other task is left behind.
    /// drop(send);
    /// ```
    pub fn shutdown_background(mut self) {
        self.shut_down(|runtime| {
            runtime.handle.shared().abandon();
            false
        });
    }

    /// Shuts down unless that has been done. `wait` waits for what this way of shutting down waits
    /// for; it returns true if the threads are to be joined.
    fn shut_down(&mut self, wait: impl FnOnce(&Self) -> bool) {
        if let Some(threads) = self.threads.take() {
            let shared = self.handle.shared();
            shared.stop();
            if wait(self) {
                shared.join(threads);
            }
        }
    }
}

impl Drop for Runtime {
    /// Shuts down, and waits for running tasks and for the destructors of cancelled ones: forever
    /// if one of them is blocked forever. See [shutting down](Self#shutting-down) and [what a
    /// destructor may do](Self#what-a-destructor-may-do).
    fn drop(&mut self) {
        self.shut_down(|runtime| {
            let shared = runtime.handle.shared();
            !shared.is_current() && shared.wait_for_all(None)
        });
    }
}

// As `Handle`: a panic in one of its calls leaves it as it was.
impl UnwindSafe for Runtime {}
impl RefUnwindSafe for Runtime {}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
