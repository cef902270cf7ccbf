//! The primitives of shared memory, or their model-checked twins.
//!
//! Every word that two roles of the protocol share, every fence and every sleep goes through this
//! module. So `--cfg loom` replaces them all at once: `primitives.rs` has the product's, `model.rs`
//! the same names on [loom](https://docs.rs/loom).

#[cfg_attr(loom, path = "model.rs")]
mod primitives;

pub(crate) use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

pub(crate) use primitives::*;

/// When a sleep ends: CLOCK_MONOTONIC in nanoseconds; `None` means that only a wake ends it.
pub(crate) type Deadline = Option<u64>;
