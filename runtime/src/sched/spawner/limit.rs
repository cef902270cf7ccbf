//! How many workers there may be.

use std::fmt;

use crate::sync::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// So many workers may be added beyond `max_workers` while others wait in the runtime's own
/// waits (trace A12). Not infinite, so that a runaway recursion of joins ends in an event and a
/// wait instead of in the machine's last thread.
const MAX_BEYOND: usize = 32_768;

/// The workers that there are, against those that there may be.
pub(in crate::sched) struct WorkerLimit {
    /// `max_workers` of the builder.
    max: usize,
    /// Workers that exist or are being made.
    total: AtomicUsize,
    /// Those that sleep in the runtime's own waits: they do not count.
    in_managed_blocking: AtomicUsize,
    /// Somebody was refused; whoever makes room takes this, and says so.
    refused: AtomicBool,
}

/// What came of asking for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sched) enum Place {
    /// It was had; with it there are so many workers.
    Taken(usize),
    /// There is none. `first`: the first refusal since room was made last.
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

    /// Whether another worker would be allowed.
    pub(in crate::sched) fn has_room(&self) -> bool {
        self.room_beside(self.total.load(SeqCst))
    }

    /// Whether there are more workers than `max`: those that were added while others waited
    /// leave when they have nothing to do.
    pub(in crate::sched) fn is_exceeded(&self) -> bool {
        self.total.load(Relaxed) > self.max
    }

    fn room_beside(&self, total: usize) -> bool {
        total.saturating_sub(self.in_managed_blocking.load(SeqCst)) < self.max
            && total < self.max.saturating_add(MAX_BEYOND)
    }

    /// Takes a place for a worker. Who is refused is told of room as soon as there is some.
    pub(in crate::sched) fn reserve(&self) -> Place {
        if let Some(total) = self.try_reserve() {
            return Place::Taken(total);
        }
        let first = !self.refused.swap(true, SeqCst);
        // The flag, then the look; pairs with the fence in `made_room`: either we see the room,
        // or the flag is seen.
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

    /// A worker is gone, or was not made. True: somebody was refused and is to be told.
    #[must_use]
    pub(in crate::sched) fn release(&self) -> bool {
        self.total.fetch_sub(1, SeqCst);
        self.made_room()
    }

    /// A worker begins one of the runtime's own waits. True: as in [`release`](Self::release).
    #[must_use]
    pub(in crate::sched) fn begin_managed_blocking(&self) -> bool {
        self.in_managed_blocking.fetch_add(1, SeqCst);
        self.made_room()
    }

    pub(in crate::sched) fn end_managed_blocking(&self) {
        self.in_managed_blocking.fetch_sub(1, SeqCst);
    }

    fn made_room(&self) -> bool {
        // The room, then the look at the flag; see `reserve`.
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

#[cfg(all(test, not(loom)))]
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

#[cfg(all(test, loom))]
mod model {
    use loom::{sync::Arc, thread};

    use super::*;

    /// A maker that is refused while a worker makes room gets the place, or is told.
    #[test]
    fn room_is_seen_or_said() {
        loom::model(|| {
            let limit = Arc::new(WorkerLimit::new(1));
            assert_eq!(limit.reserve(), Place::Taken(1));
            let worker = {
                let limit = Arc::clone(&limit);
                thread::spawn(move || limit.begin_managed_blocking())
            };
            let place = limit.reserve();
            let told = worker.join().unwrap();
            assert!(
                told || matches!(place, Place::Taken(2)),
                "refused, and nobody says that there is room now"
            );
        });
    }
}
