//! A pool in the shape of the `threadpool` crate, and of rayon's `ThreadPool`.
//!
//! `use umcg::ThreadPool;` in place of `use threadpool::ThreadPool;`, or
//! `use umcg::thread_pool as threadpool;`, is all that a program changes. The jobs are closure
//! tasks of a runtime: of the current one, or outside of any of one that the process makes for
//! its pools and keeps to its end.
//!
//! What differs from `threadpool`:
//!
//! * The number of threads is a limit on the jobs that run at once, and makes no threads by
//!   itself: a pool of 1000 with 10 jobs blocked has about 10 threads, and jobs that do not
//!   block need no more than one a CPU.
//! * [`thread::current`](crate::thread::current) has the pool's name;
//!   [`std::thread::current`] is the worker, which other tasks use as well.
//! * Inside a runtime its `max_workers` is a limit too, and its end is the jobs' end: those that
//!   have not begun are dropped.

mod builder;
mod home;
mod pool;
mod scope;

use std::{
    fmt,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use parking_lot::Mutex;

use self::pool::Pool;
pub use self::{builder::Builder, scope::Scope};
use crate::wait::CountLatch;

/// Runs jobs, at most so many at once, in the order in which they came.
///
/// Clones are the same pool. When the last one is dropped, the jobs it has finish in the
/// background.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
/// use umcg::ThreadPool;
///
/// let pool = ThreadPool::new(4);
/// let (sender, receiver) = channel();
/// for _ in 0..8 {
///     let sender = sender.clone();
///     pool.execute(move || sender.send(1).unwrap());
/// }
/// assert_eq!(receiver.iter().take(8).sum::<i32>(), 8);
/// ```
#[derive(Clone)]
pub struct ThreadPool {
    pool: Arc<Pool>,
}

impl ThreadPool {
    /// A pool that runs at most `num_threads` jobs at once.
    ///
    /// # Panics
    ///
    /// If `num_threads` is 0, or as [`Builder::build`].
    #[must_use]
    pub fn new(num_threads: usize) -> Self {
        Builder::new().num_threads(num_threads).build()
    }

    /// [`new`](Self::new), and the name that its jobs see as
    /// [`thread::current`](crate::thread::current)'s.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_name(name: String, num_threads: usize) -> Self {
        Builder::new()
            .num_threads(num_threads)
            .thread_name(name)
            .build()
    }

    /// Runs `job`, as soon as there is room. Never blocks.
    ///
    /// A panic of the job ends the job alone, and is counted.
    pub fn execute<F>(&self, job: F)
    where
        F: FnOnce() + Send + 'static,
    {
        self.pool.execute(job);
    }

    /// How many jobs wait to be run.
    #[must_use]
    pub fn queued_count(&self) -> usize {
        self.pool.counts().queued
    }

    /// How many jobs run.
    #[must_use]
    pub fn active_count(&self) -> usize {
        self.pool.counts().active
    }

    /// How many jobs may run at once.
    #[must_use]
    pub fn max_count(&self) -> usize {
        self.pool.counts().max
    }

    /// How many jobs have panicked.
    #[must_use]
    pub fn panic_count(&self) -> usize {
        self.pool.panics()
    }

    /// Changes how many jobs may run at once. Those that run are left alone.
    ///
    /// # Panics
    ///
    /// If `num_threads` is 0.
    #[track_caller]
    pub fn set_num_threads(&mut self, num_threads: usize) {
        assert!(num_threads > 0, "a pool needs at least one thread");
        self.pool.set_max(num_threads);
    }

    /// Blocks until the pool has no job.
    ///
    /// All that join at the same time return together, the next time the pool is empty, even
    /// if it has new jobs by then. A job that joins its own pool waits for itself.
    pub fn join(&self) {
        self.pool.join();
    }

    /// Runs `op` as a job of this pool, and waits for its result.
    ///
    /// Inside a job of this pool it just calls `op`. A job of another pool that waits here leaves
    /// its place there to the next one, as if it had ended, and goes on beside it.
    ///
    /// # Panics
    ///
    /// With the panic of `op`; or if the pool's runtime shuts down first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = umcg::ThreadPool::new(2);
    /// let text = String::from("borrowed");
    /// assert_eq!(pool.install(|| text.len()), 8);
    /// ```
    pub fn install<OP, R>(&self, op: OP) -> R
    where
        OP: FnOnce() -> R + Send,
        R: Send,
    {
        if self.pool.is_current() {
            return op();
        }
        let result = Mutex::new(None);
        let latch = Arc::new(CountLatch::default());
        latch.add();
        let job = scope::Counted {
            f: || *result.lock() = Some(catch_unwind(AssertUnwindSafe(op))),
            done: scope::Done(Arc::clone(&latch)),
        };
        // SAFETY: the wait below ends when the job has been dropped, called or not.
        unsafe { self.pool.execute_unchecked(Box::new(move || job.call())) };
        let waits = Waits(&latch);
        // As rayon's threads do, which go on with jobs of their own pool meanwhile.
        let paused = (latch.count() != 0).then(Pool::pause_current).flatten();
        drop(waits);
        drop(paused);
        match result.into_inner() {
            Some(Ok(value)) => value,
            Some(Err(payload)) => resume_unwind(payload),
            None => panic!("the pool's runtime shut down before `install` ran"),
        }
    }

    /// Calls `op` inside the pool with a scope, for jobs that borrow, and waits for all of
    /// them. The shape of rayon's `scope`; [`umcg::scope`](crate::scope()) is that of std's.
    ///
    /// # Panics
    ///
    /// With the panic of `op`, else with the first one of a job, once all jobs are done; or if
    /// the pool's runtime shuts down first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = umcg::ThreadPool::new(2);
    /// let mut numbers = [1, 2, 3];
    /// pool.scope(|s| {
    ///     for number in &mut numbers {
    ///         s.spawn(move |_| *number *= 2);
    ///     }
    /// });
    /// assert_eq!(numbers, [2, 4, 6]);
    /// ```
    pub fn scope<'scope, OP, R>(&self, op: OP) -> R
    where
        OP: FnOnce(&Scope<'scope>) -> R + Send,
        R: Send,
    {
        self.install(|| scope::run(&self.pool, op))
    }

    /// Runs both closures in the pool, at the same time if it has room, and gives both
    /// results. The shape of rayon's `ThreadPool::join`, which cannot be called `join` here,
    /// since that waits for the pool; outside of pools there is [`umcg::join`](crate::join()).
    ///
    /// # Panics
    ///
    /// With the panic of `a`, else of `b`, once both are done; or if the pool's runtime shuts
    /// down first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = umcg::ThreadPool::new(2);
    /// assert_eq!(pool.join_both(|| 1, || "two"), (1, "two"));
    /// ```
    pub fn join_both<A, B, RA, RB>(&self, a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        let mut second = None;
        let first = self.scope(|s| {
            s.spawn(|_| second = Some(b()));
            a()
        });
        (first, second.expect("the scope ends when `b` is done"))
    }
}

/// Waits when it is dropped, also by a panic.
struct Waits<'a>(&'a CountLatch);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// As many threads as CPUs.
impl Default for ThreadPool {
    fn default() -> Self {
        Builder::new().build()
    }
}

// A panic of a job is contained, and a pool's own steps do not stop half-way.
impl UnwindSafe for ThreadPool {}
impl RefUnwindSafe for ThreadPool {}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.pool.counts();
        f.debug_struct("ThreadPool")
            .field("name", &self.pool.name())
            .field("queued_count", &counts.queued)
            .field("active_count", &counts.active)
            .field("max_count", &counts.max)
            .finish()
    }
}

/// Clones of one pool are equal, and no others.
impl PartialEq for ThreadPool {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool)
    }
}

impl Eq for ThreadPool {}

#[cfg(test)]
mod tests;
