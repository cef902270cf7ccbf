//! The memory of the records, and the table that leads from a thread id to a record.

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use super::{
    packed::{Index, MAX_RECORDS},
    record::Record,
};

/// How many records are allocated at once: 256 of them take about 100 KiB.
const CHUNK: u32 = 256;

/// One more than the largest thread id on 64-bit Linux (`PID_MAX_LIMIT`).
const MAX_TID: usize = 1 << 22;

/// The arena, and the table of thread ids.
///
/// Chunks of records are made on demand and live as long as the process (trace A11), so a reference
/// to a record is valid at any later time. Look-ups are lock-free.
pub(crate) struct Memory {
    /// By record index divided by [`CHUNK`]. A chunk is there before an index in it is given out.
    chunks: [OnceLock<Box<[Record]>>; (MAX_RECORDS / CHUNK) as usize],
    /// The record index of each thread id, 0 for none. 16 MiB of address space; a page of memory is
    /// used for each 1024 thread ids that are in use.
    tids: OnceLock<TidTable>,
    /// The records that are not in use. Locked only to register and to unregister.
    free: Mutex<Free>,
}

struct Free {
    /// Indices that were given back. Its capacity suffices for all that were ever given out.
    list: Vec<Index>,
    /// The first index that was never given out; at least 1.
    next: Index,
}

/// [`MAX_TID`] words in a mapping that is never unmapped.
struct TidTable(*mut AtomicU32);

// SAFETY: a table of atomics that is never unmapped.
unsafe impl Send for TidTable {}
// SAFETY: as above.
unsafe impl Sync for TidTable {}

impl Memory {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; (MAX_RECORDS / CHUNK) as usize],
            tids: OnceLock::new(),
            free: Mutex::new(Free {
                list: Vec::new(),
                next: 1,
            }),
        }
    }

    pub(crate) fn record(&self, index: Index) -> &Record {
        let chunk = self.chunks[(index / CHUNK) as usize]
            .get()
            .expect("an index is given out after its chunk was made");
        &chunk[(index % CHUNK) as usize]
    }

    /// Makes sure that the table of thread ids is mapped. False: there is no memory for it.
    pub(crate) fn map_tids(&self) -> bool {
        if self.tids.get().is_some() {
            return true;
        }
        // SAFETY: a new private anonymous mapping.
        let table = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                MAX_TID * size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if table == libc::MAP_FAILED {
            return false;
        }
        if self.tids.set(TidTable(table.cast())).is_err() {
            // SAFETY: our own mapping; another thread has installed another one.
            unsafe { libc::munmap(table, MAX_TID * size_of::<AtomicU32>()) };
        }
        true
    }

    fn tid_word(&self, tid: u32) -> Option<&AtomicU32> {
        let table = self.tids.get()?;
        // SAFETY: in bounds; the mapping is zero-initialised and never unmapped.
        ((tid as usize) < MAX_TID).then(|| unsafe { &*table.0.add(tid as usize) })
    }

    /// The record of a thread id, 0 for none.
    pub(crate) fn index_of(&self, tid: u32) -> Index {
        self.tid_word(tid)
            // Acquire: pairs with the Release in `bind`, after the record was filled in.
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Makes `index`, or 0 for none, the record of a thread id.
    pub(crate) fn bind(&self, tid: u32, index: Index) {
        if let Some(word) = self.tid_word(tid) {
            word.store(index, Ordering::Release);
        }
    }

    /// Takes a record off the free list. `None`: all are in use.
    pub(crate) fn take(&self) -> Option<Index> {
        let mut free = self
            .free
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        if let Some(index) = free.list.pop() {
            return Some(index);
        }
        let index = free.next;
        if index == MAX_RECORDS {
            return None;
        }
        self.chunks[(index / CHUNK) as usize]
            .get_or_init(|| (0..CHUNK).map(|_| Record::new()).collect());
        // Reserved now, so that giving the index back never allocates.
        let have = free.list.len();
        free.list.reserve(index as usize - have);
        free.next = index + 1;
        Some(index)
    }

    /// Puts a record on the free list.
    pub(crate) fn give_back(&self, index: Index) {
        self.free
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
            .list
            .push(index);
    }

    /// One more than the largest index that was ever given out.
    pub(crate) fn end(&self) -> Index {
        self.free
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
            .next
    }
}
