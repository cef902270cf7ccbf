//! Managed blocking: how threads sleep in the waits of the runtime's own.
//!
//! A thread waits in code of this crate when it waits
//!
//! * for another task: in the join of a task, a thread or a pool, in [`join`](crate::join()), in
//!   [`scope`](crate::scope()), or in a nested [`block_on`](crate::block_on());
//! * for a token, in [`thread::park`](crate::thread::park); or
//! * for the end of another runtime.
//!
//! These waits share two rules:
//!
//! * **A worker that waits hands its slot over.** It knows that it is about to sleep, so it gives
//!   the slot directly to another worker instead of having the provider find out.
//! * **A worker that waits does not count against `max_workers`.** The end of the wait may need a
//!   task that is still queued, and that task needs a worker (trace A12).
//!
//! A [`ManagedWait`] stands for both: [`begin`](ManagedWait::begin) tells the scheduler that the
//! wait begins, and the drop that it is over. Only its methods put a thread to sleep. A [`Parker`]
//! is what such a thread sleeps in, and what others wake it by. On a thread that is no worker the
//! wait is a futex.
//!
//! This module is below the scheduler. What it needs from there is the trait [`WorkerHook`], which
//! a worker thread installs by [`set_worker`].

mod alarm;
mod hook;
mod latch;
mod managed;
mod parker;

pub(crate) use self::{
    alarm::Alarm,
    hook::{WorkerHook, set_worker, with_worker},
    latch::CountLatch,
    managed::ManagedWait,
    parker::{Parker, Resume, Sleeper},
};

cfg_if::cfg_if! {
    if #[cfg(loom)] {
        #[cfg(test)]
        mod model;
    } else {
        #[cfg(test)]
        mod tests;
    }
}
