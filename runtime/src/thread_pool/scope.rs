//! Jobs of a pool that borrow.
//!
//! A scope keeps the jobs that have not begun, and the pool's queue has a ticket for each (see
//! `pool.rs`). The job that waits for the scope takes jobs out as well and runs them in its own
//! place, one after the other. So a join whose second closure no worker has begun needs no other
//! worker, and the scopes of a pool of one run one job at a time.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::pool::{Group, Job, Pool, erase_lifetime};
use crate::{panic::discard, wait::CountLatch};

/// Makes jobs that borrow what outlives `'scope`; see
/// [`ThreadPool::scope`](super::ThreadPool::scope).
pub struct Scope<'scope> {
    pool: Arc<Pool>,
    data: Arc<ScopeData>,
    /// Invariant: a body must not be able to shrink the lifetime that it spawns for.
    scope: PhantomData<&'scope mut &'scope ()>,
}

/// What the jobs of a scope share.
#[derive(Default)]
struct ScopeData {
    /// Jobs that have not begun, oldest first. Locked for a few instructions, also under the lock
    /// of the pool's state.
    not_begun: Mutex<VecDeque<Job>>,
    /// Jobs that are not done.
    jobs: Arc<CountLatch>,
    /// The payload of the first panic of a job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Jobs that were spawned. More than `called` at the end if the runtime dropped one. Relaxed,
    /// like `called`: ordered by the latch.
    spawned: AtomicUsize,
    /// Jobs that were called.
    called: AtomicUsize,
}

impl Group for ScopeData {
    fn take(&self) -> Option<Job> {
        self.not_begun.lock().pop_front()
    }

    fn is_empty(&self) -> bool {
        self.not_begun.lock().is_empty()
    }
}

/// Calls `op` with a scope on this thread, and waits for the jobs of the scope.
pub(super) fn run<'scope, OP, R>(pool: &Arc<Pool>, op: OP) -> R
where
    OP: FnOnce(&Scope<'scope>) -> R,
{
    let data = Arc::new(ScopeData::default());
    let scope = Scope {
        pool: Arc::clone(pool),
        data: Arc::clone(&data),
        scope: PhantomData,
    };
    let result = catch_unwind(AssertUnwindSafe(|| op(&scope)));
    // Whatever happened, the owner may not use what the jobs borrow before all of them are done.
    if pool.is_current() {
        while let Some(job) = pool.take_back(&*data) {
            // Its panic is caught in `Scope::call`.
            job();
        }
    }
    // The jobs that are left run elsewhere, and may spawn more.
    let paused = (data.jobs.count() != 0).then(Pool::pause_current).flatten();
    data.jobs.wait();
    drop(paused);
    let panic = data.panic.lock().take();
    match result {
        Err(payload) => {
            discard(panic);
            resume_unwind(payload)
        }
        Ok(value) => {
            if let Some(payload) = panic {
                discard(value);
                resume_unwind(payload);
            }
            assert!(
                data.called.load(Relaxed) == data.spawned.load(Relaxed),
                "the pool's runtime shut down before a job of the scope ran"
            );
            value
        }
    }
}

impl<'scope> Scope<'scope> {
    /// Runs `body` as a job of the pool, before the scope ends. The job gets the scope, to spawn
    /// siblings. Never blocks.
    pub fn spawn<BODY>(&self, body: BODY)
    where
        BODY: FnOnce(&Scope<'scope>) + Send + 'scope,
    {
        self.data.jobs.add();
        self.data.spawned.fetch_add(1, Relaxed);
        let scope = Self {
            pool: Arc::clone(&self.pool),
            data: Arc::clone(&self.data),
            scope: PhantomData,
        };
        let job = Counted {
            f: move || scope.call(body),
            done: Done(Arc::clone(&self.data.jobs)),
        };
        // SAFETY: what the job borrows outlives 'scope, and the scope does not end before its latch
        // is 0. `Counted` counts down after the body was called, or dropped uncalled.
        let job = unsafe { erase_lifetime(Box::new(move || job.call())) };
        self.data.not_begun.lock().push_back(job);
        self.pool
            .execute_of(Arc::clone(&self.data) as Arc<dyn Group>);
    }

    fn call(&self, body: impl FnOnce(&Self)) {
        self.data.called.fetch_add(1, Relaxed);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(self))) {
            let later = {
                let mut first = self.data.panic.lock();
                match &*first {
                    None => first.replace(payload),
                    Some(_) => Some(payload),
                }
            };
            discard(later);
        }
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("jobs", &self.data.jobs.count())
            .finish_non_exhaustive()
    }
}

/// A closure that a latch counts until it is gone. The closure is dropped before the count goes
/// down.
pub(super) struct Counted<F> {
    pub(super) f: F,
    pub(super) done: Done,
}

impl<F: FnOnce()> Counted<F> {
    pub(super) fn call(self) {
        let Self { f, done } = self;
        f();
        drop(done);
    }
}

/// Counts down when it is dropped.
pub(super) struct Done(pub(super) Arc<CountLatch>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.done();
    }
}
