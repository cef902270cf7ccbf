//! The arena of records, and the way from a thread id to a record.
//!
//! One per process, since thread ids are: several provider objects see each other's tasks. All
//! look-ups are lock-free; the lock is for registering and unregistering only.

use core::marker::PhantomData;

use super::{
    helpers::cells::HelperCells,
    memory::Memory,
    packed::Index,
    record::{Record, status},
};
use crate::{
    UmcgTask,
    sync::{SeqCst, fence},
};

/// All records of this process.
pub(crate) struct Registry {
    memory: Memory,
    helpers: HelperCells,
}

#[cfg(not(loom))]
pub(crate) static REGISTRY: Registry = Registry::new(Memory::new(), HelperCells::new());

/// A record whose user memory may be touched while this lives.
pub(crate) struct RecordGuard<'w> {
    record: &'w Record,
    index: Index,
}

impl RecordGuard<'_> {
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    pub(crate) fn task(&self) -> &UmcgTask {
        // SAFETY: pinned while alive, see `Registry::guard`.
        unsafe { self.record.user() }
    }
}

impl core::ops::Deref for RecordGuard<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.record
    }
}

impl Drop for RecordGuard<'_> {
    fn drop(&mut self) {
        // Release: our uses of the user memory are before; pairs with the load in `close`.
        self.record.guards.fetch_sub(1, SeqCst);
    }
}

/// The task of the calling thread: whoever has this is the thread that registered it, and has not
/// unregistered it yet. So it may touch its own user memory without a guard.
pub(crate) struct OwnTask<'r> {
    record: &'r Record,
    index: Index,
    /// Of one thread: neither `Send` nor `Sync`.
    thread: PhantomData<*const ()>,
}

impl<'r> OwnTask<'r> {
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    pub(crate) fn task(&self) -> &UmcgTask {
        // SAFETY: the task's own thread between register and unregister, by `Registry::own_task`.
        unsafe { self.record.user() }
    }

    pub(crate) fn record(&self) -> &'r Record {
        self.record
    }
}

impl core::ops::Deref for OwnTask<'_> {
    type Target = Record;

    fn deref(&self) -> &Record {
        self.record
    }
}

impl Registry {
    /// The task of the calling thread.
    ///
    /// # Safety
    /// The calling thread is the one whose task is registered in this record. It does not use the
    /// result after it has given another one to `unregister_worker` or `unregister_server`.
    pub(crate) unsafe fn own_task(&self, index: Index) -> OwnTask<'_> {
        OwnTask {
            record: self.record(index),
            index,
            thread: PhantomData,
        }
    }

    pub(crate) const fn new(memory: Memory, helpers: HelperCells) -> Self {
        Self { memory, helpers }
    }

    /// Where the helper threads sleep.
    pub(crate) fn helpers(&self) -> &HelperCells {
        &self.helpers
    }

    pub(crate) fn record(&self, index: Index) -> &Record {
        self.memory.record(index)
    }

    /// Pins a record in one of the given lives. Lock-free. Not for sentinels.
    pub(crate) fn guard(&self, index: Index, role: u32) -> Option<RecordGuard<'_>> {
        if index == 0 {
            return None;
        }
        let record = self.record(index);
        record.guards.fetch_add(1, SeqCst);
        let guard = RecordGuard { record, index };
        // Pairs with the fence in `Record::close`.
        fence(SeqCst);
        // On failure the drop of `guard` takes the count back.
        (record.status.load(SeqCst) == role).then_some(guard)
    }

    /// The server with this thread id, pinned.
    pub(crate) fn server(&self, tid: u32) -> Option<RecordGuard<'_>> {
        let guard = self.guard(self.memory.index_of(tid), status::SERVER)?;
        (guard.tid.load(SeqCst) == tid).then_some(guard)
    }

    /// The worker with this thread id, pinned.
    pub(crate) fn worker(&self, tid: u32) -> Option<RecordGuard<'_>> {
        let guard = self.guard(self.memory.index_of(tid), status::WORKER)?;
        (guard.tid.load(SeqCst) == tid).then_some(guard)
    }

    /// A new record for a task of the calling thread. `None`: no room.
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
        record.status.store(status::FREE, SeqCst);
        self.memory.give_back(index);
    }

    /// All indices that may be in use.
    pub(crate) fn indices(&self) -> impl Iterator<Item = Index> {
        1..self.memory.end()
    }
}
