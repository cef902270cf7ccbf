//! The emulated provider: UMCG on any Linux, without privilege.
#![doc = include_str!("README.md")]

mod bed;
mod checkpoint;
#[cfg(not(loom))]
pub(crate) mod fork;
mod gate;
mod leave;
#[cfg(not(loom))]
mod monitor;
#[cfg(not(loom))]
pub(crate) mod os;
#[cfg(not(loom))]
mod place;
#[cfg(loom)]
#[path = "place_model.rs"]
mod place;
mod record;
#[cfg(not(loom))]
mod registration;
mod repair;
#[cfg(not(loom))]
mod sentinel;
mod switch;
mod verdict;
mod words;
mod world;

#[cfg(all(feature = "fault-injection", not(loom)))]
pub(crate) mod fault;
#[cfg(all(test, loom))]
mod model;

#[cfg(not(loom))]
pub use registration::{Emulated, EmulatedOptions};
