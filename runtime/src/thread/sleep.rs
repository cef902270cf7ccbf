//! Sleeping and yielding.

use std::time::Duration;

use crate::wait;

/// Blocks this thread for at least `duration`.
///
/// On a worker this is a block like any other: the server runs another worker meanwhile, and the
/// sleeping one counts against `max_workers`. [`std::thread::sleep`] works as well; this function
/// also lets waiting workers run first when the sleep is over. A future should prefer
/// [`time::sleep`](crate::time::sleep()), which needs no worker.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
    wait::with_worker(|worker| worker.checkpoint());
}

/// Lets others run first.
///
/// On a worker, these are the workers of its server that wait to be dispatched, and the tasks that
/// are queued there. Elsewhere this is [`std::thread::yield_now`]. A future should use
/// [`task::yield_now`](crate::task::yield_now()), which gives the worker to other tasks.
pub fn yield_now() {
    if wait::with_worker(|worker| worker.yield_now()).is_none() {
        std::thread::yield_now();
    }
}
