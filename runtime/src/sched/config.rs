//! The settings that a runtime was built with.

use std::time::Duration;

use crate::hooks::Hooks;

/// The settings of a [`Builder`](crate::Builder), after its checks.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The number of servers. At least 1.
    pub(crate) servers: usize,
    /// The worker limit. At least 1.
    pub(crate) max_workers: usize,
    /// How many idle workers stay at each server, however long they are idle.
    pub(crate) min_idle: u32,
    /// After how long an idle worker beyond `min_idle` retires.
    pub(crate) keep_alive: Duration,
    /// The beginning of the names of the runtime's threads. Contains no NUL.
    pub(crate) thread_name: String,
    /// The size of a worker's stack, in bytes.
    pub(crate) stack_size: usize,
    /// Whether each server, with its workers, is pinned to a CPU.
    pub(crate) pin: bool,
    /// Whether calls of libc that sleep are managed, in a program that has asked for it.
    pub(crate) managed_calls: bool,
    /// How many tasks may be queued before `try_spawn` refuses. `None`: no limit.
    pub(crate) queue_limit: Option<usize>,
    /// Called on the threads of workers.
    pub(crate) hooks: Hooks,
}

impl Config {
    /// `keep_alive` in nanoseconds. A longer time than 64 bits can say counts as the longest one.
    pub(crate) fn keep_alive_ns(&self) -> u64 {
        u64::try_from(self.keep_alive.as_nanos()).unwrap_or(u64::MAX)
    }
}
