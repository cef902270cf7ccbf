//! The memory of the records, and the table that leads from a thread id to a record.

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use super::{
    packed::{Index, MAX_RECORDS},
    record::Record,
};

/// Records in a chunk: 256 records are about 100 KiB.
const CHUNK: u32 = 256;

/// One more than the largest thread id on 64-bit Linux (`PID_MAX_LIMIT`).
const MAX_TID: usize = 1 << 22;

/// Chunks are made on demand and live as long as the process (trace A11).
pub(crate) struct Memory {
    chunks: [OnceLock<Box<[Record]>>; (MAX_RECORDS / CHUNK) as usize],
    /// Record index by thread id, 0 = none: 16 MiB of address space, of which a page is
    /// touched for each 1024 thread ids in use.
    tids: OnceLock<TidTable>,
    free: Mutex<Free>,
}

struct Free {
    list: Vec<Index>,
    /// The first index that was never used. 0 is never used.
    next: Index,
}

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

    /// Maps the table of thread ids. False: no memory.
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
            // SAFETY: ours, and somebody else's was installed instead.
            unsafe { libc::munmap(table, MAX_TID * size_of::<AtomicU32>()) };
        }
        true
    }

    fn tid_word(&self, tid: u32) -> Option<&AtomicU32> {
        let table = self.tids.get()?;
        // SAFETY: in bounds, zero-initialised, never unmapped.
        ((tid as usize) < MAX_TID).then(|| unsafe { &*table.0.add(tid as usize) })
    }

    pub(crate) fn index_of(&self, tid: u32) -> Index {
        self.tid_word(tid)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(crate) fn bind(&self, tid: u32, index: Index) {
        if let Some(word) = self.tid_word(tid) {
            word.store(index, Ordering::Release);
        }
    }

    /// A free record's index; `None` when all are in use.
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
        // Room for the way back now, so that giving it back never allocates.
        let have = free.list.len();
        free.list.reserve(index as usize - have);
        free.next = index + 1;
        Some(index)
    }

    pub(crate) fn give_back(&self, index: Index) {
        self.free
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
            .list
            .push(index);
    }

    /// One more than the largest index ever given out.
    pub(crate) fn end(&self) -> Index {
        self.free
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
            .next
    }
}
