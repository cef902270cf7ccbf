//! umcg

mod block_on;
mod builder;
mod context;
mod error;
mod handle;
mod hooks;
mod join;
mod latch;
mod macros_support;
mod metrics;
mod panic;
mod parker;
mod runtime;
mod sched;
mod scope;
mod spawn;
mod sync;
pub mod task;
#[cfg(test)]
mod test_sched;
pub mod thread;
pub mod thread_pool;
pub mod time;
mod trace;

#[cfg(feature = "macros")]
pub use umcg_macros::{main, test};

pub use crate::{
    block_on::block_on,
    builder::Builder,
    context::EnterGuard,
    error::BuildError,
    handle::Handle,
    join::join,
    metrics::{RuntimeMetrics, ServerMetrics, WorkerCounts},
    runtime::Runtime,
    scope::{Scope, ScopedJoinHandle, scope},
    spawn::{TrySpawnError, block_in_place, spawn, spawn_blocking, try_spawn},
    task::{AbortHandle, JoinError, JoinHandle, JoinSet, yield_now},
    thread_pool::ThreadPool,
};

/// For the code that the attributes make; see `macros_support.rs`.
#[doc(hidden)]
pub mod __private {
    pub use crate::macros_support::*;
}

/// The code in the project's first page compiles and runs.
#[cfg(all(doctest, feature = "macros"))]
#[doc = include_str!("../../README.md")]
struct Readme;
