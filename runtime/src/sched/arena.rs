//! The records of all workers, named by index.
//!
//! Records are in chunks, each twice as large as the one before. Chunks are never freed or moved
//! while the runtime lives, so any thread may look at a record at any time, and a provider's
//! pointer to a task stays valid. A record is used again after its worker has left.

use std::{
    fmt, ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicPtr, AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
};

use super::{worker::Worker, worker_list::Links};
use crate::sync;

/// The number of records in the first chunk. Chunk `n` has this many times 2^n.
const FIRST: u32 = 64;

/// Enough chunks for 2^31 records.
const CHUNKS: usize = 26;

/// See the module page.
pub(super) struct Arena {
    /// Entry `n` is null, or the first of `FIRST << n` records, made by [`take`](Self::take).
    chunks: [AtomicPtr<Worker>; CHUNKS],
    /// How many records there are: indices below this are valid.
    len: AtomicU32,
    /// The indices of records without a worker. Locked by the worker spawner, and by workers that
    /// have unregistered: never by a thread that a server schedules, which could be switched away
    /// with the lock held.
    free: Mutex<Vec<u32>>,
}

/// The chunk of a record, and its place in the chunk.
fn locate(index: u32) -> (usize, usize) {
    let chunk = (index / FIRST + 1).ilog2();
    let base = FIRST * ((1 << chunk) - 1);
    (chunk as usize, (index - base) as usize)
}

impl Arena {
    pub(super) fn new() -> Self {
        Self {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS],
            len: AtomicU32::new(0),
            free: Mutex::new(Vec::new()),
        }
    }

    /// A record for a new worker, which the caller owns.
    pub(super) fn take(&self) -> &Worker {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = free.pop() {
            return self.get(index);
        }
        // Acquire: pairs with the Release store below. Both are under the lock.
        let index = self.len.load(Acquire);
        let (chunk, place) = locate(index);
        if place == 0 {
            let records: Box<[Worker]> =
                (index..index + (FIRST << chunk)).map(Worker::new).collect();
            let first = Box::into_raw(records).cast::<Worker>();
            // A list event carries the address of a worker's first field. The server that drains it
            // makes a reference to the whole record from it, under this provenance.
            let _ = first.expose_provenance();
            // Release: pairs with the Acquire in `get`.
            self.chunks[chunk].store(first, Release);
        }
        // Release: a thread that sees the length sees the chunk; pairs with the Acquire in `iter`.
        self.len.store(index + 1, Release);
        self.get(index)
    }

    /// Gives a record back whose thread is no worker any more.
    pub(super) fn put(&self, index: u32) {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(index);
    }

    /// The record with this index.
    ///
    /// # Panics
    /// If [`take`](Self::take) has never returned it.
    pub(super) fn get(&self, index: u32) -> &Worker {
        let (chunk, place) = locate(index);
        // Acquire: pairs with the Release in `take`.
        let first = self.chunks[chunk].load(Acquire);
        assert!(!first.is_null(), "worker {index} does not exist");
        // SAFETY: a chunk has `FIRST << chunk` records, `place` is below that, and chunks live
        // as long as the arena.
        unsafe { &*first.add(place) }
    }

    /// All records, those without a worker included.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Worker> {
        // Acquire: pairs with the Release in `take`.
        (0..self.len.load(Acquire)).map(|index| self.get(index))
    }
}

impl Links for Arena {
    fn link(&self, index: u32) -> &sync::AtomicU32 {
        self.get(index).link()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (chunk, first) in self.chunks.iter_mut().enumerate() {
            let first = *first.get_mut();
            if !first.is_null() {
                let records = ptr::slice_from_raw_parts_mut(first, (FIRST << chunk) as usize);
                // SAFETY: made by `Box::into_raw` with this length in `take`, freed once.
                drop(unsafe { Box::from_raw(records) });
            }
        }
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("len", &self.len.load(Acquire))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_fill_the_chunks_without_gaps() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(63), (0, 63));
        assert_eq!(locate(64), (1, 0));
        assert_eq!(locate(191), (1, 127));
        assert_eq!(locate(192), (2, 0));
        let (chunk, place) = locate(i32::MAX as u32);
        assert!(chunk < CHUNKS && place < (FIRST << chunk) as usize);
    }

    #[test]
    fn records_keep_their_index_and_are_used_again() {
        let arena = Arena::new();
        let addresses: Vec<_> = (0..200)
            .map(|index| {
                let worker = arena.take();
                assert_eq!(worker.index(), index);
                ptr::from_ref(worker)
            })
            .collect();
        arena.put(7);
        assert_eq!(arena.take().index(), 7);
        assert_eq!(arena.take().index(), 200);
        for (index, address) in addresses.into_iter().enumerate() {
            assert!(ptr::eq(arena.get(index as u32), address));
        }
    }
}
