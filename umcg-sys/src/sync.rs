//! The shared-memory primitives, or their model-checked twins.
//!
//! Everything that two roles touch goes through this module, so that `--cfg loom` replaces
//! the atomics, the fence and the futex of the whole protocol at once.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{self, Acquire, Relaxed, Release, SeqCst},
    fence,
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{self, Acquire, Relaxed, Release, SeqCst},
    fence,
};
