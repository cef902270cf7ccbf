//! Task ids.

use std::{
    cell::Cell,
    fmt,
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The id of a task. Unique in the process, and never reused.
///
/// The order of ids says nothing about the order in which tasks were spawned.
///
/// See [`JoinHandle::id`](crate::JoinHandle::id) and [`task::id`](crate::task::id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(NonZeroU64);

/// Threads get ids in blocks of this many, so that threads that spawn do not contend for one
/// counter.
pub(super) const BLOCK: u64 = 128;

/// The first id of the next block.
static NEXT_BLOCK: AtomicU64 = AtomicU64::new(BLOCK);

thread_local! {
    /// The next id of this thread's block. At a multiple of [`BLOCK`] the block is used up.
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

impl Id {
    /// An id that no other task has.
    pub(crate) fn next() -> Self {
        let id = NEXT
            .try_with(|next| {
                let mut id = next.get();
                if id % BLOCK == 0 {
                    id = Self::block();
                }
                next.set(id + 1);
                id
            })
            // The thread is ending: a block for this one id.
            .unwrap_or_else(|_| Self::block());
        Self(NonZeroU64::new(id).expect("ids start at one block"))
    }

    fn block() -> u64 {
        // Relaxed: only uniqueness matters.
        NEXT_BLOCK.fetch_add(BLOCK, Relaxed)
    }

    /// The id as a number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_of_many_threads_are_distinct() {
        let ids: Vec<Id> = std::thread::scope(|scope| {
            (0..4)
                .map(|_| scope.spawn(|| (0..1_000).map(|_| Id::next()).collect::<Vec<_>>()))
                .collect::<Vec<_>>()
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
