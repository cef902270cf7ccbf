//! Threads that borrow from the function that makes them, which waits for them.
//!
//! A scope that blocks is sound where an async one is not: the stack frame that owns what is
//! borrowed cannot go away while its thread waits in it. The code below keeps one rule: the counter
//! of a scope falls only after the closure *and its result*, either of which may borrow, have been
//! dropped or handed to the joiner.

use std::{
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{
    sched::{Shared, context},
    task::{JoinHandle, Name, Origin, spawn_closure_unchecked},
    thread::{self, Thread, into_payload},
    wait::CountLatch,
};

/// Makes threads that may borrow from the surrounding function, and waits for all of them.
///
/// This is [`std::thread::scope`], on the current runtime. The calling thread blocks at the end of
/// the scope. While a worker blocks there its server runs other tasks, and the worker does not
/// count against `max_workers`, so that scopes nest without a limit. A waiting thread never runs
/// another task on its own stack, so a lock may be held across a scope.
///
/// # Panics
///
/// * Outside of a runtime.
/// * If `f` panics, with its panic, after all threads are done.
/// * If a thread panicked that was not joined, or the runtime shut down before one began.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let mut words = vec!["b", "a"];
/// let mut count = 0;
/// umcg::scope(|s| {
///     s.spawn(|| words.sort());
///     s.spawn(|| count += 1);
/// });
/// assert_eq!((words, count), (vec!["a", "b"], 1));
/// # });
/// ```
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    scope_on(context::expect_current("umcg::scope"), f)
}

/// [`scope`] on a given runtime.
#[track_caller]
pub(crate) fn scope_on<'env, F, T>(runtime: Arc<Shared>, f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let scope = Scope {
        runtime,
        data: Arc::new(ScopeData {
            running: CountLatch::default(),
            panicked: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
        }),
        scope: PhantomData,
        env: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    // Also after a panic: the owner of what was borrowed may not use it before this.
    scope.data.running.wait();
    match result {
        Err(payload) => resume_unwind(payload),
        // Relaxed: ordered by the latch.
        Ok(_) if scope.data.panicked.load(Relaxed) => panic!("a scoped thread panicked"),
        Ok(_) if scope.data.cancelled.load(Relaxed) => {
            panic!("a scoped thread was cancelled before it began: the runtime shut down")
        }
        Ok(value) => value,
    }
}

/// Makes threads that borrow; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    /// The runtime that runs the threads.
    runtime: Arc<Shared>,
    data: Arc<ScopeData>,
    /// Invariant, as in std: a closure must not be able to shrink the lifetime it spawns for.
    scope: PhantomData<&'scope mut &'scope ()>,
    /// Invariant, as in std.
    env: PhantomData<&'env mut &'env ()>,
}

struct ScopeData {
    /// Counts the threads whose closure or result still exists.
    running: CountLatch,
    /// A thread panicked that nobody joined.
    panicked: AtomicBool,
    /// A thread's closure was dropped uncalled.
    cancelled: AtomicBool,
}

impl ScopeData {
    /// Counts a thread until the guard is dropped.
    fn begin(self: &Arc<Self>) -> Running {
        self.running.add();
        Running {
            data: Arc::clone(self),
            called: false,
        }
    }
}

/// Counts one thread of a scope.
struct Running {
    data: Arc<ScopeData>,
    /// The closure was called.
    called: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.called {
            // Relaxed: ordered by the latch below.
            self.data.cancelled.store(true, Relaxed);
        }
        self.data.running.done();
    }
}

/// The closure of a thread, on its way to a worker. The fields are dropped in this order, the count
/// last.
struct Job<F> {
    f: F,
    thread: Thread,
    running: Running,
}

impl<F> Job<F> {
    fn call<T>(self) -> Outcome<T>
    where
        F: FnOnce() -> T,
    {
        let Self {
            f,
            thread,
            mut running,
        } = self;
        running.called = true;
        Outcome {
            result: Some(catch_unwind(AssertUnwindSafe(|| thread.run(f)))),
            running,
        }
    }
}

/// The result of a thread, on its way to the joiner if there is one. The fields are dropped in this
/// order, the count last.
struct Outcome<T> {
    /// `None`: taken by the joiner.
    result: Option<thread::Result<T>>,
    running: Running,
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        let unseen = matches!(self.result, Some(Err(_)));
        let dropped = catch_unwind(AssertUnwindSafe(|| self.result = None));
        if unseen || dropped.is_err() {
            // Relaxed: ordered by the latch, which falls after this.
            self.running.data.panicked.store(true, Relaxed);
        }
        crate::panic::discard(dropped);
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Runs `f` in a new thread, which ends before the scope does.
    ///
    /// Never blocks.
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.spawn_named(None, f)
    }

    pub(crate) fn spawn_named<F, T>(&'scope self, name: Name, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let thread = Thread::new(name.clone());
        let job = Job {
            f,
            thread: thread.clone(),
            running: self.data.begin(),
        };
        // SAFETY: what `F` and `T` borrow outlives 'scope, and `scope_on` does not return before
        // the count is 0. The count of this thread falls when its `Running` is dropped. If the
        // closure is never called, that is with the closure, after `f`. Otherwise it is with the
        // outcome, after the result was dropped, or moved out by a handle that is bounded by
        // 'scope.
        let task = unsafe {
            spawn_closure_unchecked(&self.runtime, name, Origin::Spawn, move || job.call::<T>())
        };
        ScopedJoinHandle {
            task,
            thread,
            scope: PhantomData,
        }
    }

    pub(crate) fn runtime(&self) -> &Arc<Shared> {
        &self.runtime
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("running", &self.data.running.count())
            .field("panicked", &self.data.panicked.load(Relaxed))
            .finish_non_exhaustive()
    }
}

/// Owns the right to join a thread of a [`scope`]. If it is dropped, the end of the scope waits for
/// the thread.
///
/// A handle that is leaked keeps its scope from ending.
pub struct ScopedJoinHandle<'scope, T> {
    task: JoinHandle<Outcome<T>>,
    thread: Thread,
    scope: PhantomData<&'scope mut &'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Blocks until the thread is done, and returns its result.
    ///
    /// # Errors
    ///
    /// The payload of the thread's panic, which the scope then does not repeat; or a
    /// [`JoinError`](crate::JoinError), if the runtime shut down before the thread began.
    pub fn join(self) -> thread::Result<T> {
        match self.task.join() {
            Ok(mut outcome) => outcome.result.take().expect("taken here, by value"),
            Err(error) => Err(into_payload(error)),
        }
    }

    /// The thread, to [`unpark`](Thread::unpark) it or to ask for its name.
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Whether the thread is done. Then [`join`](Self::join) does not block for long.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
