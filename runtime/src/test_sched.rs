//! A scheduler for the unit tests of the task layer: nothing runs until the test says so.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::task::{Origin, OwnedTasks, Runnable, Schedule};

#[derive(Debug)]
pub(crate) struct ManualSched {
    /// `None`: shut down.
    queue: Mutex<Option<VecDeque<(Runnable, Origin)>>>,
    owned: OwnedTasks,
}

impl ManualSched {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Some(VecDeque::new())),
            owned: OwnedTasks::new(1),
        })
    }

    /// How many tasks are ready.
    pub(crate) fn ready(&self) -> usize {
        self.queue.lock().as_ref().map_or(0, VecDeque::len)
    }

    /// Takes the oldest ready task.
    pub(crate) fn take(&self) -> Option<(Runnable, Origin)> {
        self.queue.lock().as_mut()?.pop_front()
    }

    /// Runs the oldest ready task and says how it became ready.
    pub(crate) fn run_one(&self) -> Option<Origin> {
        let (task, origin) = self.take()?;
        task.run();
        Some(origin)
    }

    /// Runs tasks until none is ready; how many polls that took.
    pub(crate) fn run_all(&self) -> usize {
        let mut polls = 0;
        while self.run_one().is_some() {
            polls += 1;
        }
        polls
    }

    /// What a runtime does at its end.
    pub(crate) fn shutdown(&self) {
        let queue = self.queue.lock().take();
        drop(queue);
        self.owned.close();
    }
}

impl Schedule for ManualSched {
    fn schedule(&self, task: Runnable, origin: Origin) {
        let mut queue = self.queue.lock();
        match queue.as_mut() {
            Some(queue) => queue.push_back((task, origin)),
            None => {
                drop(queue);
                drop(task);
            }
        }
    }

    fn owned(&self) -> &OwnedTasks {
        &self.owned
    }
}
