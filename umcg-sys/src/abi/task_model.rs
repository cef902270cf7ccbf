//! What the models need of a task beyond the product's methods.

use super::UmcgTask;
use crate::sync::Relaxed;

impl UmcgTask {
    /// A task of a model, where thread ids are what the model says.
    pub(crate) fn of_model(tid: u32, server_tid: u32) -> Self {
        let task = Self::new();
        task.raw.tid.store(tid, Relaxed);
        task.raw.server_tid.store(server_tid, Relaxed);
        task
    }

    /// What the owner of the memory may do once nobody else uses it: loom fails if anybody may
    /// still be reading or writing one of the words.
    pub(crate) fn scribble(&mut self) {
        self.raw.state.with_mut(|word| *word = 0xdead);
        self.raw.server_tid.with_mut(|word| *word = 0xdead);
        self.raw.next_tid.with_mut(|word| *word = 0xdead);
        self.raw.tid.with_mut(|word| *word = 0xdead);
        self.raw.blocked_ptr.with_mut(|word| *word = 0xdead);
        self.raw.runnable_ptr.with_mut(|word| *word = 0xdead);
    }
}
