//! The emulated provider: UMCG on any Linux, without privilege.
#![doc = include_str!("README.md")]

// The files by layer. Imports and calls go from a later line to an earlier one.
//
// * `packed`, `record`, `memory`, `registry`: the private words, the record of a task, all records.
//   `user_state`, `failure`, `clock`, `os`, `fork`: what all layers use.
// * `helpers::notify`: tells the helper threads that there is something to watch.
// * `dispatch`, `verdict`, `gate`: how a worker is given a slot, loses it, and sleeps without one.
// * `repair`, `adoption`, `take_over`: what else the monitor and an unblocked worker may do.
// * `helpers::sentinel`, `helpers::monitor`: the threads that play the kernel.
// * `affinity`: on which CPU a server and its workers run.
// * `arming`, `checkpoint`, `wait`, `unregister`: the calls.
// * `registration`: the implementation of the trait.
//
// `twins` has what replaces a file in a model, and `model` the model checks.

mod adoption;
mod announced;
mod arming;
mod checkpoint;
mod dispatch;
mod failure;
pub(crate) mod fork;
mod gate;
mod helpers;
pub(crate) mod interrupt;
pub(crate) mod os;
mod packed;
mod record;
mod registry;
mod repair;
mod take_over;
mod unregister;
mod user_state;
mod verdict;
mod wait;

// A model checks the protocol: what is above the protocol is left out, and what is below it has
// twins.
cfg_if::cfg_if! {
    if #[cfg(loom)] {
        #[path = "twins/affinity.rs"]
        mod affinity;
        #[path = "twins/clock.rs"]
        mod clock;
        #[path = "twins/memory.rs"]
        mod memory;
        #[cfg(test)]
        mod model;
    } else {
        mod affinity;
        mod clock;
        #[cfg(feature = "fault-injection")]
        pub(crate) mod fault;
        mod memory;
        mod registration;

        pub use self::registration::{Emulated, EmulatedOptions};
    }
}
