//! The emulated provider: UMCG on any Linux, without privilege.
#![doc = include_str!("README.md")]
// The files, in the order in which they build on each other:
//
// * `packed`, `record`, `memory`, `registry`: the private words, the record of a task, all records;
//   `user_state`, `failure`, `clock`: small things that all parts use.
// * `helpers::notify`: telling the helper threads of work.
// * `dispatch`, `verdict`, `gate`, `arming`, `adoption`, `repair`: the steps of the protocol.
// * `affinity`: which CPU a server and its workers run on.
// * `take_over`, `checkpoint`, `wait`, `unregister`: the calls, made of those steps.
// * `helpers::sentinel`, `helpers::monitor`: the threads that play the kernel.
// * `registration`: the provider's face, and how threads come and go.
//
// `os` and `fork` wrap what the operating system offers. `twins` has what replaces a file in a
// model.

mod adoption;
#[cfg_attr(loom, path = "twins/affinity.rs")]
mod affinity;
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
