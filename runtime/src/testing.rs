//! Runtimes and schedulers for unit tests.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use crate::{
    Builder, Handle, Runtime,
    task::{Origin, OwnedTasks, Runnable, Schedule},
};

/// Dereferences to the handle of a runtime, and shuts the runtime down in the end. That does not
/// wait for a task that a test leaves blocked.
#[derive(Debug)]
pub(crate) struct TestRuntime(Option<Runtime>);

impl std::ops::Deref for TestRuntime {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        self.0.as_ref().expect("until it is dropped").handle()
    }
}

impl Drop for TestRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A runtime for tests that need real workers. It is not entered.
pub(crate) fn runtime() -> TestRuntime {
    TestRuntime(Some(
        Builder::new().build().expect("a runtime can be built"),
    ))
}

/// A scheduler on which nothing runs until the test says so.
#[derive(Debug)]
pub(crate) struct ManualSched {
    /// The ready tasks, oldest first, with how they became ready. `None`: shut down.
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

    /// Runs the oldest ready task, and returns how it became ready.
    pub(crate) fn run_one(&self) -> Option<Origin> {
        let (task, origin) = self.take()?;
        task.run();
        Some(origin)
    }

    /// Runs tasks until none is ready, and returns how many polls that took.
    pub(crate) fn run_all(&self) -> usize {
        let mut polls = 0;
        while self.run_one().is_some() {
            polls += 1;
        }
        polls
    }

    /// Does what a runtime does at its end.
    pub(crate) fn shutdown(&self) {
        let queue = self.queue.lock().take();
        drop(queue);
        self.owned.close();
    }
}

impl Schedule for ManualSched {
    type Ref = Arc<Self>;

    fn reference(this: &Arc<Self>) -> Arc<Self> {
        Arc::clone(this)
    }

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

    fn finished(&self) {}

    fn owned(&self) -> &OwnedTasks {
        &self.owned
    }
}

/// The message of a panic.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(message) => message,
        None => payload.downcast_ref::<&str>().copied().unwrap_or_default(),
    }
}
