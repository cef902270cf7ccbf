//! The shared-memory primitives, or their model-checked twins.
//!
//! Everything that two roles touch goes through this module, so that `--cfg loom` replaces
//! the atomics, the fence and the futex of the whole protocol at once.

#[cfg_attr(loom, path = "model.rs")]
mod primitives;

pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

pub(crate) use primitives::*;

/// The end of a sleep: absolute CLOCK_MONOTONIC nanoseconds, `None` = none.
pub(crate) type Deadline = Option<u64>;
