//! Fills in [`RuntimeMetrics`].

use std::time::Duration;

use umcg_sys::state;

use super::{Shared, worker::WorkerState};
use crate::metrics::{RuntimeMetrics, ServerMetrics, WorkerCounts};

impl Shared {
    pub(crate) fn metrics(&self) -> RuntimeMetrics {
        let spawner = self.spawner.counts();
        let servers: Vec<ServerMetrics> = (0..self.servers.len())
            .map(|index| self.server_metrics(index))
            .collect();
        let sum = |field: fn(&ServerMetrics) -> u64| servers.iter().map(field).sum::<u64>();
        // Before the end of those that are counted next.
        let completed = self.finished_tasks();
        let spawned = self.spawned_tasks();
        RuntimeMetrics {
            provider: self.provider.kind(),
            provider_why: self.why.clone(),
            provider_description: self.provider.describe(),
            workers: self.worker_counts(),
            workers_peak: spawner.peak,
            max_workers: self.config.max_workers,
            blocks_kernel: sum(|s| s.blocks_kernel),
            blocks_sentinel: sum(|s| s.blocks_sentinel),
            blocks_monitor: sum(|s| s.blocks_monitor),
            blocks_sibling: sum(|s| s.blocks_sibling),
            verdicts_refused: sum(|s| s.verdicts_refused),
            adopted: sum(|s| s.adopted),
            preempted: sum(|s| s.preempted),
            longest_block: servers
                .iter()
                .map(|s| s.longest_block)
                .max()
                .unwrap_or_default(),
            queued_injector: self.run_queues.injector.len(),
            queued: self.run_queues.len(),
            steals: sum(|s| s.steals),
            spawned,
            completed: completed.min(spawned),
            suspended: self.owned.len(),
            worker_spawn_failures: spawner.failures,
            beyond_cap: spawner.beyond_limit,
            at_cap: spawner.at_limit,
            servers,
        }
    }

    fn server_metrics(&self, index: usize) -> ServerMetrics {
        let server = &self.servers[index];
        let (queued, waiting_workers) = self.run_queues.depth(index);
        let seen = self
            .provider
            .counters(server.tid())
            .or_else(|| server.saved_counters())
            .unwrap_or_default();
        ServerMetrics {
            cpu: seen.cpu,
            workers: server.population() as usize,
            idle_workers: server.idle_listed() as usize,
            waiting_workers,
            queued,
            tasks_run: server.counters.takes() + self.takes_under_way(index),
            steals: server.counters.steals(),
            worker_steals: server.counters.worker_steals(),
            dispatches: seen.dispatches,
            self_dispatched: seen.self_dispatched,
            taken_over: seen.taken_over,
            blocks_kernel: seen.blocks_kernel,
            blocks_sentinel: seen.blocks_sentinel,
            blocks_monitor: seen.blocks_monitor,
            blocks_sibling: seen.blocks_sibling,
            verdicts_refused: seen.refused,
            adopted: seen.adopted,
            preempted: seen.preempted,
            longest_block: Duration::from_nanos(seen.longest_block_ns),
        }
    }

    /// Tasks that the workers of a server took and have not told it of.
    fn takes_under_way(&self, server: usize) -> u64 {
        self.arena
            .iter()
            .filter(|worker| worker.server() == server)
            .map(|worker| worker.counts().takes())
            .sum()
    }

    fn spawned_tasks(&self) -> u64 {
        let by_workers: u64 = self.arena.iter().map(|w| w.counts().spawned()).sum();
        self.tasks.spawned() + by_workers
    }

    fn finished_tasks(&self) -> u64 {
        let by_workers: u64 = self.arena.iter().map(|w| w.counts().finished()).sum();
        self.tasks.finished() + by_workers
    }

    /// One pass over the records: a snapshot of things that change meanwhile.
    fn worker_counts(&self) -> WorkerCounts {
        let mut counts = WorkerCounts::default();
        for worker in self.arena.iter() {
            let place = worker.state();
            if place == WorkerState::Free {
                continue;
            }
            counts.total += 1;
            if worker.in_managed_blocking() {
                counts.own_waits += 1;
            }
            match (place, worker.task().state()) {
                (WorkerState::Starting, _) => counts.starting += 1,
                (WorkerState::Idle, state::RUNNABLE) => counts.idle += 1,
                (WorkerState::Parked, _) | (_, state::BLOCKED) => counts.blocked += 1,
                (_, state::RUNNABLE) => counts.waiting += 1,
                _ => counts.running += 1,
            }
        }
        counts
    }
}
