//! The emulated provider: UMCG on any Linux, without privilege.
#![doc = include_str!("README.md")]

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
mod unregister;
mod user_state;
mod verdict;
mod wait;

#[cfg(not(loom))]
pub use registration::{Emulated, EmulatedOptions};
