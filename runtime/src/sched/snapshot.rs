//! Fills in [`RuntimeMetrics`].

use umcg_sys::{ProviderKind, state};

use super::{
    Shared,
    worker::{WorkerState, managed_calls_are_defined},
};
use crate::metrics::{RuntimeMetrics, ServerMetrics, WorkerCounts};

impl Shared {
    /// How the provider sees blocks, and whether calls are managed.
    pub(super) fn describe(&self) -> String {
        let managed = if self.managed_calls {
            "on"
        } else if self.provider.kind() == ProviderKind::Device {
            "off, because the kernel reports every block"
        } else if !managed_calls_are_defined() {
            "off, because the program does not ask for them (umcg::managed_calls!)"
        } else {
            "off, by Builder::managed_calls or UMCG_MANAGED_CALLS"
        };
        format!("{}; managed calls: {managed}", self.provider.describe())
    }

    pub(crate) fn metrics(&self) -> RuntimeMetrics {
        let spawner = self.spawner.counts();
        // Completed tasks are counted before spawned ones: a task that ends in between would make
        // more of them complete than were spawned.
        let completed = self.finished_tasks();
        let spawned = self.spawned_tasks();
        RuntimeMetrics {
            provider_kind: self.provider.kind(),
            provider_why: self.why.clone(),
            provider_description: self.describe(),
            managed_calls: self.managed_calls,
            servers: (0..self.servers.len())
                .map(|index| self.server_metrics(index))
                .collect(),
            workers: self.worker_counts(),
            workers_peak: spawner.peak,
            max_workers: self.config.max_workers,
            global_queue_depth: self.run_queues.injector.len(),
            queue_depth: self.run_queues.len(),
            spawned_tasks: spawned,
            completed_tasks: completed.min(spawned),
            suspended_tasks: self.owned.len(),
            worker_spawn_failures: spawner.failures,
            max_workers_reached: spawner.at_limit,
            max_workers_exceeded: spawner.beyond_limit,
            worker_limit_waits: spawner.long_waits,
        }
    }

    fn server_metrics(&self, index: usize) -> ServerMetrics {
        let server = &self.servers[index];
        let (queue_depth, waiting_workers) = self.run_queues.depth(index);
        ServerMetrics {
            workers: server.population() as usize,
            idle_workers: server.idle_listed() as usize,
            waiting_workers,
            queue_depth,
            polls: server.counters.takes() + self.takes_under_way(index),
            steals: server.counters.steals(),
            worker_steals: server.counters.worker_steals(),
            parks: server.counters.parks(),
            provider: self
                .provider
                .counters(server.tid())
                .or_else(|| server.saved_counters())
                .unwrap_or_default(),
        }
    }

    /// Tasks that the workers of a server took and have not yet added to the server's count.
    fn takes_under_way(&self, server: usize) -> u64 {
        self.arena
            .iter()
            .filter(|worker| worker.server() == server)
            .map(|worker| worker.counts().takes())
            .sum()
    }

    /// Tasks that workers have taken from the queues, since the start.
    pub(super) fn taken_tasks(&self) -> u64 {
        let under_way: u64 = self.arena.iter().map(|w| w.counts().takes()).sum();
        let by_servers = self.servers.iter().map(|server| server.counters.takes());
        by_servers.sum::<u64>() + under_way
    }

    fn spawned_tasks(&self) -> u64 {
        let by_workers: u64 = self.arena.iter().map(|w| w.counts().spawned()).sum();
        self.tasks.spawned() + by_workers
    }

    fn finished_tasks(&self) -> u64 {
        let by_workers: u64 = self.arena.iter().map(|w| w.counts().finished()).sum();
        self.tasks.finished() + by_workers
    }

    /// One pass over the records. The workers change meanwhile, so the counts may not fit together
    /// exactly.
    fn worker_counts(&self) -> WorkerCounts {
        let mut counts = WorkerCounts::default();
        for worker in self.arena.iter() {
            let place = worker.state();
            if place == WorkerState::Free {
                continue;
            }
            counts.total += 1;
            if worker.in_managed_blocking() {
                counts.managed_blocking += 1;
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
