//! The runtime as an application uses it: through the public API of the crate `umcg` alone.
//!
//! A test is in the module of the property that it checks.

mod block;
mod builder;
mod common;
mod events;
mod fairness;
mod growth;
mod handoff;
mod idle;
mod macros;
mod panics;
mod shutdown;
mod shutdown_ways;
mod std_types;
mod stealing;
mod storm;
mod tasks;
mod threads;
mod time;
mod workers;
