//! Notifying the helpers: a sentinel watches while slots on its CPU are held, the monitor while
//! work waits for a server.

use super::super::{
    record::Record,
    registry::{RecordGuard, Registry},
};
use crate::{List, sync::Relaxed};

impl Registry {
    /// Tells the sentinel of the server's CPU that a slot there was given to a worker. To be called
    /// after the slot word says so.
    pub(crate) fn notify_sentinel(&self, server: &Record) {
        self.helpers().wake_sentinel(server.cpu.load(Relaxed));
    }

    /// Tells the monitor that work waits for a server whose slot is held. To be called after that
    /// work is visible.
    pub(crate) fn notify_monitor(&self) {
        self.helpers().monitor.wake();
    }

    /// [`notify_monitor`](Self::notify_monitor) for a caller that has passed a SeqCst fence since
    /// it queued the work.
    pub(crate) fn notify_monitor_after_fence(&self) {
        self.helpers().monitor.wake_after_fence();
    }

    /// Tells the monitor if work waits for this server, whose slot a worker holds. By the server's
    /// own thread.
    pub(crate) fn notify_monitor_if_work(&self, server: &RecordGuard<'_>) {
        if server.task().has_events(List::Runnable) || self.helpers().application_has_work() {
            self.notify_monitor();
        }
    }
}
