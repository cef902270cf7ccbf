//! umcg

mod block_on;
mod context;
mod handle;
mod parker;
mod sched;
pub mod task;

pub use crate::{
    context::EnterGuard,
    handle::Handle,
    task::{AbortHandle, JoinError, JoinHandle},
};
