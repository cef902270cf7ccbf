//! umcg

mod block_on;
mod context;
mod handle;
mod join;
mod latch;
mod parker;
mod sched;
mod scope;
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
    task::{AbortHandle, JoinError, JoinHandle, JoinSet},
    thread_pool::ThreadPool,
};
