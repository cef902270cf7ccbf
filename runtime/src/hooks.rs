//! The callbacks of the application at the start and the end of each worker.

use std::{fmt, sync::Arc};

/// A callback, which gets the id of the worker.
pub(crate) type WorkerCallback = Arc<dyn Fn(usize) + Send + Sync>;

/// The callbacks of a runtime.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// See [`Builder::on_worker_start`](crate::Builder::on_worker_start).
    pub(crate) on_worker_start: Option<WorkerCallback>,
    /// See [`Builder::on_worker_stop`](crate::Builder::on_worker_stop).
    pub(crate) on_worker_stop: Option<WorkerCallback>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("on_worker_start", &self.on_worker_start.is_some())
            .field("on_worker_stop", &self.on_worker_stop.is_some())
            .finish()
    }
}
