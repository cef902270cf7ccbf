//! A stand-in until the scheduler is here: runs every ready task on a new std thread.

use crate::task::{Origin, OwnedTasks, Runnable, Schedule};

/// The stand-in's shared part.
#[derive(Debug)]
pub(crate) struct Shared {
    owned: OwnedTasks,
}

impl Schedule for Shared {
    fn schedule(&self, task: Runnable, _: Origin) {
        std::thread::spawn(move || task.run());
    }

    fn owned(&self) -> &OwnedTasks {
        &self.owned
    }
}
