//! The suspended tasks of a runtime, so that shutdown finds them.

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Waker,
};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use slab::Slab;

use super::id::{BLOCK, Id};

/// Wakers of the futures that suspended at least once and are not done.
pub(crate) struct OwnedTasks {
    /// At least one. A task's shard follows from the block of its id, so that a thread's spawns
    /// stay on one shard for a while and threads seldom meet. Held for a few instructions, never
    /// while a waker is called.
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Set before the first waker is called by `close`. One that finds its task SCHEDULED does
    /// nothing, and the poll that comes then looks here.
    closed: AtomicBool,
}

struct Shard {
    /// No entry is taken any more, and none is left.
    closed: bool,
    wakers: Slab<Waker>,
}

/// Where in its shard a task's waker is, plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnedKey(NonZeroU32);

impl OwnedTasks {
    /// For a runtime with that many servers.
    pub(crate) fn new(servers: usize) -> Self {
        Self {
            shards: (0..(4 * servers).next_power_of_two())
                .map(|_| {
                    CachePadded::new(Mutex::new(Shard {
                        closed: false,
                        wakers: Slab::new(),
                    }))
                })
                .collect(),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether a task that is about to suspend once more is to cancel itself instead.
    pub(super) fn is_closed(&self) -> bool {
        // Relaxed: set before the wake, whose change of the task's state is read by the one that
        // begins the poll. A wake that comes later has the task polled again.
        self.closed.load(Relaxed)
    }

    /// Enters a task's waker. `None`: closed, the task is to cancel itself.
    pub(super) fn insert(&self, id: Id, waker: &Waker) -> Option<OwnedKey> {
        let waker = waker.clone();
        let mut shard = self.shard(id).lock();
        if shard.closed {
            drop(shard);
            return None;
        }
        let place = shard.wakers.insert(waker) + 1;
        let place = u32::try_from(place).expect("fewer than 2^32 suspended tasks a shard");
        NonZeroU32::new(place).map(OwnedKey)
    }

    /// Removes a task that is done, if `close` did not already.
    pub(super) fn remove(&self, id: Id, key: OwnedKey) {
        let place = key.0.get() as usize - 1;
        // Dropped after the lock: the last reference to a task frees it.
        let _removed = self.shard(id).lock().wakers.try_remove(place);
    }

    fn shard(&self, id: Id) -> &Mutex<Shard> {
        &self.shards[(id.get() / BLOCK) as usize & (self.shards.len() - 1)]
    }

    /// How many tasks are suspended, or ran again after they had been.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().wakers.len()).sum()
    }

    /// Wakes all suspended tasks and takes no more: a task that suspends from now on cancels
    /// itself instead, also if it was suspended before. The scheduler calls this once it begins
    /// nothing any more.
    ///
    /// Idempotent. Calls wakers, hence [`Schedule::schedule`](super::Schedule::schedule), on
    /// this thread; no lock is held then.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
        for shard in &self.shards {
            let wakers = {
                let mut shard = shard.lock();
                shard.closed = true;
                std::mem::take(&mut shard.wakers)
            };
            for (_, waker) in wakers {
                waker.wake();
            }
        }
    }
}

impl fmt::Debug for OwnedTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedTasks")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
