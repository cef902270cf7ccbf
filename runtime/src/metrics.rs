//! Numbers about a runtime.

use std::time::Duration;

use umcg_sys::{ProviderKind, ServerCounters};

/// A snapshot of a runtime's numbers; see [`Handle::metrics`](crate::Handle::metrics).
///
/// Methods that end in `_count` return counters, which only grow, from the start of the runtime.
/// Each number is right for some moment during the call that made the snapshot. They are not taken
/// at the same moment, so sums may be off by what happened in between.
///
/// A method that has the name of one of tokio's returns the same number.
#[derive(Clone, Debug)]
pub struct RuntimeMetrics {
    pub(crate) provider_kind: ProviderKind,
    pub(crate) provider_why: String,
    pub(crate) provider_description: String,
    pub(crate) managed_calls: bool,
    /// By index.
    pub(crate) servers: Vec<ServerMetrics>,
    pub(crate) workers: WorkerCounts,
    pub(crate) workers_peak: usize,
    pub(crate) max_workers: usize,
    pub(crate) global_queue_depth: usize,
    pub(crate) queue_depth: usize,
    pub(crate) spawned_tasks: u64,
    /// At most `spawned_tasks`.
    pub(crate) completed_tasks: u64,
    pub(crate) suspended_tasks: usize,
    pub(crate) worker_spawn_failures: u64,
    pub(crate) max_workers_reached: u64,
    pub(crate) max_workers_exceeded: u64,
    pub(crate) worker_limit_waits: u64,
}

impl RuntimeMetrics {
    /// Which provider reports blocks.
    #[must_use]
    pub fn provider_kind(&self) -> ProviderKind {
        self.provider_kind
    }

    /// Why it is that provider, in a sentence.
    #[must_use]
    pub fn provider_why(&self) -> &str {
        &self.provider_why
    }

    /// How that provider sees blocks on this machine, and whether calls are managed, in a sentence.
    #[must_use]
    pub fn provider_description(&self) -> &str {
        &self.provider_description
    }

    /// Whether the runtime manages calls of libc that sleep, see
    /// [`managed_calls!`](crate::managed_calls). If not,
    /// [`provider_description`](Self::provider_description) says why.
    #[must_use]
    pub fn managed_calls(&self) -> bool {
        self.managed_calls
    }

    /// What the provider counted for all servers: the sum of each counter, and the longest block
    /// of any server. No `cpu`.
    #[must_use]
    pub fn provider(&self) -> ServerCounters {
        let mut total = ServerCounters::default();
        for server in &self.servers {
            add(&mut total, &server.provider);
        }
        total
    }

    /// One entry for each server, by index.
    #[must_use]
    pub fn servers(&self) -> &[ServerMetrics] {
        &self.servers
    }

    /// The number of servers.
    #[must_use]
    pub fn num_servers(&self) -> usize {
        self.servers.len()
    }

    /// The number of servers, by tokio's name: what tokio calls a worker is a server here, see
    /// [`Builder::worker_threads`](crate::Builder::worker_threads). The threads that run tasks are
    /// counted by [`workers`](Self::workers).
    #[must_use]
    pub fn num_workers(&self) -> usize {
        self.num_servers()
    }

    /// The workers by what they do now.
    #[must_use]
    pub fn workers(&self) -> WorkerCounts {
        self.workers
    }

    /// The most workers that there were at a time.
    #[must_use]
    pub fn workers_peak(&self) -> usize {
        self.workers_peak
    }

    /// The worker limit, from [`Builder::max_workers`](crate::Builder::max_workers) or
    /// `UMCG_MAX_WORKERS`.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.max_workers
    }

    /// The longest block that has ended.
    #[must_use]
    pub fn longest_block(&self) -> Duration {
        Duration::from_nanos(self.provider().longest_block_ns)
    }

    /// The number of tasks in the queue that is filled by threads which are no workers.
    #[must_use]
    pub fn global_queue_depth(&self) -> usize {
        self.global_queue_depth
    }

    /// The number of tasks in all queues.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.queue_depth
    }

    /// The number of tasks that were spawned and have not ended.
    #[must_use]
    pub fn num_alive_tasks(&self) -> usize {
        usize::try_from(self.spawned_tasks - self.completed_tasks).unwrap_or(usize::MAX)
    }

    /// The number of futures that were suspended at least once and have not ended.
    #[must_use]
    pub fn num_suspended_tasks(&self) -> usize {
        self.suspended_tasks
    }

    /// The number of tasks that were spawned.
    #[must_use]
    pub fn spawned_tasks_count(&self) -> u64 {
        self.spawned_tasks
    }

    /// The number of tasks that have ended: completed, panicked, or were cancelled.
    #[must_use]
    pub fn completed_tasks_count(&self) -> u64 {
        self.completed_tasks
    }

    /// How often a task was run by a worker of another server than the one whose queue it was in.
    #[must_use]
    pub fn steal_count(&self) -> u64 {
        self.servers.iter().map(ServerMetrics::steal_count).sum()
    }

    /// How many blocks in managed calls were waits of the runtime's: the worker gave its slot away
    /// and slept without making the call, and was woken once, when it was picked. The other blocks
    /// are in [`provider`](Self::provider), by who saw them.
    #[must_use]
    pub fn parked_blocks_count(&self) -> u64 {
        self.servers.iter().map(|server| server.parks).sum()
    }

    /// How often the operating system refused a thread for a worker. The tasks that needed it
    /// stayed queued.
    #[must_use]
    pub fn worker_spawn_failure_count(&self) -> u64 {
        self.worker_spawn_failures
    }

    /// How often a server with tasks queued and all of its workers blocked could not get another
    /// worker because of the worker limit.
    #[must_use]
    pub fn max_workers_reached_count(&self) -> u64 {
        self.max_workers_reached
    }

    /// How often queued tasks waited for a second or longer because no worker could be made: the
    /// [worker limit](Self::max_workers) was reached, or the operating system refused a thread (see
    /// [`worker_spawn_failure_count`](Self::worker_spawn_failure_count)). It should be 0.
    ///
    /// A wait is counted when it has lasted for a second, and once. A warning of `tracing` says the
    /// same, with the numbers and with what to do, at most once a minute.
    #[must_use]
    pub fn worker_limit_waits_count(&self) -> u64 {
        self.worker_limit_waits
    }

    /// How many workers were added beyond the worker limit, because tasks were queued and other
    /// workers waited for tasks in managed blocking.
    #[must_use]
    pub fn max_workers_exceeded_count(&self) -> u64 {
        self.max_workers_exceeded
    }
}

fn add(total: &mut ServerCounters, server: &ServerCounters) {
    total.dispatches += server.dispatches;
    total.blocks_kernel += server.blocks_kernel;
    total.blocks_announced += server.blocks_announced;
    total.blocks_sentinel += server.blocks_sentinel;
    total.blocks_monitor += server.blocks_monitor;
    total.blocks_sibling += server.blocks_sibling;
    total.refused += server.refused;
    total.adopted += server.adopted;
    total.self_dispatched += server.self_dispatched;
    total.taken_over += server.taken_over;
    total.preempted += server.preempted;
    total.longest_block_ns = total.longest_block_ns.max(server.longest_block_ns);
}

/// The numbers of one server.
#[derive(Clone, Debug, Default)]
pub struct ServerMetrics {
    pub(crate) workers: usize,
    pub(crate) idle_workers: usize,
    pub(crate) waiting_workers: usize,
    pub(crate) queue_depth: usize,
    pub(crate) polls: u64,
    pub(crate) steals: u64,
    pub(crate) worker_steals: u64,
    pub(crate) parks: u64,
    pub(crate) provider: ServerCounters,
}

impl ServerMetrics {
    /// The CPU that the server is pinned to.
    ///
    /// `None` with the device provider is the rule. With the emulated provider it means that the
    /// builder asked for it ([`Builder::pin`](crate::Builder::pin)) or that the system refused the
    /// pin. Then no sentinel sees the blocks of this server, and the monitor sees them later.
    #[must_use]
    pub fn cpu(&self) -> Option<usize> {
        self.provider.cpu
    }

    /// The number of the server's workers, including those whose thread is being made.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The number of its workers that have nothing to do.
    #[must_use]
    pub fn idle_workers(&self) -> usize {
        self.idle_workers
    }

    /// The number of its workers that unblocked, yielded or were preempted, and wait to be
    /// dispatched.
    #[must_use]
    pub fn waiting_workers(&self) -> usize {
        self.waiting_workers
    }

    /// The number of tasks in its queue.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.queue_depth
    }

    /// How often one of its workers ran a task. A future counts each time that it is polled.
    #[must_use]
    pub fn poll_count(&self) -> u64 {
        self.polls
    }

    /// How many of these tasks came from the queues of other servers.
    #[must_use]
    pub fn steal_count(&self) -> u64 {
        self.steals
    }

    /// How many waiting workers it took from other servers.
    #[must_use]
    pub fn stolen_workers_count(&self) -> u64 {
        self.worker_steals
    }

    /// What the provider counted for this server.
    #[must_use]
    pub fn provider(&self) -> &ServerCounters {
        &self.provider
    }
}

/// Workers by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    pub(crate) total: usize,
    pub(crate) idle: usize,
    pub(crate) running: usize,
    pub(crate) blocked: usize,
    pub(crate) waiting: usize,
    pub(crate) starting: usize,
    pub(crate) managed_blocking: usize,
}

impl WorkerCounts {
    /// All workers.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Workers that have nothing to do.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Workers that hold the slot of their server.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Workers that are blocked in the kernel. With the emulated provider this includes workers
    /// that unblocked and have not reached their next checkpoint.
    #[must_use]
    pub fn blocked(&self) -> usize {
        self.blocked
    }

    /// Workers that unblocked, yielded or were preempted, and wait to be dispatched.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Workers whose thread is being made.
    #[must_use]
    pub fn starting(&self) -> usize {
        self.starting
    }

    /// Workers, of all states above, that wait in a call of the runtime: in the join of a task, a
    /// thread or a [`ThreadPool`](crate::ThreadPool), in [`join`](crate::join()), a scope,
    /// [`thread::park`](crate::thread::park) or a nested `block_on`.
    ///
    /// They do not count against the worker limit. [`thread::sleep`](crate::thread::sleep) is not
    /// such a call, since it ends by itself.
    #[must_use]
    pub fn managed_blocking(&self) -> usize {
        self.managed_blocking
    }
}
