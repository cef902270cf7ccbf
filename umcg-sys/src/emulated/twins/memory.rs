//! Model twin of `memory`: a handful of records; a task's thread id is the index of its record.

use std::sync::Mutex;

use super::{packed::Index, record::Record};
use crate::sync::Relaxed;

/// The records of one model.
pub(crate) struct Memory {
    /// By index; the one with index 0 is not used.
    records: Vec<Record>,
    /// The free indices, the next one last. This lock is not one of loom's, since the free list is
    /// no part of what is checked.
    free: Mutex<Vec<Index>>,
}

impl Memory {
    pub(crate) fn new(records: usize) -> Self {
        Self {
            records: (0..=records).map(|_| Record::new()).collect(),
            free: Mutex::new((1..=records as Index).rev().collect()),
        }
    }

    pub(crate) fn record(&self, index: Index) -> &Record {
        &self.records[index as usize]
    }

    pub(crate) fn map_tids(&self) -> bool {
        true
    }

    pub(crate) fn index_of(&self, tid: u32) -> Index {
        let known = (tid as usize) < self.records.len()
            && self.records[tid as usize].tid.load(Relaxed) == tid;
        if known { tid } else { 0 }
    }

    pub(crate) fn bind(&self, _tid: u32, _index: Index) {}

    pub(crate) fn take(&self) -> Option<Index> {
        self.free.lock().unwrap().pop()
    }

    pub(crate) fn give_back(&self, index: Index) {
        self.free.lock().unwrap().push(index);
    }

    pub(crate) fn end(&self) -> Index {
        self.records.len() as Index
    }
}
