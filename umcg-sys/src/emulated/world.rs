//! The arena of records, and the way from a thread id to a record.
//!
//! One per process, since thread ids are: several provider objects see each other's tasks. All
//! look-ups are lock-free; the lock is for registering and unregistering only.

use super::{
    record::{Record, life},
    words::Index,
};
use crate::{
    UmcgTask,
    sync::{SeqCst, fence},
};

#[cfg(not(loom))]
mod memory {
    use std::sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    use super::super::{
        record::Record,
        words::{Index, MAX_RECORDS},
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
}

#[cfg(loom)]
mod memory {
    use super::super::{place::Beds, record::Record, words::Index};
    use crate::sync::Relaxed;

    /// A handful of records, found by a walk.
    pub(crate) struct Memory {
        records: Vec<Record>,
        pub(super) beds: Beds,
    }

    impl Memory {
        pub(crate) fn new(records: usize) -> Self {
            Self {
                records: (0..=records).map(|_| Record::new()).collect(),
                beds: Beds::new(),
            }
        }

        pub(crate) fn record(&self, index: Index) -> &Record {
            &self.records[index as usize]
        }

        /// Thread ids are the indices in a model.
        pub(crate) fn index_of(&self, tid: u32) -> Index {
            let known = (tid as usize) < self.records.len()
                && self.records[tid as usize].tid.load(Relaxed) == tid;
            if known { tid } else { 0 }
        }

        pub(crate) fn bind(&self, _tid: u32, _index: Index) {}

        pub(crate) fn give_back(&self, _index: Index) {}

        pub(crate) fn end(&self) -> Index {
            self.records.len() as Index
        }
    }
}

/// All records of this process.
pub(crate) struct World {
    memory: memory::Memory,
}

#[cfg(not(loom))]
pub(crate) static WORLD: World = World {
    memory: memory::Memory::new(),
};

/// A record whose user memory may be touched while this lives.
pub(crate) struct Pin<'w> {
    record: &'w Record,
    index: Index,
}

impl Pin<'_> {
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    pub(crate) fn task(&self) -> &UmcgTask {
        // SAFETY: pinned while alive, see `World::pin`.
        unsafe { self.record.user() }
    }
}

impl core::ops::Deref for Pin<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.record
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        // Release: our uses of the user memory are before; pairs with the load in `close`.
        self.record.pins.fetch_sub(1, SeqCst);
    }
}

impl World {
    #[cfg(loom)]
    pub(crate) fn new(records: usize) -> Self {
        Self {
            memory: memory::Memory::new(records),
        }
    }

    #[cfg(loom)]
    pub(crate) fn beds(&self) -> &super::place::Beds {
        &self.memory.beds
    }

    pub(crate) fn record(&self, index: Index) -> &Record {
        self.memory.record(index)
    }

    /// Pins a record in one of the given lives. Lock-free. Not for sentinels.
    pub(crate) fn pin(&self, index: Index, role: u32) -> Option<Pin<'_>> {
        if index == 0 {
            return None;
        }
        let record = self.record(index);
        record.pins.fetch_add(1, SeqCst);
        let pin = Pin { record, index };
        // Pairs with the fence in `Record::close`.
        fence(SeqCst);
        // On failure the drop of `pin` takes the count back.
        (record.life.load(SeqCst) == role).then_some(pin)
    }

    /// The server with this thread id, pinned.
    pub(crate) fn server(&self, tid: u32) -> Option<Pin<'_>> {
        let pin = self.pin(self.memory.index_of(tid), life::SERVER)?;
        (pin.tid.load(SeqCst) == tid).then_some(pin)
    }

    /// The worker with this thread id, pinned.
    pub(crate) fn worker(&self, tid: u32) -> Option<Pin<'_>> {
        let pin = self.pin(self.memory.index_of(tid), life::WORKER)?;
        (pin.tid.load(SeqCst) == tid).then_some(pin)
    }

    /// A new record for a task of the calling thread. `None`: no room.
    #[cfg(not(loom))]
    pub(crate) fn open(&self, task: *mut UmcgTask, tid: u32, role: u32) -> Option<Index> {
        if !self.memory.map_tids() {
            return None;
        }
        let index = self.memory.take()?;
        self.record(index).open(task, tid, role);
        self.memory.bind(tid, index);
        Some(index)
    }

    /// Closes and frees a record. Returns when nobody uses the task's memory any more.
    pub(crate) fn close(&self, index: Index) {
        let record = self.record(index);
        self.memory.bind(record.tid.load(SeqCst), 0);
        record.close();
    }

    /// Puts a closed record on the free list.
    pub(crate) fn release(&self, index: Index) {
        let record = self.record(index);
        record.tid.store(0, SeqCst);
        record.life.store(life::FREE, SeqCst);
        self.memory.give_back(index);
    }

    /// All indices that may be in use.
    pub(crate) fn indices(&self) -> impl Iterator<Item = Index> {
        1..self.memory.end()
    }
}
