//! Numbers about a runtime.

use std::time::Duration;

use umcg_sys::ProviderKind;

/// A snapshot of a runtime's numbers; see [`Handle::metrics`](crate::Handle::metrics).
///
/// Counters only grow, from the start of the runtime. Each number is right for some moment
/// during the call; they are not taken at one and the same moment, so sums may be off by what
/// happened meanwhile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RuntimeMetrics {
    /// Who reports blocks.
    pub provider: ProviderKind,
    /// Why it is that provider, in a sentence.
    pub provider_why: String,
    /// How that provider sees blocks on this machine, in a sentence.
    pub provider_description: String,
    /// One entry a server, by index.
    pub servers: Vec<ServerMetrics>,
    /// Workers by what they do.
    pub workers: WorkerCounts,
    /// The most workers that there were at a time.
    pub workers_peak: usize,
    /// The cap, from the builder or `UMCG_MAX_WORKERS`.
    pub max_workers: usize,
    /// Blocks reported by the kernel (device provider).
    pub blocks_kernel: u64,
    /// Blocks reported by the sentinels (emulated provider).
    pub blocks_sentinel: u64,
    /// Blocks reported by the monitor (emulated provider).
    pub blocks_monitor: u64,
    /// Blocks reported by a worker of the same server that had been blocked itself and came to
    /// run (emulated provider).
    pub blocks_sibling: u64,
    /// Suspected blocks that were not confirmed (emulated provider). Harmless; many of them on
    /// a CPU-bound program mean that the confirmation does not work well here.
    pub verdicts_refused: u64,
    /// Blocked workers that were found awake and put back into the slot instead of another one
    /// (emulated provider).
    pub adopted: u64,
    /// Workers that were taken out of their slot because somebody waited behind them.
    pub preempted: u64,
    /// The longest block that has ended.
    pub longest_block: Duration,
    /// Tasks that wait in the queue for threads that are no workers.
    pub queued_injector: usize,
    /// Tasks that wait in all queues.
    pub queued: usize,
    /// Tasks that were run by a worker of another server than the one they were queued for.
    pub steals: u64,
    /// Tasks that were spawned.
    pub spawned: u64,
    /// Tasks that came to their end: completed, panicked, or cancelled.
    pub completed: u64,
    /// Futures that suspended at least once and are not done.
    pub suspended: usize,
    /// Threads for workers that the operating system refused. Their tasks stay queued.
    pub worker_spawn_failures: u64,
    /// Workers that were added although there were `max_workers`, because others waited in the
    /// runtime's own waits with tasks queued.
    pub beyond_cap: u64,
    /// Times that a server with tasks queued and all of its workers blocked could not get
    /// another worker because of `max_workers`.
    pub at_cap: u64,
}

/// The numbers of one server.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ServerMetrics {
    /// The CPU that it is pinned to. `None`: it went unpinned. With the device provider that is
    /// the rule. With the emulated one the builder said so
    /// ([`Builder::pin`](crate::Builder::pin)) or the system refused the pin, and no sentinel
    /// sees this server's blocks: only the monitor does, later.
    pub cpu: Option<usize>,
    /// Its workers, with those that are being made.
    pub workers: usize,
    /// Those of them that have nothing to do.
    pub idle_workers: usize,
    /// Those of them that unblocked, yielded or were preempted, and wait to be picked.
    pub waiting_workers: usize,
    /// Tasks in its queue.
    pub queued: usize,
    /// Tasks that its workers ran; a future counts each time that it is polled.
    pub tasks_run: u64,
    /// Those of them that came from other servers' queues.
    pub steals: u64,
    /// Waiting workers that it took over from other servers.
    pub worker_steals: u64,
    /// Times that a worker was given the slot.
    pub dispatches: u64,
    /// Unblocked workers that took the idle slot without a switch (emulated provider).
    pub self_dispatched: u64,
    /// Unblocked workers that took the slot from a blocked one, without a switch (emulated
    /// provider).
    pub taken_over: u64,
    /// See [`RuntimeMetrics::blocks_kernel`].
    pub blocks_kernel: u64,
    /// See [`RuntimeMetrics::blocks_sentinel`].
    pub blocks_sentinel: u64,
    /// See [`RuntimeMetrics::blocks_monitor`].
    pub blocks_monitor: u64,
    /// See [`RuntimeMetrics::blocks_sibling`].
    pub blocks_sibling: u64,
    /// See [`RuntimeMetrics::verdicts_refused`].
    pub verdicts_refused: u64,
    /// See [`RuntimeMetrics::adopted`].
    pub adopted: u64,
    /// See [`RuntimeMetrics::preempted`].
    pub preempted: u64,
    /// See [`RuntimeMetrics::longest_block`].
    pub longest_block: Duration,
}

/// Workers by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// All of them.
    pub total: usize,
    /// Those that have nothing to do.
    pub idle: usize,
    /// Those that hold a server's slot.
    pub running: usize,
    /// Those that are blocked in the kernel; with the emulated provider also those that
    /// unblocked and run on to their next checkpoint.
    pub blocked: usize,
    /// Those that unblocked, yielded or were preempted, and wait to be picked.
    pub waiting: usize,
    /// Those whose thread is being made.
    pub starting: usize,
    /// Those, of all states above, that are in one of the runtime's own waits (the join of a
    /// task, a thread or a [`ThreadPool`](crate::ThreadPool), [`join`](crate::join()), a scope,
    /// [`thread::park`](crate::thread::park), a nested `block_on`): they do not count against
    /// `max_workers`. [`thread::sleep`](crate::thread::sleep) is none of these: it ends by
    /// itself.
    pub own_waits: usize,
}
