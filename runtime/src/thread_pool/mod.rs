//! A pool in the shape of the `threadpool` crate, and of rayon's `ThreadPool`.
//!
//! A program moves over by `use umcg::ThreadPool;` in place of `use threadpool::ThreadPool;`, or by
//! `use umcg::thread_pool as threadpool;`. The jobs are closure tasks of a runtime: of the current
//! one, or, for a pool that is made outside of any runtime, of one that the process makes for all
//! such pools and keeps until it ends.
//!
//! # What differs from `threadpool`
//!
//! * The number of threads limits how many jobs run at once. It makes no threads by itself: a pool
//!   of 1000 with 10 jobs blocked has about 10 threads, and jobs that do not block need no more
//!   than one thread for each CPU.
//! * [`thread::current`](crate::thread::current) has the pool's name. [`std::thread::current`] is
//!   the worker, which other tasks use as well: its name is the runtime's, as are the names that
//!   the operating system shows. Thread-locals, too, are the worker's, and a job may find what
//!   other tasks left in them.
//! * Inside a runtime, its `max_workers` limits the pool as well. When that runtime shuts down,
//!   jobs that have not begun are dropped without being called.
//!
//! # What runs beside what
//!
//! At most `num_threads` jobs of a pool run at once, and they begin in the order in which they were
//! submitted. A job may wait for other jobs: at the end of a [`scope`](ThreadPool::scope) or
//! [`join_both`](ThreadPool::join_both), or in an [`install`](ThreadPool::install) on another pool.
//! It does so in two steps:
//!
//! 1. If it waits for a scope of its own pool, it runs the jobs of that scope that have not begun,
//!    one after the other, on its own stack. They do not wait for their turn in the pool's queue.
//!    To these jobs, `thread::current` and `task::id` are those of the job that waits.
//! 2. If the jobs that it waits for run elsewhere, it gives its place to the next job in the queue.
//!    It goes on as soon as they are done, even if all places are taken then. So more than
//!    `num_threads` jobs may run for a while, by one for each job that has waited like this; the
//!    pool starts no further job until it is below the limit again.
//!
//! In a pool of one, scopes and joins that are nested to any depth therefore run one job at a time,
//! on one thread. Only a job that waits in `install` for another pool lets the next job of its own
//! pool begin, and then goes on beside it.
//!
//! Step 1 has a consequence for jobs that wait for each other by other means. The job of a scope
//! may begin before jobs that were submitted earlier. If it waits for one of these by a channel or
//! a lock, and all places of the pool are taken by jobs that wait like this, none of them can go
//! on. Submit what a job of a scope waits for into the same scope, before that job.
//!
//! # What differs from rayon
//!
//! | rayon | here |
//! |---|---|
//! | `ThreadPool::join` | [`join_both`](ThreadPool::join_both), since [`join`](ThreadPool::join) waits for the pool, as in `threadpool` |
//! | `spawn`, `spawn_fifo` | [`execute`](ThreadPool::execute): jobs begin in the order of their submission |
//! | `scope`, `scope_fifo` | [`scope`](ThreadPool::scope): the jobs of a scope begin in that order, too |
//! | `in_place_scope`, `in_place_scope_fifo` | [`in_place_scope`](ThreadPool::in_place_scope) |
//! | `current_num_threads` | [`max_count`](ThreadPool::max_count) |
//! | `broadcast`, `spawn_broadcast`, `current_thread_index` | not offered: a pool has no threads of its own that a closure could run on once each, or be numbered by |
//! | `yield_now`, `yield_local` | [`thread::yield_now`](crate::thread::yield_now) |

mod builder;
mod pool;
mod pool_runtime;
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

/// Runs jobs, a limited number of them at once, in the order of their submission.
///
/// Clones are the same pool. When the last one is dropped, the jobs that the pool still has run in
/// the background.
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
    #[track_caller]
    pub fn new(num_threads: usize) -> Self {
        Builder::new().num_threads(num_threads).build()
    }

    /// [`new`](Self::new), with the name that its jobs see as that of
    /// [`thread::current`](crate::thread::current).
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), or if the name contains a NUL byte.
    #[must_use]
    #[track_caller]
    pub fn with_name(name: String, num_threads: usize) -> Self {
        Builder::new()
            .num_threads(num_threads)
            .thread_name(name)
            .build()
    }

    /// Runs `job` as soon as fewer jobs than the limit run. Never blocks.
    ///
    /// A panic of the job is counted, and ends this job alone.
    pub fn execute<F>(&self, job: F)
    where
        F: FnOnce() + Send + 'static,
    {
        self.pool.execute(job);
    }

    /// The number of jobs that have not begun.
    #[must_use]
    pub fn queued_count(&self) -> usize {
        self.pool.counts().queued
    }

    /// The number of jobs that run, or are blocked.
    #[must_use]
    pub fn active_count(&self) -> usize {
        self.pool.counts().active
    }

    /// The number of jobs that may run at once.
    #[must_use]
    pub fn max_count(&self) -> usize {
        self.pool.counts().max
    }

    /// The number of jobs that have panicked.
    #[must_use]
    pub fn panic_count(&self) -> usize {
        self.pool.panics()
    }

    /// Changes how many jobs may run at once. Jobs that have begun are not affected.
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
    /// All threads that join at the same time return together, the next time that the pool is
    /// empty, even if it has new jobs by then. A job that joins its own pool waits for itself,
    /// without end.
    pub fn join(&self) {
        self.pool.join();
    }

    /// Runs `op` as a job of this pool, and waits for its result.
    ///
    /// Inside a job of this pool it just calls `op`. A job of another pool that waits here gives
    /// its place there to the next job meanwhile: see
    /// [what runs beside what](self#what-runs-beside-what).
    ///
    /// # Panics
    ///
    /// With the panic of `op`; or if the runtime of the pool shuts down first.
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
        // SAFETY: `waits` does not go before the job has been dropped, called or not.
        let job = unsafe { pool::erase_lifetime(Box::new(move || job.call())) };
        let waits = Waits(&latch);
        self.pool.execute(job);
        let paused = (latch.count() != 0).then(Pool::pause_current).flatten();
        drop(waits);
        drop(paused);
        match result.into_inner() {
            Some(Ok(value)) => value,
            Some(Err(payload)) => resume_unwind(payload),
            None => panic!("the pool's runtime shut down before `install` ran"),
        }
    }

    /// Calls `op` inside the pool with a scope, for jobs that borrow, and waits for all of them.
    /// This is rayon's `scope`; [`umcg::scope`](crate::scope()) has the shape of std's.
    ///
    /// # Panics
    ///
    /// With the panic of `op`, or else with the first one of a job, once all jobs are done; or if
    /// the runtime of the pool shuts down first.
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

    /// [`scope`](Self::scope), but `op` runs on the calling thread, so that neither it nor its
    /// result need be `Send`. The jobs of the scope run in the pool.
    ///
    /// # Panics
    ///
    /// As [`scope`](Self::scope).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{rc::Rc, sync::mpsc::channel};
    ///
    /// let pool = umcg::ThreadPool::new(2);
    /// let (sender, receiver) = channel();
    /// // Not `Send`, and used by `op` alone.
    /// let factor = Rc::new(2);
    /// let doubled = pool.in_place_scope(|s| {
    ///     s.spawn(|_| sender.send(21).unwrap());
    ///     receiver.recv().unwrap() * *factor
    /// });
    /// assert_eq!(doubled, 42);
    /// ```
    pub fn in_place_scope<'scope, OP, R>(&self, op: OP) -> R
    where
        OP: FnOnce(&Scope<'scope>) -> R,
    {
        scope::run(&self.pool, op)
    }

    /// Runs both closures in the pool, and returns both results. `a` runs as [`install`] runs its
    /// closure, and `b` runs at the same time if the pool has room. If no worker has begun `b` when
    /// `a` is done, `b` runs after it on the same thread.
    ///
    /// This is rayon's `ThreadPool::join`, which cannot be called `join` here, since that waits for
    /// the pool. Outside of pools there is [`umcg::join`](crate::join()).
    ///
    /// [`install`]: Self::install
    ///
    /// # Panics
    ///
    /// With the panic of `a`, or else of `b`, once both are done; or if the runtime of the pool
    /// shuts down first.
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

// A panic elsewhere leaves no pool in a state that the user could observe: no user code runs under
// its lock.
impl UnwindSafe for ThreadPool {}
impl RefUnwindSafe for ThreadPool {}

/// Waits when it is dropped, also by a panic.
struct Waits<'a>(&'a CountLatch);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// A pool that runs as many jobs at once as there are CPUs.
impl Default for ThreadPool {
    fn default() -> Self {
        Builder::new().build()
    }
}

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
