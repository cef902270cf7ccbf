//! The two words by which a worker hands its slot directly to another worker.
//!
//! This directory's README, section 7, tells the whole hand-off and says why each word is needed.

use std::fmt;

use crate::sync::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Who writes the `next_tid` of a worker: its server, which arms a spare there, or the worker
/// itself, which is about to hand its slot off.
///
/// A server may disarm a worker that it does not own. Without this word it would find the worker's
/// own choice in `next_tid`, and take that worker for the spare.
pub(in crate::sched) struct NextTidOwner(
    /// One of [`next_tid`].
    AtomicU32,
);

mod next_tid {
    /// `next_tid` names the spare that the server armed at the last dispatch, if any. Left by the
    /// worker, to WORKER, or by its server, to DISARMING.
    pub(in crate::sched) const SERVER: u32 = 0;
    /// `next_tid` names the worker's own choice, or is about to. Left by the worker.
    pub(in crate::sched) const WORKER: u32 = 1;
    /// The server is taking the spare back without owning the worker. Left by the server.
    pub(in crate::sched) const DISARMING: u32 = 2;
}

impl NextTidOwner {
    pub(in crate::sched) fn new() -> Self {
        Self(AtomicU32::new(next_tid::SERVER))
    }

    /// For the server of a worker that it does not own: calls `disarm`, unless the worker has
    /// claimed `next_tid` for a choice of its own. While `disarm` runs the worker cannot claim it.
    pub(in crate::sched) fn while_server_owns(&self, disarm: impl FnOnce()) {
        // AcqRel, here and in `claim`: the one that comes second sees what the other did before it
        // gave the word back.
        let claimed =
            self.0
                .compare_exchange(next_tid::SERVER, next_tid::DISARMING, AcqRel, Relaxed);
        if claimed.is_ok() {
            disarm();
            // Release: pairs with the Acquire in `claim`.
            self.0.store(next_tid::SERVER, Release);
        }
    }

    /// For the worker: from here on `next_tid` is its own. False: its server is disarming it.
    pub(in crate::sched) fn claim(&self) -> bool {
        self.0
            .compare_exchange(next_tid::SERVER, next_tid::WORKER, AcqRel, Relaxed)
            .is_ok()
    }

    /// For the worker, whose choice has been consumed or given up: its server may arm it again.
    pub(in crate::sched) fn give_back(&self) {
        // Only the worker leaves WORKER.
        if self.0.load(Relaxed) == next_tid::WORKER {
            // Release: pairs with the Acquire in `while_server_owns`.
            self.0.store(next_tid::SERVER, Release);
        }
    }
}

impl fmt::Debug for NextTidOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NextTidOwner")
            .field(&self.0.load(Relaxed))
            .finish()
    }
}

/// Who publishes a worker that gives its slot up: makes it visible in an inbox, or lets a parker
/// hold it.
///
/// A worker that gives its slot to its server publishes itself before `wait`. A worker that hands
/// its slot off leaves that to its successor, which runs only when this worker has left.
pub(in crate::sched) struct Publication(
    /// One of [`publication`], and above it the number of the sleep. As soon as the successor has
    /// published the worker, the worker may be resumed, run, and sleep again behind another
    /// successor, before the first successor has done its last step. The number makes that late
    /// step fail.
    AtomicU32,
);

mod publication {
    /// The worker runs, or is published.
    pub(in crate::sched) const NONE: u32 = 0;
    /// The worker's successor is to publish it. Entered by the worker, which owns itself until
    /// then. Left by the successor, to IN_PROGRESS, or by the worker itself if its server has gone.
    pub(in crate::sched) const PENDING: u32 = 1;
    /// The successor is publishing the worker. Left by the successor, or by the worker at its next
    /// sleep.
    pub(in crate::sched) const IN_PROGRESS: u32 = 2;

    /// The bits of the states above.
    pub(in crate::sched) const STATE: u32 = 3;
    /// The number 1 of a sleep.
    pub(in crate::sched) const SLEEP: u32 = 4;
}

/// The right of a successor to publish a worker for one of its sleeps, and its duty to say when
/// that is done, by [`Publication::end`].
#[must_use]
#[derive(Debug)]
pub(in crate::sched) struct Publishing(
    /// The word while this publication is in progress.
    u32,
);

impl Publication {
    pub(in crate::sched) fn new() -> Self {
        Self(AtomicU32::new(publication::NONE))
    }

    /// For the worker, before it gives its slot up: its successor is to publish it.
    pub(in crate::sched) fn request(&self) {
        let sleep = (self.0.load(Acquire) & !publication::STATE).wrapping_add(publication::SLEEP);
        // The successor looks at this after it was dispatched, which orders the two. A swap, and
        // not a store, so that the last step of an earlier successor comes before this or fails.
        self.0.swap(sleep | publication::PENDING, AcqRel);
    }

    /// For the worker whose switch failed: it keeps running, and there is no successor.
    pub(in crate::sched) fn withdraw(&self) {
        // Relaxed: the successor, which alone reads this, was not dispatched.
        let sleep = self.0.load(Relaxed) & !publication::STATE;
        self.0.store(sleep | publication::NONE, Relaxed);
    }

    /// For the successor. `Some`: it publishes the worker now. `None`: the worker lost its server,
    /// and runs.
    pub(in crate::sched) fn begin(&self) -> Option<Publishing> {
        // Relaxed: the dispatch of the successor came after the request, and orders it.
        let word = self.0.load(Relaxed);
        if word & publication::STATE != publication::PENDING {
            return None;
        }
        let in_progress = word & !publication::STATE | publication::IN_PROGRESS;
        // Acquire: pairs with the Release half of the swap in `request`.
        self.0
            .compare_exchange(word, in_progress, Acquire, Relaxed)
            .ok()
            .map(|_| Publishing(in_progress))
    }

    /// For the successor: the worker is published. It may be in its next sleep already.
    pub(in crate::sched) fn end(&self, publishing: Publishing) {
        let Publishing(in_progress) = publishing;
        let none = in_progress & !publication::STATE | publication::NONE;
        // Release: pairs with the Acquire in `retract`, after which the worker may free its parker.
        let _ = self.0.compare_exchange(in_progress, none, Release, Relaxed);
    }

    /// For the worker whose server has gone: when this returns, nobody publishes the worker any
    /// more. Calls `pause` while the successor is publishing it, which takes a few instructions.
    pub(in crate::sched) fn retract(&self, mut pause: impl FnMut()) {
        loop {
            // Acquire: pairs with the Release in `end`.
            let word = self.0.load(Acquire);
            let none = word & !publication::STATE | publication::NONE;
            match word & publication::STATE {
                publication::NONE => return,
                publication::PENDING => {
                    let retracted = self.0.compare_exchange(word, none, Acquire, Relaxed);
                    if retracted.is_ok() {
                        return;
                    }
                }
                _ => pause(),
            }
        }
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publication")
            .field(&self.0.load(Relaxed))
            .finish()
    }
}
