//! The helper threads that play the kernel, and how they are told that there is something to watch.
//!
//! * `sentinel`: a SCHED_IDLE thread for each CPU that has servers; `cpus`: which servers those
//!   are.
//! * `monitor`: one thread of normal priority for the process.
//! * `sleep_cell`, `cells`: where they sleep. `notify`: how they are woken.
//!
//! The protocol calls `notify`, and the helpers call the protocol. So `notify` and what it needs
//! import nothing of the helpers' own code.

pub(crate) mod cpus;
mod notify;
pub(crate) mod sleep_cell;

// A model makes the helpers' steps itself, at any time, instead of running their threads.
cfg_if::cfg_if! {
    if #[cfg(loom)] {
        #[path = "../twins/cells.rs"]
        pub(crate) mod cells;
    } else {
        pub(crate) mod cells;
        pub(crate) mod monitor;
        pub(crate) mod sentinel;
    }
}
