//! Counters for metrics. Each costs its writer one relaxed addition on a cache line that few others
//! write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

/// What is counted for one server. Written by the server and its workers.
#[derive(Debug, Default)]
pub(super) struct ServerCounts {
    /// On a cache line of its own.
    counts: CachePadded<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// See [`ServerCounts::takes`].
    takes: AtomicU64,
    /// Tasks that its workers took from other servers.
    steals: AtomicU64,
    /// Waiting workers that it took from other servers.
    worker_steals: AtomicU64,
    /// Blocks for which its workers slept in their gates, without making the call.
    parks: AtomicU64,
}

impl ServerCounts {
    /// A task was taken from another server.
    pub(super) fn count_steal(&self) {
        // Relaxed, here and below: these are numbers for people, and `takes` is a sign of progress.
        self.counts.steals.fetch_add(1, Relaxed);
    }

    /// A waiting worker was taken from another server.
    pub(super) fn count_worker_steal(&self) {
        self.counts.worker_steals.fetch_add(1, Relaxed);
    }

    /// A worker sleeps in its gate instead of in a call.
    pub(super) fn count_park(&self) {
        self.counts.parks.fetch_add(1, Relaxed);
    }

    pub(super) fn parks(&self) -> u64 {
        self.counts.parks.load(Relaxed)
    }

    /// Tasks that were taken in this server's slot, counted when the worker gave the slot up.
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

/// What one worker's thread counts. That thread alone writes here, so an addition needs no locked
/// instruction. The counts of a record continue when another worker gets the record.
#[derive(Debug, Default)]
pub(super) struct WorkerCounts {
    /// Tasks that the worker took since it last added them to its server's count.
    takes: AtomicU64,
    /// Tasks that were spawned on this thread.
    spawned: AtomicU64,
    /// Tasks that ended on this thread.
    finished: AtomicU64,
}

impl WorkerCounts {
    /// Adds one. For the worker's thread.
    fn add(count: &AtomicU64) {
        count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A task was taken to be run.
    pub(super) fn count_take(&self) {
        Self::add(&self.takes);
    }

    /// A task was spawned on this thread.
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

/// What threads that are no workers of the runtime count.
#[derive(Debug, Default)]
pub(super) struct OutsideCounts {
    /// On a cache line of its own.
    counts: CachePadded<Outside>,
}

#[derive(Debug, Default)]
struct Outside {
    /// Tasks that were spawned by such threads.
    spawned: AtomicU64,
    /// Tasks that ended, that is, were dropped, on such threads.
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
