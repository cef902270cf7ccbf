//! Blocks that the application announces.

use std::marker::PhantomData;

use crate::wait::with_worker;

/// From its making to its drop the calling task may be blocked in code that the runtime cannot see:
/// a raw system call such as `io_uring_enter`, or a foreign runtime.
///
/// [`begin`](Self::begin) gives the slot away, if a queued task or another worker has use for it;
/// so the next one runs at once, also where the block would be noticed late, on a CPU that other
/// processes keep busy. The drop asks for the slot, and sleeps until the worker is picked. In
/// between the task may do whatever it likes. What it computes it computes beside the task that has
/// the slot.
///
/// Not needed around calls of libc in a program with [`managed_calls!`](crate::managed_calls), nor
/// around the waits of this crate. With the device provider, and outside of a task, it does nothing
/// but the checkpoint.
///
/// # Examples
///
/// ```
/// # let runtime = umcg::Runtime::new().unwrap();
/// # runtime.spawn_blocking(|| {
/// let block = umcg::task::BlockGuard::begin();
/// // A system call that sleeps.
/// drop(block);
/// # }).join().unwrap();
/// ```
#[derive(Debug)]
#[must_use = "the block is over when this is dropped"]
pub struct BlockGuard {
    /// The end is told on the same thread.
    not_send: PhantomData<*mut ()>,
}

impl BlockGuard {
    /// The calling task is about to block. Never sleeps.
    pub fn begin() -> Self {
        with_worker(|worker| worker.announce_block());
        Self {
            not_send: PhantomData,
        }
    }
}

impl Drop for BlockGuard {
    fn drop(&mut self) {
        with_worker(|worker| worker.checkpoint());
    }
}
