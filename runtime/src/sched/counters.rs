//! Counters that cost their writers one relaxed addition on a line of their own.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

/// What is counted for one server. Written by its workers, of which one runs at a time, or
/// nearly so.
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
    /// A task was taken to be run; `stolen`: from another server.
    pub(super) fn count_take(&self, stolen: bool) {
        // Relaxed, here and below: numbers for people, and for `takes` a sign of progress.
        self.counts.takes.fetch_add(1, Relaxed);
        if stolen {
            self.counts.steals.fetch_add(1, Relaxed);
        }
    }

    /// A waiting worker was taken from another server.
    pub(super) fn count_worker_steal(&self) {
        self.counts.worker_steals.fetch_add(1, Relaxed);
    }

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

/// What is counted for the runtime, in shards so that spawning threads do not meet on one line.
#[derive(Debug)]
pub(super) struct TaskCounts {
    shards: Box<[CachePadded<TaskShard>]>,
}

#[derive(Debug, Default)]
struct TaskShard {
    spawned: AtomicU64,
    finished: AtomicU64,
}

impl TaskCounts {
    /// One shard a server, and one for threads that are no workers.
    pub(super) fn new(servers: usize) -> Self {
        Self {
            shards: (0..=servers).map(|_| CachePadded::default()).collect(),
        }
    }

    /// `server`: of the worker that spawns, `None` off-worker.
    pub(super) fn count_spawn(&self, server: Option<usize>) {
        self.shard(server).spawned.fetch_add(1, Relaxed);
    }

    /// A task completed, panicked or was cancelled.
    pub(super) fn count_finish(&self, server: Option<usize>) {
        self.shard(server).finished.fetch_add(1, Relaxed);
    }

    fn shard(&self, server: Option<usize>) -> &TaskShard {
        &self.shards[server.unwrap_or(self.shards.len() - 1)]
    }

    pub(super) fn spawned(&self) -> u64 {
        self.shards.iter().map(|s| s.spawned.load(Relaxed)).sum()
    }

    pub(super) fn finished(&self) -> u64 {
        self.shards.iter().map(|s| s.finished.load(Relaxed)).sum()
    }
}
