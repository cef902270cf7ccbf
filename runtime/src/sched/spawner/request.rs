//! A server's request for one more worker, on its way to the worker spawner.
//!
//! A request is a flag of its server, so that many requests in a row make one. The flag alone is
//! not enough. Suppose that a worker has requested a spare, and the spawner is just taking that
//! request when the server begins to starve. The server's own request must not get lost in the one
//! that is being dealt with. So the order of steps matters:
//!
//! - the server stores that it is starved, passes a fence, and sets the flag;
//! - the spawner clears the flag, passes a fence, and looks whether the server is starved.
//!
//! If the spawner does not see a starved server, the server sets the flag after the spawner has
//! cleared it, and wakes the spawner once more. `models/request.rs` checks that.

use std::fmt;

use crate::sync::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// True: a worker is requested. Set by the server or one of its workers, cleared by the worker
/// spawner.
pub(in crate::sched) struct WorkerRequest(AtomicBool);

impl WorkerRequest {
    pub(in crate::sched) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Makes the request. True: there was none, and the caller wakes the worker spawner.
    pub(in crate::sched) fn make(&self) -> bool {
        // Relaxed: a server that starves has passed a fence since it stored that, see the module
        // page. For a worker that would like a spare this is a hint.
        !self.0.load(Relaxed) && !self.0.swap(true, SeqCst)
    }

    /// Takes the request, to be fulfilled or dropped. Returns whether it had been made, and whether
    /// its server starves, which `starves` says. `starves` is called after the flag is cleared.
    pub(in crate::sched) fn take(&self, starves: impl FnOnce() -> bool) -> (bool, bool) {
        let made = self.0.swap(false, SeqCst);
        // The flag comes before the look at the server; pairs with the fence in
        // `IdleServers::enter_starved`.
        fence(SeqCst);
        (made, starves())
    }

    /// Whether it was made and has not been taken.
    pub(in crate::sched) fn is_pending(&self) -> bool {
        self.0.load(SeqCst)
    }
}

impl fmt::Debug for WorkerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkerRequest")
            .field(&self.0.load(Relaxed))
            .finish()
    }
}
