//! Letting time, or others, pass.

use std::time::Duration;

use crate::wait;

/// Blocks this thread for at least `duration`.
///
/// On a worker it is an ordinary block, as [`std::thread::sleep`] is there: the server runs
/// something else meanwhile. It counts against `max_workers`. In a future prefer
/// [`time::sleep`](crate::time::sleep), which needs no worker.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
    wait::with_worker(|worker| worker.checkpoint());
}

/// Lets others run first.
///
/// On a worker: the other workers of its server that are ready, and the tasks queued there, if
/// any. Elsewhere it is [`std::thread::yield_now`]. In a future use
/// [`task::yield_now`](crate::task::yield_now), which gives the worker to other tasks.
pub fn yield_now() {
    if wait::with_worker(|worker| worker.yield_now()).is_none() {
        std::thread::yield_now();
    }
}
