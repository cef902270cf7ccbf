//! The workers of one server that came back from a managed call and wait for the slot, first in,
//! first out.

use crossbeam_queue::ArrayQueue;

/// How many workers fit. 64 KiB a server.
const CAPACITY: usize = 4096;

/// See the module page.
///
/// A worker pushes itself, in the middle of a task and possibly in a signal handler, so a push
/// neither allocates nor locks. Whoever pops a worker owns it. A worker that does not fit queues in
/// its server's inbox instead, which costs a wake-up of the server.
///
/// `ArrayQueue` orders its operations by SeqCst fences and accesses, so a length that was read
/// after a SeqCst fence sees the pushes before the partner's fence.
#[derive(Debug)]
pub(in crate::sched) struct ReturnedWorkers(ArrayQueue<u32>);

impl ReturnedWorkers {
    pub(super) fn new() -> Self {
        Self(ArrayQueue::new(CAPACITY))
    }

    /// Queues the calling worker. False: there is no room.
    pub(in crate::sched) fn push(&self, worker: u32) -> bool {
        self.0.push(worker).is_ok()
    }

    /// The worker that came back first. The caller owns it.
    pub(in crate::sched) fn pop(&self) -> Option<u32> {
        self.0.pop()
    }

    pub(in crate::sched) fn len(&self) -> u32 {
        self.0.len() as u32
    }
}
