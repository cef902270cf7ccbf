//! Whether a runtime goes on, and which of its threads are still there.
//!
//! The steps of a shutdown are numbered at the head of `shutdown.rs`. This directory's README,
//! section 6, has the argument for the orderings here.

use std::fmt;

use crate::{
    sync::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
    wait::Parker,
};

/// The runtime takes tasks and runs them.
const RUNNING: u32 = 0;
/// The runtime takes no more tasks. A worker leaves as soon as it has nothing on its stack.
const STOPPING: u32 = 1;
/// As [`STOPPING`], and all suspended tasks have been woken. What is queued is being dropped, or has
/// been: a pusher cannot rely on the first sweep any more.
const SWEEPING: u32 = 2;
/// As [`SWEEPING`], and servers leave at once, whatever their workers do.
const ABANDONED: u32 = 3;

/// The phase of a runtime, and the number of its threads.
pub(super) struct Lifecycle {
    /// [`RUNNING`], [`STOPPING`], [`SWEEPING`] or [`ABANDONED`]; only ever raised.
    ///
    /// The thread that raises the phase wakes all servers afterwards. A wake-up is lost on a server
    /// that is awake, so a server looks at the phase between `begin_drain` and `wait`. A thread that
    /// makes a server's number of workers smaller looks at the phase afterwards, and wakes the
    /// server if the runtime is stopping. Each of the three has a SeqCst fence between its two
    /// steps.
    ///
    /// A pusher looks at the phase after each push, and a sweep looks at the queues after
    /// [`SWEEPING`] was stored, both with a SeqCst fence in between.
    phase: AtomicU32,
    /// Threads of the runtime that have not come to their end. Each is counted before it is made.
    threads: AtomicUsize,
    /// Of the one thread that waits until no thread is left; unparked when `threads` becomes 0.
    waiter: Parker,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self {
            phase: AtomicU32::new(RUNNING),
            threads: AtomicUsize::new(0),
            waiter: Parker::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.phase.load(SeqCst) != RUNNING
    }

    /// Whether the first sweep has begun, and so may be over.
    pub(super) fn is_sweeping(&self) -> bool {
        self.phase.load(SeqCst) >= SWEEPING
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.phase.load(SeqCst) == ABANDONED
    }

    /// The caller wakes all servers afterwards.
    pub(super) fn stop(&self) {
        self.phase.fetch_max(STOPPING, SeqCst);
        // Between the phase and the wake-ups; pairs with the fence in `drain`, between `begin_drain`
        // and the look at the phase, and with the one in `lose_worker`.
        fence(SeqCst);
    }

    /// From here on a sweep may drop what is queued. The caller has queued all suspended tasks, and
    /// has a thread sweep afterwards.
    pub(super) fn begin_sweep(&self) {
        self.phase.fetch_max(SWEEPING, SeqCst);
        // Between the phase and the sweep's look at the queues; pairs with the fence in `schedule`,
        // between the push and the look at the phase.
        fence(SeqCst);
    }

    /// The caller wakes all servers afterwards.
    pub(super) fn abandon(&self) {
        self.phase.fetch_max(ABANDONED, SeqCst);
        // As in `stop`.
        fence(SeqCst);
    }

    /// Counts a thread that is about to be made.
    pub(super) fn add_thread(&self) {
        // Relaxed: the caller is counted itself, or holds the `Runtime` and waits afterwards, or is
        // a late push, which may come after the wait is over.
        self.threads.fetch_add(1, Relaxed);
    }

    /// The last thing that a thread of the runtime does, or the thread that failed to make it.
    pub(super) fn remove_thread(&self) {
        // Release: what the thread did comes before the end of the wait; pairs with the Acquire in
        // `threads`.
        if self.threads.fetch_sub(1, Release) == 1 {
            self.waiter.unpark();
        }
    }

    /// How many threads are left.
    pub(super) fn threads(&self) -> usize {
        // Acquire: pairs with the Release in `remove_thread`.
        self.threads.load(Acquire)
    }

    /// Where the thread that shuts the runtime down sleeps until [`threads`](Self::threads) is 0.
    /// A token may be left from an earlier time at which it was 0.
    pub(super) fn waiter(&self) -> &Parker {
        &self.waiter
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase.load(Relaxed) {
            RUNNING => "Running",
            STOPPING => "Stopping",
            SWEEPING => "Sweeping",
            _ => "Abandoned",
        };
        f.debug_struct("Lifecycle")
            .field("phase", &phase)
            .field("threads", &self.threads.load(Relaxed))
            .finish_non_exhaustive()
    }
}
