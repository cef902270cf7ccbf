//! A stand-in until the scheduler is here: runs every ready task on a new std thread.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::{
    Handle,
    spawn::Refusal,
    task::{Origin, OwnedTasks, Runnable, Schedule},
};

/// The stand-in's shared part.
#[derive(Debug)]
pub(crate) struct Shared {
    me: Weak<Self>,
    owned: OwnedTasks,
    stopped: AtomicBool,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            owned: OwnedTasks::new(2),
            stopped: AtomicBool::new(false),
        })
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, SeqCst);
        self.owned.close();
    }

    /// Why this runtime takes no task just now, for `try_spawn`.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.stopped.load(SeqCst).then_some(Refusal::ShutDown)
    }

    pub(crate) fn thread_stack_size(&self) -> usize {
        2 << 20
    }
}

impl Schedule for Shared {
    fn schedule(&self, task: Runnable, _: Origin) {
        if self.stopped.load(SeqCst) {
            return;
        }
        let handle = Handle::new(self.me.upgrade().unwrap());
        std::thread::spawn(move || {
            let _entered = handle.enter();
            task.run()
        });
    }

    fn owned(&self) -> &OwnedTasks {
        &self.owned
    }
}
