//! The suspended tasks of a runtime, so that a shutdown finds them.

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

/// The wakers of the futures that have suspended at least once and are not done.
pub(crate) struct OwnedTasks {
    /// At least one; the number is a power of two. The shard of a task follows from the block of
    /// its id, so that the tasks that a thread spawns stay on one shard for a while and threads
    /// seldom contend. A lock is held for a few instructions, never while a waker is called.
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    /// Set by `close`, before it calls the first waker. A waker whose task is scheduled already
    /// does nothing; the poll that follows looks here.
    closed: AtomicBool,
}

struct Shard {
    /// The shard takes no more entries, and has none.
    closed: bool,
    wakers: Slab<Waker>,
}

/// The place of a task's waker in its shard, plus one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnedKey(NonZeroU32);

impl OwnedTasks {
    /// A registry for a runtime with that many servers.
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

    /// Whether a task that is about to suspend again has to cancel itself instead.
    pub(super) fn is_closed(&self) -> bool {
        // Relaxed: `close` sets this before it wakes the task. If the wake came before this poll
        // began, the worker that began it read the task's state after the wake. A later wake has
        // the task polled again.
        self.closed.load(Relaxed)
    }

    /// Enters the waker of a task. `None`: the registry is closed, and the task has to cancel
    /// itself.
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

    /// Removes a task that is done, unless `close` has.
    pub(super) fn remove(&self, id: Id, key: OwnedKey) {
        let place = key.0.get() as usize - 1;
        // Dropped after the lock is released: the last reference to a task frees it.
        let _removed = self.shard(id).lock().wakers.try_remove(place);
    }

    fn shard(&self, id: Id) -> &Mutex<Shard> {
        &self.shards[(id.get() / BLOCK) as usize & (self.shards.len() - 1)]
    }

    /// The number of tasks that have suspended at least once and are not done.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().wakers.len()).sum()
    }

    /// Wakes all suspended tasks, and takes no more. A task that would suspend from now on cancels
    /// itself instead, also if it was suspended before. The scheduler calls this when it no longer
    /// begins tasks.
    ///
    /// May be called more than once. Calls wakers, and so
    /// [`Schedule::schedule`](super::Schedule::schedule), on this thread, with no lock held.
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
