//! The helper threads that play the kernel: a sentinel for each CPU, one monitor.

#[cfg_attr(loom, path = "../twins/cells.rs")]
pub(crate) mod cells;
pub(crate) mod cpus;
#[cfg(not(loom))]
pub(crate) mod monitor;
mod notify;
#[cfg(not(loom))]
pub(crate) mod sentinel;
pub(crate) mod sleep_cell;
