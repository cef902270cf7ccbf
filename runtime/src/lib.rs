//! umcg

mod block_on;
mod builder;
mod context;
mod error;
mod handle;
mod hooks;
mod join;
mod latch;
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

pub use crate::{
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
