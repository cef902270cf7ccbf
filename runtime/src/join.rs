//! Fork and join of two closures.

use std::{
    cell::UnsafeCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
};

use crate::{
    panic::discard,
    sched::{Shared, context},
    task::{Origin, spawn_closure_unchecked},
    thread,
    wait::{ManagedWait, Parker},
};

/// Runs two closures, in parallel if a CPU is free, and returns both results.
///
/// This is `rayon::join`. `a` runs on the calling thread. `b` is queued; if no worker has begun it
/// by the time `a` is done, it is taken back and runs on the calling thread as well. Nothing else
/// ever runs on this stack: a thread that has to wait for `b` sleeps, and its server runs other
/// tasks meanwhile. (To wait for a task is [`JoinHandle::join`](crate::JoinHandle::join).)
///
/// # Panics
///
/// * Outside of a runtime.
/// * With the panic of `a`, or else of `b`, when neither is running any more.
///
/// # Examples
///
/// ```
/// fn sum(numbers: &[u64]) -> u64 {
///     if numbers.len() < 1024 {
///         return numbers.iter().sum();
///     }
///     let (left, right) = numbers.split_at(numbers.len() / 2);
///     let (left, right) = umcg::join(|| sum(left), || sum(right));
///     left + right
/// }
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let numbers: Vec<u64> = (1..=10_000).collect();
/// assert_eq!(sum(&numbers), 50_005_000);
/// # });
/// ```
#[track_caller]
pub fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    join_on(&context::expect_current("umcg::join"), a, b)
}

/// [`join`] on a given runtime.
pub(crate) fn join_on<A, B, RA, RB>(runtime: &Arc<Shared>, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    let slot = Arc::new(Slot {
        state: AtomicU32::new(QUEUED),
        caller: Parker::new(),
        job: UnsafeCell::new(Some(b)),
        result: UnsafeCell::new(None),
    });
    let theirs = Arc::clone(&slot);
    // SAFETY: the values that borrow, `b` and then its result, are in the slot. This function takes
    // the one or the other out of it before it returns, so a late worker and the queue hold an
    // empty slot. A panic of `a` is caught, and ends the same way.
    drop(unsafe { spawn_closure_unchecked(runtime, None, Origin::Fork, move || theirs.run()) });

    let ours = catch_unwind(AssertUnwindSafe(a));
    let theirs = match slot.claim() {
        Some(b) if ours.is_ok() => Some(catch_unwind(AssertUnwindSafe(b))),
        Some(b) => {
            discard(b);
            None
        }
        None => Some(slot.wait()),
    };
    match (ours, theirs) {
        (Ok(a), Some(Ok(b))) => (a, b),
        (Err(payload), theirs) => {
            discard(theirs);
            resume_unwind(payload)
        }
        (Ok(a), Some(Err(payload))) => {
            discard(a);
            resume_unwind(payload)
        }
        (Ok(_), None) => unreachable!("the job is dropped only when `a` panicked"),
    }
}

/// The job is there. It belongs to the thread that leaves this state.
const QUEUED: u32 = 0;
/// The job was taken, by the caller or by a worker.
const CLAIMED: u32 = 1;
/// A worker took the job, and its result is there for the caller of [`join`].
const DONE: u32 = 2;

/// The second closure, between the caller and the worker that may take it.
struct Slot<B, RB> {
    /// QUEUED -> CLAIMED by the worker or the caller, CLAIMED -> DONE by the worker.
    state: AtomicU32,
    /// Where the caller waits for the worker. Unparked after DONE.
    caller: Parker,
    /// Touched once, by the thread that left QUEUED.
    job: UnsafeCell<Option<B>>,
    /// Written by the worker between CLAIMED and DONE, taken by the caller after.
    result: UnsafeCell<Option<thread::Result<RB>>>,
}

// SAFETY: `state` says which thread may touch the cells, as their comments explain. The values move
// from one thread to another, hence Send.
unsafe impl<B: Send, RB: Send> Sync for Slot<B, RB> {}

impl<B, RB> Slot<B, RB>
where
    B: FnOnce() -> RB,
{
    /// Takes the job, unless the other side did.
    fn claim(&self) -> Option<B> {
        // Relaxed would do: one side succeeds, and the job was written before the slot was shared.
        // AcqRel costs nothing more here.
        self.state
            .compare_exchange(QUEUED, CLAIMED, AcqRel, Acquire)
            .ok()?;
        // SAFETY: QUEUED was left by this thread, so the job is this thread's.
        let job = unsafe { (*self.job.get()).take() };
        Some(job.expect("the job is there in QUEUED"))
    }

    /// The worker's side.
    fn run(&self) {
        if let Some(job) = self.claim() {
            let result = catch_unwind(AssertUnwindSafe(job));
            // SAFETY: claimed by the worker, so the result is the worker's until DONE.
            unsafe { *self.result.get() = Some(result) };
            // Release: makes the result visible; pairs with the Acquire in `wait`.
            self.state.store(DONE, Release);
            self.caller.unpark();
        }
    }

    /// The caller's side: waits for the worker that claimed the job.
    fn wait(&self) -> thread::Result<RB> {
        // Acquire: pairs with the Release in `run`.
        let waits = || self.state.load(Acquire) != DONE;
        if waits() {
            ManagedWait::begin().park_while(&self.caller, waits);
        }
        // SAFETY: DONE, so the result is the caller's.
        let result = unsafe { (*self.result.get()).take() };
        result.expect("the result is there in DONE")
    }
}

#[cfg(test)]
mod tests;
