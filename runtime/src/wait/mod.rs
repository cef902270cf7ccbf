//! Where threads sleep in the waits of the runtime's own: joins, scopes, parks, nested `block_on`.

#[cfg(not(loom))]
mod latch;
mod parker;

pub(crate) use self::parker::{Parker, Resume, Sleeper};
#[cfg(not(loom))]
pub(crate) use self::{
    latch::CountLatch,
    parker::{futex_wait, futex_wake},
};
