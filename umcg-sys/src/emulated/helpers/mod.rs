//! The helper threads that play the kernel, and how they are told that there is something to watch.
//!
//! * `sentinel`: a SCHED_IDLE thread for each CPU that has servers; `cpus`: which servers those
//!   are.
//! * `monitor`: one thread of normal priority for the process.
//! * `sleep_cell`, `cells`: where they sleep. `notify`: how they are woken.
//!
//! The protocol calls `notify`, and the helpers call the protocol. So `notify` and what it needs
//! import nothing of the helpers' own code.

#[cfg_attr(loom, path = "../twins/cells.rs")]
pub(crate) mod cells;
pub(crate) mod cpus;
#[cfg(not(loom))]
pub(crate) mod monitor;
mod notify;
#[cfg(not(loom))]
pub(crate) mod sentinel;
pub(crate) mod sleep_cell;
