//! How many workers there may be.
//!
//! `max_workers` is a limit on workers that are not in managed blocking. A worker in managed
//! blocking (join, scope, park, nested `block_on`, pool join) may wait for a task that is still
//! queued. If it counted, the runtime could hang with all its workers waiting for tasks that no
//! worker is left to run (trace A12).
//!
//! The worker spawner reserves a place before it makes a worker. If it is refused it sets a flag
//! and tries once more. Whoever makes room (a worker ends, or begins managed blocking) looks at the
//! flag after that, and wakes the spawner. Each of the two has a fence between its two steps, so at
//! least one of them sees the other: no room is missed. `models/limit.rs` checks that.

use std::fmt;

use crate::sync::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// At most this many workers beyond `max_workers`, while others are in managed blocking (trace
/// A12). Bounded, so that runaway recursive joins stall and log instead of exhausting the machine's
/// threads.
const MAX_BEYOND: usize = 32_768;

/// The workers that there are, and the limit on them.
pub(in crate::sched) struct WorkerLimit {
    /// `max_workers` of the builder.
    max: usize,
    /// Workers that exist or are being made.
    total: AtomicUsize,
    /// How many of these are in managed blocking. They do not count against `max`.
    in_managed_blocking: AtomicUsize,
    /// A place was refused. Whoever makes room clears this and wakes the worker spawner.
    refused: AtomicBool,
}

/// The answer to a request for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sched) enum Place {
    /// The place is the caller's; with it there are this many workers.
    Taken(usize),
    /// There is no place. `first`: this is the first refusal since somebody last made room.
    Refused { first: bool },
}

impl WorkerLimit {
    pub(in crate::sched) fn new(max: usize) -> Self {
        Self {
            max,
            total: AtomicUsize::new(0),
            in_managed_blocking: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        }
    }

    pub(in crate::sched) const fn max(&self) -> usize {
        self.max
    }

    /// How many workers there are, those that are being made included.
    pub(in crate::sched) fn total(&self) -> usize {
        // Relaxed: a number for people.
        self.total.load(Relaxed)
    }

    /// Whether another worker would be allowed.
    pub(in crate::sched) fn has_room(&self) -> bool {
        self.room_beside(self.total.load(SeqCst))
    }

    /// Whether there are more workers than `max`. Those that were added while others were in
    /// managed blocking leave when they have nothing to do.
    pub(in crate::sched) fn is_exceeded(&self) -> bool {
        // Relaxed: a worker that misses this leaves later.
        self.total.load(Relaxed) > self.max
    }

    /// Whether one more worker is allowed beside `total` others.
    fn room_beside(&self, total: usize) -> bool {
        total.saturating_sub(self.in_managed_blocking.load(SeqCst)) < self.max
            && total < self.max.saturating_add(MAX_BEYOND)
    }

    /// Takes a place for a worker. A caller that is refused is notified when there is room again.
    pub(in crate::sched) fn reserve(&self) -> Place {
        if let Some(total) = self.try_reserve() {
            return Place::Taken(total);
        }
        let first = !self.refused.swap(true, SeqCst);
        // The flag comes before the second try; pairs with the fence in `made_room`. Either this
        // thread sees the room, or the thread that makes the room sees the flag.
        fence(SeqCst);
        match self.try_reserve() {
            Some(total) => Place::Taken(total),
            None => Place::Refused { first },
        }
    }

    fn try_reserve(&self) -> Option<usize> {
        let mut total = self.total.load(SeqCst);
        while self.room_beside(total) {
            match self
                .total
                .compare_exchange(total, total + 1, SeqCst, SeqCst)
            {
                Ok(_) => return Some(total + 1),
                Err(found) => total = found,
            }
        }
        None
    }

    /// A worker is gone, or was not made after all. True: a place was refused, and the caller wakes
    /// the worker spawner.
    #[must_use]
    pub(in crate::sched) fn release(&self) -> bool {
        self.total.fetch_sub(1, SeqCst);
        self.made_room()
    }

    /// A worker begins managed blocking. True: as in [`release`](Self::release).
    #[must_use]
    pub(in crate::sched) fn begin_managed_blocking(&self) -> bool {
        self.in_managed_blocking.fetch_add(1, SeqCst);
        self.made_room()
    }

    pub(in crate::sched) fn end_managed_blocking(&self) {
        self.in_managed_blocking.fetch_sub(1, SeqCst);
    }

    fn made_room(&self) -> bool {
        // The room comes before the look at the flag; pairs with the fence in `reserve`.
        fence(SeqCst);
        self.refused.load(Relaxed) && self.refused.swap(false, SeqCst)
    }
}

impl fmt::Debug for WorkerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLimit")
            .field("max", &self.max)
            .field("total", &self.total.load(Relaxed))
            .field(
                "in_managed_blocking",
                &self.in_managed_blocking.load(Relaxed),
            )
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_blocking_makes_room_and_its_end_leaves_a_surplus() {
        let limit = WorkerLimit::new(2);
        assert_eq!(limit.reserve(), Place::Taken(1));
        assert_eq!(limit.reserve(), Place::Taken(2));
        assert_eq!(limit.reserve(), Place::Refused { first: true });
        assert_eq!(limit.reserve(), Place::Refused { first: false });
        assert!(limit.begin_managed_blocking(), "somebody was refused");
        assert!(limit.has_room());
        assert_eq!(limit.reserve(), Place::Taken(3));
        limit.end_managed_blocking();
        assert!(limit.is_exceeded() && !limit.has_room());
        assert!(!limit.release(), "nobody was refused since");
        assert!(!limit.is_exceeded());
    }

    #[test]
    fn managed_blocking_makes_room_up_to_a_bound() {
        let limit = WorkerLimit::new(1);
        for _ in 0..=MAX_BEYOND {
            assert!(matches!(limit.reserve(), Place::Taken(_)));
            let _ = limit.begin_managed_blocking();
        }
        assert!(matches!(limit.reserve(), Place::Refused { .. }));
    }
}
