//! What a runtime was built with.

use std::time::Duration;

use crate::hooks::Hooks;

/// The builder's settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// At least one.
    pub(crate) servers: usize,
    /// At least one.
    pub(crate) max_workers: usize,
    /// For each server.
    pub(crate) min_idle: u32,
    pub(crate) keep_alive: Duration,
    /// No NUL in it.
    pub(crate) thread_name: String,
    /// Of a worker, in bytes.
    pub(crate) stack_size: usize,
    pub(crate) pin: bool,
    /// For `try_spawn`. `None`: no limit.
    pub(crate) queue_limit: Option<usize>,
    pub(crate) hooks: Hooks,
}

impl Config {
    /// `keep_alive`, as far as 64 bits of nanoseconds go.
    pub(crate) fn keep_alive_ns(&self) -> u64 {
        u64::try_from(self.keep_alive.as_nanos()).unwrap_or(u64::MAX)
    }
}
