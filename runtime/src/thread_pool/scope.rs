//! Jobs of a pool that borrow.

use std::{
    any::Any,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::pool::Pool;
use crate::{task::discard, wait::CountLatch};

/// Makes jobs that borrow what outlives `'scope`; see
/// [`ThreadPool::scope`](super::ThreadPool::scope).
pub struct Scope<'scope> {
    pool: Arc<Pool>,
    data: Arc<ScopeData>,
    /// Invariant: a body must not be able to shrink the lifetime it spawns for.
    scope: PhantomData<&'scope mut &'scope ()>,
}

#[derive(Default)]
struct ScopeData {
    /// Jobs that are not done.
    jobs: Arc<CountLatch>,
    /// The payload of the first panic of a job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Jobs that were spawned, and those of them that were called. They differ at the end if
    /// the runtime dropped one. Relaxed: ordered by the latch.
    spawned: AtomicUsize,
    called: AtomicUsize,
}

/// Calls `op` with a scope, in a job of `pool`, and waits for its jobs.
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
    // Whatever happened: nothing that was borrowed may be used by its owner before this.
    let paused = (data.jobs.count() != 0).then(|| pool.pause());
    data.jobs.wait();
    drop(paused);
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(value) => {
            let panic = data.panic.lock().take();
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
    /// Runs `body` as a job of the pool, before the scope ends. It gets the scope, to spawn
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
        // SAFETY: what the job borrows outlives 'scope, and the scope does not end before the
        // latch is 0, which falls after the body was called, or dropped uncalled.
        unsafe { self.pool.execute_unchecked(Box::new(move || job.call())) };
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

/// A closure that is counted until it is gone. Fields drop in this order.
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
