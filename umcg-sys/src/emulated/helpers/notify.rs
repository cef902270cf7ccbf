//! Who tells the helpers that there may be something to watch.

use super::super::{
    record::Record,
    registry::{RecordGuard, Registry},
};
use crate::{List, sync::Relaxed};

impl Registry {
    /// A slot on this server's CPU was given to a worker: the sentinel there watches.
    pub(crate) fn notify_sentinel(&self, server: &Record) {
        self.helpers().wake_sentinel(server.cpu.load(Relaxed));
    }

    /// Work waits for a server whose slot is held: the monitor watches.
    pub(crate) fn notify_monitor(&self) {
        self.helpers().monitor.wake();
    }

    /// The same for a caller that has passed a SeqCst fence since it queued the work.
    pub(crate) fn notify_monitor_after_fence(&self) {
        self.helpers().monitor.wake_after_fence();
    }

    /// The same by the own thread of a server that just gave its slot away, if work waits for it.
    pub(crate) fn notify_monitor_if_work(&self, server: &RecordGuard<'_>) {
        if server.task().has_events(List::Runnable) || self.helpers().application_has_work() {
            self.notify_monitor();
        }
    }
}
