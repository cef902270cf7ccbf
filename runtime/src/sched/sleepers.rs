//! Workers that sleep in their slots.
//!
//! *Problem.* A worker that is about to sleep in a call, while nobody else would run, has no use
//! for its slot. To give the slot to the server would cost two switches, for a server that has
//! nothing to do. But whoever queues work afterwards must not wait until the provider has noticed
//! the sleep: on a CPU that other threads keep busy that takes the monitor some 200 us. (On an idle
//! CPU the sentinel frees the slot within a few microseconds.)
//!
//! *Mechanism.* The worker keeps its slot, and leaves its tid in the word of its server
//! ([`enter`](Sleepers::enter)). Whoever queues work takes the tid from the word
//! ([`retake`](Sleepers::retake)) and takes the slot away from that worker, as a judge would
//! (`Provider::retake`). If the worker wakes up first, it removes its tid
//! ([`leave`](Sleepers::leave)) and goes on in its slot, and nothing has been switched.
//!
//! *Why nothing is missed.* The worker stores its tid, passes a SeqCst fence, and looks at all
//! queues once more before it sleeps. Whoever queues work passes a SeqCst fence before the look at
//! the words. So one of them sees the other; `models/sleepers.rs` checks it.
//!
//! *A tid that is out of date* does no harm: the worker does not hold this slot any more, and
//! `retake` of the provider says so; or it runs in the slot, and is judged wrongly.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// See the module page.
pub(super) struct Sleepers {
    /// How many of the words below are not 0, or a little more for a moment.
    count: CachePadded<AtomicU32>,
    /// For each server the tid of the worker that sleeps in its slot; 0: none.
    tids: Box<[CachePadded<AtomicU32>]>,
}

impl Sleepers {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            count: CachePadded::new(AtomicU32::new(0)),
            tids: (0..servers)
                .map(|_| CachePadded::new(AtomicU32::new(0)))
                .collect(),
        }
    }

    /// The worker `tid`, which holds the slot of `server`, is about to sleep. It looks at all
    /// queues after this, and sleeps only if they are empty.
    pub(super) fn enter(&self, server: usize, tid: u32) {
        // The count before the word, so that it is never too low.
        self.count.fetch_add(1, SeqCst);
        // A worker that has lost its slot may have left its tid.
        if self.tids[server].swap(tid, SeqCst) != 0 {
            self.count.fetch_sub(1, SeqCst);
        }
        // Pairs with the fence that a pusher passes between its push and `retake`.
        fence(SeqCst);
    }

    /// The worker is awake again.
    pub(super) fn leave(&self, server: usize, tid: u32) {
        // Relaxed: if somebody has taken the tid, a verdict is on its way, and the worker notices
        // it as it would any other.
        if self.tids[server]
            .compare_exchange(tid, 0, SeqCst, Relaxed)
            .is_ok()
        {
            self.count.fetch_sub(1, SeqCst);
        }
    }

    /// For whoever has queued work for `server` and passed a SeqCst fence: the worker whose slot
    /// the caller has to retake. Nobody else gets it.
    pub(super) fn retake(&self, server: usize) -> Option<u32> {
        let word = &self.tids[server];
        // Relaxed: the caller's fence comes before this load; see the module page.
        if word.load(Relaxed) == 0 {
            return None;
        }
        let tid = word.swap(0, SeqCst);
        (tid != 0).then(|| {
            self.count.fetch_sub(1, SeqCst);
            tid
        })
    }

    /// Whether a worker may sleep in its slot. For whoever has passed a SeqCst fence.
    pub(super) fn any(&self) -> bool {
        // Relaxed: as in `retake`.
        self.count.load(Relaxed) != 0
    }

    /// Whether a worker sleeps in the slot of `server`. For whoever has passed a SeqCst fence.
    pub(super) fn is_asleep(&self, server: usize) -> bool {
        // Relaxed: as in `retake`.
        self.tids[server].load(Relaxed) != 0
    }
}

impl fmt::Debug for Sleepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleepers")
            .field("count", &self.count.load(Relaxed))
            .finish_non_exhaustive()
    }
}
