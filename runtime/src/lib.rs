//! umcg

mod block_on;
mod context;
mod handle;
mod parker;
mod sched;
pub mod task;
#[cfg(test)]
mod test_sched;

pub use crate::{
    context::EnterGuard,
    handle::Handle,
    task::{AbortHandle, JoinError, JoinHandle, JoinSet},
};
