//! The jobs of one pool, and the limit on how many of them run at once.
//!
//! A job that is *admitted* has one of the pool's places and is a task of the runtime. The other
//! jobs wait in the pool's queue. When the task of a job ends, it passes its place on: it makes a
//! new task of the next job instead of calling that job itself, so that the scheduler's fairness
//! applies between two jobs.
//!
//! The jobs of a scope are kept by the scope, and the queue has a *ticket* for each of them. A
//! ticket stands for the oldest job of its scope that has not begun. The thread that waits for the
//! scope takes jobs out of it as well and runs them in its own place, so a ticket may find none
//! left. Such a *stale* ticket is skipped.

use std::{
    cell::Cell,
    collections::VecDeque,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::pool_runtime::PoolRuntime;
use crate::{
    panic::discard,
    sched::JobQueue,
    task::{Name, spawn_closure},
    wait::{ManagedWait, Parker},
};

pub(super) type Job = Box<dyn FnOnce() + Send + 'static>;

/// The jobs of a scope that have not begun.
pub(super) trait Group: Send + Sync {
    /// Takes the oldest job out.
    fn take(&self) -> Option<Job>;

    /// Whether no job is left.
    fn is_empty(&self) -> bool;
}

/// Stands for one job of a group in the pool's queue. If it is dropped instead of
/// [redeemed](Self::redeem), because the runtime stops, it drops a job of its group.
pub(super) struct Ticket(Option<Arc<dyn Group>>);

/// What the pool's queue holds.
enum Entry {
    Job(Job),
    Ticket(Ticket),
}

/// What may be given to a pool: a closure, which needs no allocation if the pool has room, or an
/// entry of its queue.
trait Submit: Send {
    /// Makes a task of an admitted job.
    fn start(self, pool: &Arc<Pool>);

    /// The entry for a job that has to wait.
    fn into_entry(self) -> Entry;
}

/// A closure that was just submitted.
struct Closure<F>(F);

pub(super) struct Pool {
    name: Name,
    /// Runs the tasks.
    runtime: PoolRuntime,
    /// Held for a few instructions, never while a job is called, dropped or scheduled.
    state: Mutex<State>,
    /// Jobs that have begun and not ended. Relaxed everywhere: a number for the user to read.
    active: AtomicUsize,
    /// Jobs that panicked. Relaxed everywhere, like `active`.
    panics: AtomicUsize,
}

struct State {
    /// Jobs that are not admitted, oldest first. Empty while a place is free.
    queue: VecDeque<Entry>,
    /// Places that are taken: jobs that are tasks, except the paused ones.
    admitted: usize,
    /// Jobs that gave up their place while they wait for other jobs.
    paused: usize,
    /// At least 1. `admitted` may exceed it for a while: after it was lowered, and when a paused
    /// job resumes.
    max: usize,
    /// Tickets in the queue, and in tasks that have not begun, whose job has been taken by the
    /// thread that waits for it.
    stale: usize,
    /// Jobs that were taken out of the queue to be dropped, and whose destructor has not returned.
    dropping: usize,
    /// Threads in [`Pool::join`]. Unparked and removed when the pool becomes empty.
    joiners: Vec<Arc<Parker>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) queued: usize,
    pub(super) active: usize,
    pub(super) max: usize,
}

thread_local! {
    /// The pool whose job runs on this thread, from `Arc::as_ptr` of an `Arc` that
    /// [`Place::run`] further up the stack holds. Null: this thread runs no job, or one that is
    /// paused.
    static CURRENT: Cell<*const Pool> = const { Cell::new(ptr::null()) };
}

/// Removes the lifetime bound of a job.
///
/// # Safety
///
/// What `job` borrows outlives it: the caller waits until the job was dropped, called or not.
pub(super) unsafe fn erase_lifetime<'a>(job: Box<dyn FnOnce() + Send + 'a>) -> Job {
    // SAFETY: only the lifetime bound changes, and the caller keeps to it.
    unsafe { mem::transmute::<Box<dyn FnOnce() + Send + 'a>, Job>(job) }
}

impl Pool {
    pub(super) fn new(name: Name, runtime: PoolRuntime, max: usize) -> Arc<Self> {
        let pool = Arc::new(Self {
            name,
            runtime,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                admitted: 0,
                paused: 0,
                max,
                stale: 0,
                dropping: 0,
                joiners: Vec::new(),
            }),
            active: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
        });
        let queue: Arc<dyn JobQueue> = Arc::clone(&pool) as _;
        pool.runtime.handle().shared().add_job_queue(&queue);
        pool
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| &***name)
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state.lock();
        let active = self.active.load(Relaxed);
        // Admitted jobs that no worker has begun are queued as well.
        let not_begun = (state.admitted + state.paused).saturating_sub(active);
        Counts {
            queued: (state.queue.len() + not_begun).saturating_sub(state.stale),
            active,
            max: state.max,
        }
    }

    pub(super) fn panics(&self) -> usize {
        self.panics.load(Relaxed)
    }

    /// Whether the calling code is a job of this pool.
    pub(super) fn is_current(&self) -> bool {
        CURRENT.with(Cell::get) == ptr::from_ref(self)
    }

    /// Runs `job` as soon as a place is free.
    pub(super) fn execute<F>(self: &Arc<Self>, job: F)
    where
        F: FnOnce() + Send + 'static,
    {
        self.submit(Closure(job));
    }

    /// Runs a job of `group`, which was just added to it, as soon as a place is free.
    pub(super) fn execute_of(self: &Arc<Self>, group: Arc<dyn Group>) {
        self.submit(Ticket(Some(group)));
    }

    fn submit(self: &Arc<Self>, job: impl Submit) {
        let mut state = self.state.lock();
        if state.admitted < state.max {
            state.admitted += 1;
            drop(state);
            job.start(self);
        } else if self.runtime.handle().shared().is_stopping() {
            // Checked under the lock: `cancel_jobs` either runs later and finds what is pushed
            // below, or has run, and then this is seen.
            drop(state);
            discard(job);
        } else {
            // A closure is allocated under the lock. That is rare enough: the pool is full.
            state.queue.push_back(job.into_entry());
        }
    }

    /// Takes a job out of `group` for the calling job of this pool, which waits for the group and
    /// runs it in its own place.
    pub(super) fn take_back(&self, group: &dyn Group) -> Option<Job> {
        let mut state = self.state.lock();
        // Under the lock, like the look at a ticket in `next_entry`: the count of stale tickets is
        // raised before any ticket misses this job.
        let job = group.take()?;
        // In a recursion the last ticket is nearly always of this group. Then it is removed, and
        // the queue does not grow with the number of joins.
        if matches!(state.queue.back(), Some(Entry::Ticket(ticket)) if ticket.is_of(group)) {
            if let Some(Entry::Ticket(ticket)) = state.queue.pop_back() {
                drop(state);
                ticket.void();
            }
        } else {
            state.stale += 1;
        }
        Some(job)
    }

    pub(super) fn set_max(self: &Arc<Self>, max: usize) {
        self.state.lock().max = max;
        self.admit();
    }

    /// Starts queued jobs while places are free.
    fn admit(self: &Arc<Self>) {
        loop {
            let entry = {
                let mut state = self.state.lock();
                if state.admitted >= state.max {
                    return;
                }
                let Some(entry) = state.next_entry() else {
                    return;
                };
                state.admitted += 1;
                entry
            };
            entry.start(self);
        }
    }

    /// Makes a task that runs what `job` returns in a place of this pool.
    fn start<F>(self: &Arc<Self>, job: F)
    where
        F: FnOnce(&mut Place) + Send + 'static,
    {
        let work = Work {
            job,
            place: Place {
                pool: Some(Arc::clone(self)),
                active: false,
            },
        };
        let shared = self.runtime.handle().shared();
        drop(spawn_closure(shared, self.name.clone(), move || work.run()));
    }

    /// If the calling code is a job of some pool, gives its place there to the next job until the
    /// guard is dropped. For a job that is about to wait for other jobs, of its pool or another:
    /// the next one may be what it waits for.
    pub(super) fn pause_current() -> Option<Paused> {
        // Null meanwhile, so that user code which runs on this thread during the wait (the
        // destructors of cancelled jobs) does not pause the job twice.
        let current = CURRENT.replace(ptr::null());
        if current.is_null() {
            return None;
        }
        // SAFETY: not null, so it came from an `Arc` that is alive further up this stack.
        let pool = unsafe {
            Arc::increment_strong_count(current);
            Arc::from_raw(current)
        };
        {
            let mut state = pool.state.lock();
            state.admitted -= 1;
            state.paused += 1;
        }
        pool.admit();
        Some(Paused(pool))
    }

    /// Blocks until the pool has become empty.
    pub(super) fn join(&self) {
        let parker = Arc::new(Parker::new());
        {
            let mut state = self.state.lock();
            if state.is_empty() {
                return;
            }
            state.joiners.push(Arc::clone(&parker));
        }
        ManagedWait::begin().park(&parker);
    }

    /// Drops the jobs that are not admitted, because the runtime stops. `places` of the admitted
    /// ones have been dropped as well.
    fn drop_queued(&self, places: usize) {
        self.state.lock().admitted -= places;
        // One by one, so that the lock is not held while a job is dropped.
        loop {
            let entry = {
                let mut state = self.state.lock();
                let Some(entry) = state.queue.pop_front() else {
                    break;
                };
                state.dropping += 1;
                entry
            };
            discard(entry);
            self.state.lock().dropping -= 1;
        }
        let mut state = self.state.lock();
        state.stale = 0;
        self.check_empty(&mut state);
    }

    /// To be called under the lock when a job has ended or was dropped.
    fn check_empty(&self, state: &mut State) {
        if state.is_empty() {
            // The lock and the tokens order the effects of the jobs before the returns of the
            // joiners.
            for joiner in state.joiners.drain(..) {
                joiner.unpark();
            }
        }
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.admitted == 0 && self.paused == 0 && self.dropping == 0
    }

    /// Takes the next entry out of the queue, and the stale tickets before it.
    fn next_entry(&mut self) -> Option<Entry> {
        loop {
            match self.queue.pop_front()? {
                Entry::Ticket(ticket) if ticket.is_stale() => {
                    self.stale = self.stale.saturating_sub(1);
                    // Frees at most the empty record of a scope that has ended.
                    ticket.void();
                }
                entry => return Some(entry),
            }
        }
    }
}

impl JobQueue for Pool {
    fn cancel_jobs(&self) {
        self.drop_queued(0);
    }
}

/// See [`Pool::pause_current`]. When this is dropped, the job goes on at once.
pub(super) struct Paused(Arc<Pool>);

impl Drop for Paused {
    fn drop(&mut self) {
        CURRENT.set(Arc::as_ptr(&self.0));
        let mut state = self.0.state.lock();
        state.paused -= 1;
        // Perhaps above `max`. To wait for a free place might never end: the jobs that run may
        // wait for this one in ways that the pool does not see.
        state.admitted += 1;
    }
}

impl<F: FnOnce() + Send + 'static> Submit for Closure<F> {
    fn start(self, pool: &Arc<Pool>) {
        let Self(job) = self;
        pool.start(move |place: &mut Place| place.run(job));
    }

    fn into_entry(self) -> Entry {
        Entry::Job(Box::new(self.0))
    }
}

impl Submit for Ticket {
    fn start(self, pool: &Arc<Pool>) {
        pool.start(move |place: &mut Place| place.redeem(self));
    }

    fn into_entry(self) -> Entry {
        Entry::Ticket(self)
    }
}

impl Submit for Entry {
    fn start(self, pool: &Arc<Pool>) {
        match self {
            Self::Job(job) => Closure(job).start(pool),
            Self::Ticket(ticket) => ticket.start(pool),
        }
    }

    fn into_entry(self) -> Entry {
        self
    }
}

impl Ticket {
    fn is_of(&self, group: &dyn Group) -> bool {
        self.0
            .as_deref()
            .is_some_and(|ours| ptr::addr_eq(ptr::from_ref(ours), ptr::from_ref(group)))
    }

    fn is_stale(&self) -> bool {
        self.0.as_ref().is_none_or(|group| group.is_empty())
    }

    /// Takes the oldest job out of the group. `None`: the ticket is stale.
    fn redeem(mut self) -> Option<Job> {
        self.0.take()?.take()
    }

    /// Ends a ticket whose job is run by the thread that waits for it.
    fn void(mut self) {
        self.0 = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            discard(group.take());
        }
    }
}

/// An admitted job on its way to a worker. The job is dropped before the place.
struct Work<F> {
    job: F,
    place: Place,
}

impl<F: FnOnce(&mut Place)> Work<F> {
    fn run(self) {
        let Self { job, mut place } = self;
        job(&mut place);
        place.pass_on();
    }
}

/// The place of an admitted job. If it is dropped instead of [passed on](Self::pass_on), then the
/// runtime is dropping its tasks.
struct Place {
    /// `None`: passed on.
    pool: Option<Arc<Pool>>,
    /// The job has begun, and is counted in [`Pool::active`].
    active: bool,
}

impl Place {
    /// Calls the job.
    fn run(&mut self, job: impl FnOnce()) {
        let Some(pool) = &self.pool else { return };
        pool.active.fetch_add(1, Relaxed);
        self.active = true;
        let outer = CURRENT.replace(Arc::as_ptr(pool));
        let result = catch_unwind(AssertUnwindSafe(job));
        CURRENT.set(outer);
        if let Err(payload) = result {
            pool.panics.fetch_add(1, Relaxed);
            discard(payload);
        }
    }

    /// Calls the job that a ticket stands for, if the ticket is not stale.
    fn redeem(&mut self, ticket: Ticket) {
        if let Some(job) = ticket.redeem() {
            self.run(job);
        } else if let Some(pool) = &self.pool {
            let mut state = pool.state.lock();
            state.stale = state.stale.saturating_sub(1);
        }
    }

    /// The job has ended: gives the place to the next job, or gives it up.
    fn pass_on(mut self) {
        let Some(pool) = self.pool.take() else { return };
        let mut state = pool.state.lock();
        if self.active {
            // Under the lock, at once with the place: between the two the job would count as
            // queued.
            pool.active.fetch_sub(1, Relaxed);
        }
        // Not above the limit, which may have been lowered meanwhile.
        let next = if state.admitted <= state.max {
            state.next_entry()
        } else {
            None
        };
        match next {
            Some(entry) => {
                drop(state);
                entry.start(&pool);
            }
            None => {
                state.admitted -= 1;
                pool.check_empty(&mut state);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        // The queued jobs are dropped here as well: if each were a task of its own, it would drop
        // the next one inside of its own drop, and so recurse.
        pool.drop_queued(1);
    }
}
