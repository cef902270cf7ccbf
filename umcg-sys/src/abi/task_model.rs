//! What the models need of a task in addition to the product's methods.

use super::UmcgTask;
use crate::sync::Relaxed;

impl UmcgTask {
    /// Creates a task with thread ids that the model chooses.
    pub(crate) fn of_model(tid: u32, server_tid: u32) -> Self {
        let task = Self::new();
        task.raw.tid.store(tid, Relaxed);
        task.raw.server_tid.store(server_tid, Relaxed);
        task
    }

    /// Overwrites the words without synchronisation, as the owner of the memory may do once nobody
    /// else uses the task. loom fails if any thread may still read or write one of them.
    pub(crate) fn scribble(&mut self) {
        self.raw.state.with_mut(|word| *word = 0xdead);
        self.raw.server_tid.with_mut(|word| *word = 0xdead);
        self.raw.next_tid.with_mut(|word| *word = 0xdead);
        self.raw.tid.with_mut(|word| *word = 0xdead);
        self.raw.blocked_ptr.with_mut(|word| *word = 0xdead);
        self.raw.runnable_ptr.with_mut(|word| *word = 0xdead);
    }
}
