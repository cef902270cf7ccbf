//! The jobs of one pool.
//!
//! A job that is *admitted* is a task of the runtime; the others wait in the pool's queue. Each
//! task runs one job and, at its end, makes the next task of the next job, so that the
//! scheduler's fairness holds between two jobs.

use std::{
    cell::Cell,
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use parking_lot::Mutex;

use super::home::Home;
use crate::{
    context,
    sched::JobQueue,
    task::{Name, discard, spawn_closure},
    wait::{futex_wait, futex_wake},
};

pub(super) type Job = Box<dyn FnOnce() + Send + 'static>;

pub(super) struct Pool {
    name: Name,
    /// Runs the tasks.
    home: Home,
    /// Held for a few instructions, never while a job is called, dropped or scheduled.
    state: Mutex<State>,
    /// Jobs that have begun and not ended.
    active: AtomicUsize,
    /// Jobs that panicked.
    panics: AtomicUsize,
    /// How often the pool became empty: a futex word of those that join.
    emptied: AtomicU32,
}

struct State {
    /// Jobs that are not admitted, oldest first.
    queue: VecDeque<Job>,
    /// Jobs that are tasks by now, less those that wait for others of this pool.
    admitted: usize,
    /// Jobs that were admitted and wait for others of this pool.
    paused: usize,
    /// At least 1. `admitted` may be above it for a while, after it was lowered and when a
    /// paused job goes on.
    max: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) queued: usize,
    pub(super) active: usize,
    pub(super) max: usize,
}

thread_local! {
    /// The pool whose job runs on this thread; null: none.
    static CURRENT: Cell<*const Pool> = const { Cell::new(ptr::null()) };
}

impl Pool {
    pub(super) fn new(name: Name, home: Home, max: usize) -> Arc<Self> {
        let pool = Arc::new(Self {
            name,
            home,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                admitted: 0,
                paused: 0,
                max,
            }),
            active: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            emptied: AtomicU32::new(0),
        });
        let queue: Arc<dyn JobQueue> = Arc::clone(&pool) as _;
        pool.home.handle().shared().add_job_queue(&queue);
        pool
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &***name)
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state.lock();
        let active = self.active.load(Relaxed);
        Counts {
            // Admitted jobs that no worker has begun are queued as well.
            queued: state.queue.len() + (state.admitted + state.paused).saturating_sub(active),
            active,
            max: state.max,
        }
    }

    pub(super) fn panics(&self) -> usize {
        self.panics.load(Relaxed)
    }

    /// Whether this code is a job of this pool.
    pub(super) fn is_current(&self) -> bool {
        CURRENT.with(Cell::get) == ptr::from_ref(self)
    }

    pub(super) fn execute<F>(self: &Arc<Self>, job: F)
    where
        F: FnOnce() + Send + 'static,
    {
        let mut state = self.state.lock();
        if state.admitted < state.max {
            state.admitted += 1;
            drop(state);
            self.start(job);
        } else if self.home.handle().shared().is_stopping() {
            // Looked at under the lock: `cancel_jobs` comes after this, or has been here.
            drop(state);
            discard(job);
        } else {
            // Allocated under the lock, which is rare enough: the pool is full.
            state.queue.push_back(Box::new(job));
        }
    }

    /// # Safety
    /// What `job` borrows outlives it: the caller waits until it was dropped, called or not.
    pub(super) unsafe fn execute_unchecked<'a>(
        self: &Arc<Self>,
        job: Box<dyn FnOnce() + Send + 'a>,
    ) {
        // SAFETY: only the lifetime bound changes; the caller keeps it.
        let job = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + 'a>, Job>(job) };
        self.execute(job);
    }

    pub(super) fn set_max(self: &Arc<Self>, max: usize) {
        self.state.lock().max = max;
        self.admit();
    }

    /// Starts queued jobs while there is room.
    fn admit(self: &Arc<Self>) {
        loop {
            let job = {
                let mut state = self.state.lock();
                if state.admitted >= state.max {
                    return;
                }
                let Some(job) = state.queue.pop_front() else {
                    return;
                };
                state.admitted += 1;
                job
            };
            self.start(job);
        }
    }

    /// Makes a task of an admitted job.
    fn start<F>(self: &Arc<Self>, job: F)
    where
        F: FnOnce() + Send + 'static,
    {
        let work = Work {
            job,
            admitted: Admitted(Some(Arc::clone(self))),
        };
        let shared = self.home.handle().shared();
        drop(spawn_closure(shared, self.name.clone(), move || work.run()));
    }

    /// A job of this pool is about to wait for others of it: its place goes to the next, since
    /// they may be what it waits for.
    pub(super) fn pause(self: &Arc<Self>) -> Paused<'_> {
        // It is not paused twice, whatever code of the user's runs on this thread meanwhile.
        let paused = Paused(self, CURRENT.replace(ptr::null()));
        {
            let mut state = self.state.lock();
            state.admitted -= 1;
            state.paused += 1;
        }
        self.admit();
        paused
    }

    /// Blocks until the pool has become empty.
    pub(super) fn join(&self) {
        let seen = {
            let state = self.state.lock();
            if state.is_empty() {
                return;
            }
            // Under the lock, which orders it against the last job's end.
            self.emptied.load(Relaxed)
        };
        let _wait = context::managed_blocking();
        // Acquire: pairs with the Release in `emptied`, so that what the jobs did is seen.
        while self.emptied.load(Acquire) == seen {
            futex_wait(&self.emptied, seen, None);
        }
    }

    /// Drops the jobs that are not admitted, of a runtime that stops; `places` of those that are
    /// have gone as well.
    fn drop_queued(&self, places: usize) {
        self.state.lock().admitted -= places;
        // One by one, so that the lock is not held while a job is dropped.
        while let Some(job) = self.next_queued() {
            discard(job);
        }
        self.check_empty(&self.state.lock());
    }

    fn next_queued(&self) -> Option<Job> {
        self.state.lock().queue.pop_front()
    }

    /// The pool whose job this code is, if it is one, is about to wait for another pool: see
    /// [`pause`](Self::pause).
    pub(super) fn pause_current() -> Option<PausedCurrent> {
        let current = CURRENT.with(Cell::get);
        if current.is_null() {
            return None;
        }
        // SAFETY: from `Arc::as_ptr`, of an `Arc` that `Admitted::run` further up this stack holds.
        let pool = unsafe {
            Arc::increment_strong_count(current);
            Arc::from_raw(current)
        };
        mem::forget(pool.pause());
        Some(PausedCurrent(pool))
    }

    /// To be called under the lock when a job has gone.
    fn check_empty(&self, state: &State) {
        if state.is_empty() {
            // Release: pairs with the Acquire in `join`; the lock has ordered the other jobs
            // before.
            self.emptied.fetch_add(1, Release);
            futex_wake(&self.emptied, i32::MAX);
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.admitted == 0 && self.paused == 0
    }
}

impl JobQueue for Pool {
    fn cancel_jobs(&self) {
        self.drop_queued(0);
    }
}

/// See [`Pool::pause`]. The job goes on, at once, when this is dropped.
pub(super) struct Paused<'a>(&'a Arc<Pool>, *const Pool);

/// See [`Pool::pause_current`].
pub(super) struct PausedCurrent(Arc<Pool>);

impl Drop for PausedCurrent {
    fn drop(&mut self) {
        drop(Paused(&self.0, Arc::as_ptr(&self.0)));
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.1);
        let mut state = self.0.state.lock();
        state.paused -= 1;
        // Perhaps above `max`. To wait for room could be for ever: the jobs that run may wait
        // for this one, in ways that the pool does not know.
        state.admitted += 1;
    }
}

/// An admitted job on its way to a worker. Fields drop in this order.
struct Work<F> {
    job: F,
    admitted: Admitted,
}

impl<F: FnOnce()> Work<F> {
    fn run(self) {
        let Self { job, admitted } = self;
        admitted.run(job);
        admitted.next();
    }
}

/// The place of an admitted job. One that is dropped instead of given on by
/// [`next`](Self::next) means that the runtime drops its tasks.
struct Admitted(Option<Arc<Pool>>);

impl Admitted {
    fn run(&self, job: impl FnOnce()) {
        let Some(pool) = &self.0 else { return };
        // Relaxed: counts for people.
        pool.active.fetch_add(1, Relaxed);
        let outer = CURRENT.replace(Arc::as_ptr(pool));
        let result = catch_unwind(AssertUnwindSafe(job));
        CURRENT.set(outer);
        if let Err(payload) = result {
            pool.panics.fetch_add(1, Relaxed);
            discard(payload);
        }
    }

    /// The job has ended: gives the place to the next one, or up.
    fn next(mut self) {
        let Some(pool) = self.0.take() else { return };
        let mut state = pool.state.lock();
        // Under the lock, as the place is given up: or the job would count as queued in between.
        pool.active.fetch_sub(1, Relaxed);
        // Not above the limit, which may have been lowered meanwhile.
        let next = if state.admitted <= state.max {
            state.queue.pop_front()
        } else {
            None
        };
        match next {
            Some(job) => {
                drop(state);
                pool.start(job);
            }
            None => {
                state.admitted -= 1;
                pool.check_empty(&state);
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(pool) = self.0.take() else { return };
        // The queued jobs go the same way, here, since each as a task of its own would drop
        // the next one inside its own drop.
        pool.drop_queued(1);
    }
}
