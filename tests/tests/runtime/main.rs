//! The runtime as an application uses it: through the public API of the crate `umcg` alone.
//!
//! A test is in the module of the property that it checks. Nearly every test runs in a process of
//! its own, so that it may count threads and change what belongs to the process.

mod block;
mod builder;
mod events;
mod fairness;
mod futures_types;
mod handles;
mod handoff;
mod idle;
mod macros;
mod ported;
mod shutdown;
mod shutdown_destructors;
mod slices;
mod std_types;
mod stealing;
mod tasks;
mod thread_pool;
mod threads;
mod time;
mod tokio_types;
mod workers;
