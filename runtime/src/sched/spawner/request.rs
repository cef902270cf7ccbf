//! A server's wish for one more worker, on its way to the maker.

use std::fmt;

use crate::sync::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// Made by the server or one of its workers, taken by the maker.
pub(in crate::sched) struct WorkerRequest(AtomicBool);

impl WorkerRequest {
    pub(in crate::sched) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// True: it is news, and the maker has to be roused.
    pub(in crate::sched) fn make(&self) -> bool {
        // Relaxed: a server that starves has a fence behind its seat, see `take`; from others it
        // is a hint.
        !self.0.load(Relaxed) && !self.0.swap(true, SeqCst)
    }

    /// Takes it back, fulfilled or not. Whether it was made, and whether its server starves, as
    /// `starves` says.
    ///
    /// In this order. A server takes its seat, and then wishes (fence in between): either it is
    /// seen to starve, or it finds that an earlier wish has been taken, and its own is news.
    pub(in crate::sched) fn take(&self, starves: impl FnOnce() -> bool) -> (bool, bool) {
        let made = self.0.swap(false, SeqCst);
        // The wish, then the seat; pairs with the fence in `IdleServers::enter_starved`.
        fence(SeqCst);
        (made, starves())
    }

    /// Made, and not yet taken.
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

#[cfg(all(test, loom))]
mod model {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::sched::idle::IdleServers;

    /// A worker has wished for a spare when its server begins to starve: the maker, which is at
    /// that wish, sees that the server starves, or is roused once more.
    #[test]
    fn a_server_that_starves_is_seen_or_its_wish_is_news() {
        loom::model(|| {
            let shared = Arc::new((WorkerRequest::new(), IdleServers::new(1)));
            assert!(shared.0.make(), "of the worker");
            let server = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    shared.1.enter_starved(0, None);
                    shared.0.make()
                })
            };
            let (made, starves) = shared.0.take(|| shared.1.is_starved(0));
            assert!(made);
            let news = server.join().unwrap();
            assert!(starves || news, "it starves, and nobody knows");
        });
    }
}
