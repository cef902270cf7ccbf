//! The workers of one server that came back from a managed call and wait for the slot.

use crossbeam_queue::ArrayQueue;

/// How many workers fit into each of the two queues. 64 KiB a server for each.
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
pub(in crate::sched) struct ReturnedWorkers {
    /// From I/O and sleeps: first in, first out.
    io: ArrayQueue<u32>,
    /// From waits that another thread ended, and from calls on files, which are often made with a
    /// lock held: these come before the others.
    woken: ArrayQueue<u32>,
}

impl ReturnedWorkers {
    pub(super) fn new() -> Self {
        Self {
            io: ArrayQueue::new(CAPACITY),
            woken: ArrayQueue::new(CAPACITY),
        }
    }

    /// Queues a worker that came back from I/O or a sleep. False: there is no room. `precedes`: it
    /// may hold something that others wait for.
    pub(in crate::sched) fn push_io(&self, worker: u32, precedes: bool) -> bool {
        if precedes {
            return self.push_woken(worker);
        }
        self.io.push(worker).is_ok()
    }

    /// Queues a worker that others may wait for. False: there is no room.
    pub(in crate::sched) fn push_woken(&self, worker: u32) -> bool {
        self.woken.push(worker).is_ok()
    }

    /// The worker that came back first from I/O or a sleep. The caller owns it.
    pub(in crate::sched) fn pop_io(&self) -> Option<u32> {
        self.io.pop()
    }

    /// The first one of the others. The caller owns it.
    pub(in crate::sched) fn pop_woken(&self) -> Option<u32> {
        self.woken.pop()
    }

    /// How many came back from I/O or a sleep.
    pub(in crate::sched) fn len_io(&self) -> u32 {
        self.io.len() as u32
    }

    /// How many others came back.
    pub(in crate::sched) fn len_woken(&self) -> u32 {
        self.woken.len() as u32
    }

    pub(in crate::sched) fn len(&self) -> u32 {
        self.len_io() + self.len_woken()
    }

    /// Cheaper than the length: it is asked between any two tasks.
    pub(in crate::sched) fn is_empty(&self) -> bool {
        self.io.is_empty() && self.woken.is_empty()
    }
}
