//! umcg

mod block_on;
mod context;
mod handle;
mod join;
mod latch;
mod parker;
mod sched;
mod scope;
mod spawn;
pub mod task;
#[cfg(test)]
mod test_sched;
pub mod thread;
pub mod thread_pool;
pub mod time;

pub use crate::{
    context::EnterGuard,
    handle::Handle,
    join::join,
    scope::{Scope, ScopedJoinHandle, scope},
    spawn::{TrySpawnError, block_in_place, spawn, spawn_blocking, try_spawn},
    task::{AbortHandle, JoinError, JoinHandle, JoinSet},
    thread_pool::ThreadPool,
};
