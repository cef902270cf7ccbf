//! Counters that cost their writers one relaxed addition on a line of their own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

/// What is counted for one server. Written by its workers and itself.
#[derive(Debug, Default)]
pub(super) struct ServerCounts {
    counts: CachePadded<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    takes: AtomicU64,
    steals: AtomicU64,
    worker_steals: AtomicU64,
}

impl ServerCounts {
    /// A task was taken from another server.
    pub(super) fn count_steal(&self) {
        // Relaxed, here and below: numbers for people, and for `takes` a sign of progress.
        self.counts.steals.fetch_add(1, Relaxed);
    }

    /// A waiting worker was taken from another server.
    pub(super) fn count_worker_steal(&self) {
        self.counts.worker_steals.fetch_add(1, Relaxed);
    }

    /// Tasks that were run in this server's slot by workers that have left it since.
    pub(super) fn takes(&self) -> u64 {
        self.counts.takes.load(Relaxed)
    }

    pub(super) fn steals(&self) -> u64 {
        self.counts.steals.load(Relaxed)
    }

    pub(super) fn worker_steals(&self) -> u64 {
        self.counts.worker_steals.load(Relaxed)
    }
}

/// What one worker's thread counts: it alone writes here, so without locked instructions. Goes on
/// from where the last worker with this record left it.
#[derive(Debug, Default)]
pub(super) struct WorkerCounts {
    /// Tasks that it took since it last told its server.
    takes: AtomicU64,
    spawned: AtomicU64,
    finished: AtomicU64,
}

impl WorkerCounts {
    /// For the worker's thread.
    fn add(count: &AtomicU64) {
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A task was taken to be run.
    pub(super) fn count_take(&self) {
        Self::add(&self.takes);
    }

    /// A task was made on this thread.
    pub(super) fn count_spawn(&self) {
        Self::add(&self.spawned);
    }

    /// A task completed, panicked or was cancelled on this thread.
    pub(super) fn count_finish(&self) {
        Self::add(&self.finished);
    }

    /// Adds the tasks that the worker took to those of the server in whose slot it ran them. Before
    /// the worker gives the slot up.
    pub(super) fn flush_takes(&self, server: &ServerCounts) {
        let takes = self.takes.load(Relaxed);
        if takes != 0 {
            self.takes.store(0, Relaxed);
            server.counts.takes.fetch_add(takes, Relaxed);
        }
    }

    pub(super) fn takes(&self) -> u64 {
        self.takes.load(Relaxed)
    }

    pub(super) fn spawned(&self) -> u64 {
        self.spawned.load(Relaxed)
    }

    pub(super) fn finished(&self) -> u64 {
        self.finished.load(Relaxed)
    }
}

/// What threads that are no workers count.
#[derive(Debug, Default)]
pub(super) struct OutsideCounts {
    counts: CachePadded<Outside>,
}

#[derive(Debug, Default)]
struct Outside {
    spawned: AtomicU64,
    finished: AtomicU64,
}

impl OutsideCounts {
    pub(super) fn count_spawn(&self) {
        self.counts.spawned.fetch_add(1, Relaxed);
    }

    pub(super) fn count_finish(&self) {
        self.counts.finished.fetch_add(1, Relaxed);
    }

    pub(super) fn spawned(&self) -> u64 {
        self.counts.spawned.load(Relaxed)
    }

    pub(super) fn finished(&self) -> u64 {
        self.counts.finished.load(Relaxed)
    }
}
