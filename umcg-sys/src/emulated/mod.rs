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
#[cfg_attr(loom, path = "twins/affinity.rs")]
mod affinity;
mod announced;
mod arming;
mod checkpoint;
#[cfg_attr(loom, path = "twins/clock.rs")]
mod clock;
mod dispatch;
mod failure;
#[cfg(all(feature = "fault-injection", not(loom)))]
pub(crate) mod fault;
pub(crate) mod fork;
mod gate;
mod helpers;
pub(crate) mod interrupt;
#[cfg_attr(loom, path = "twins/memory.rs")]
mod memory;
#[cfg(all(test, loom))]
mod model;
pub(crate) mod os;
mod packed;
mod record;
#[cfg(not(loom))]
mod registration;
mod registry;
mod repair;
mod take_over;
mod unregister;
mod user_state;
mod verdict;
mod wait;

#[cfg(not(loom))]
pub use registration::{Emulated, EmulatedOptions};
