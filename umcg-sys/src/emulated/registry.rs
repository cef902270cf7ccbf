//! The registry: all registered tasks of the process, and the two tokens that permit the use of a
//! task's user memory.
//!
//! There is one registry for each process, since thread ids belong to the process: several provider
//! objects see each other's tasks. Look-ups are lock-free. Only registering and unregistering take
//! a lock.

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

/// All records of the process, and the cells in which its helper threads sleep.
///
/// The protocol is written as methods of this type, a file for each part.
pub(crate) struct Registry {
    /// The records.
    memory: Memory,
    /// Where the helper threads sleep.
    helpers: HelperCells,
}

/// The registry of the process. (A model has one for each execution.)
#[cfg(not(loom))]
pub(crate) static REGISTRY: Registry = Registry::new(Memory::new(), HelperCells::new());

/// Permits the use of a registered task's user memory: the task's `unregister` does not return
/// while this exists.
pub(crate) struct RecordGuard<'r> {
    /// The record of the task; this is one of those that its `guards` counts.
    record: &'r Record,
    /// The index of the record.
    index: Index,
}

impl RecordGuard<'_> {
    pub(crate) fn index(&self) -> Index {
        self.index
    }

    pub(crate) fn task(&self) -> &UmcgTask {
        // SAFETY: this is a guard, taken while the record was in use, see `Registry::guard`.
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
        // Release: the uses of the user memory come before this. Pairs with the load in
        // `Record::close`.
        self.record.guards.fetch_sub(1, SeqCst);
    }
}

/// The calling thread's own task. The holder is the thread that registered the task, and has not
/// unregistered it, so it may use the task's user memory without a guard.
pub(crate) struct OwnTask<'r> {
    /// The record of the task.
    record: &'r Record,
    /// The index of the record.
    index: Index,
    /// Makes this neither `Send` nor `Sync`: it belongs to one thread.
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
    pub(crate) const fn new(memory: Memory, helpers: HelperCells) -> Self {
        Self { memory, helpers }
    }

    /// Where the helper threads sleep.
    pub(crate) fn helpers(&self) -> &HelperCells {
        &self.helpers
    }

    /// The record with this index, which was given out at some time.
    pub(crate) fn record(&self, index: Index) -> &Record {
        self.memory.record(index)
    }

    /// The calling thread's own task.
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

    /// Guards a record if its status is `role`, [`status::SERVER`] or [`status::WORKER`].
    /// Lock-free. Not for a sentinel, for which `unregister` would have to wait.
    pub(crate) fn guard(&self, index: Index, role: u32) -> Option<RecordGuard<'_>> {
        if index == 0 {
            return None;
        }
        let record = self.record(index);
        record.guards.fetch_add(1, SeqCst);
        let guard = RecordGuard { record, index };
        // The count, then the status. Pairs with the fence in `Record::close` (the status, then the
        // count): either this thread sees CLOSING, or `close` sees the guard.
        fence(SeqCst);
        // On failure the drop of `guard` takes the count back.
        (record.status.load(SeqCst) == role).then_some(guard)
    }

    /// A guard on the server with this thread id.
    pub(crate) fn server(&self, tid: u32) -> Option<RecordGuard<'_>> {
        let guard = self.guard(self.memory.index_of(tid), status::SERVER)?;
        (guard.tid.load(SeqCst) == tid).then_some(guard)
    }

    /// A guard on the worker with this thread id.
    pub(crate) fn worker(&self, tid: u32) -> Option<RecordGuard<'_>> {
        let guard = self.guard(self.memory.index_of(tid), status::WORKER)?;
        (guard.tid.load(SeqCst) == tid).then_some(guard)
    }

    /// Registers the task of a thread as a server or a worker. `None`: there is no room.
    pub(crate) fn open(&self, task: *mut UmcgTask, tid: u32, role: u32) -> Option<Index> {
        if !self.memory.map_tids() {
            return None;
        }
        let index = self.memory.take()?;
        self.record(index).open(task, tid, role);
        self.memory.bind(tid, index);
        Some(index)
    }

    /// Takes a task out of the registry. Returns when no other thread uses its user memory any
    /// more.
    pub(crate) fn close(&self, index: Index) {
        let record = self.record(index);
        self.memory.bind(record.tid.load(SeqCst), 0);
        record.close();
    }

    /// Frees a closed record.
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
