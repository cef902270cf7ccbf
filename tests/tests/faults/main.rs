//! The runtime when its surroundings, or the application itself, misbehave.
//!
//! The tests that lower the limits of a user, that replace the allocator, and that replace
//! `pthread_create` are test programs of their own: `limits.rs`, `allocator.rs` and
//! `thread_creation.rs`. `Cargo.toml` gives the reason for each.

mod code;
mod cpu;
