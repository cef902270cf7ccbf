//! Whether a runtime goes on, and what its servers do when it does not. The steps of a shutdown
//! are in this directory's README, section 6.

use std::fmt;

use crate::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

const RUNNING: u32 = 0;
/// No task is taken any more; workers leave when they have nothing on their stack.
const STOPPING: u32 = 1;
/// The same, and all suspended tasks have been woken: what is queued is being dropped, or has been.
const SWEEPING: u32 = 2;
/// Servers leave at once, whatever their workers do.
const ABANDONED: u32 = 3;

/// [`RUNNING`], [`STOPPING`], [`SWEEPING`] or [`ABANDONED`]; only ever raised.
///
/// Whoever raises it wakes all servers after that. A wake-up is lost on a server that is awake:
/// so it looks here between `begin_drain` and `wait`. Whoever makes a server's number of workers
/// smaller looks here after that, and wakes the server if the runtime is stopping. Between the
/// two steps of each of them is a SeqCst fence.
pub(super) struct Phase(AtomicU32);

impl Phase {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(RUNNING))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.0.load(SeqCst) != RUNNING
    }

    /// Whether the first sweep has begun, and so may be over.
    #[cfg_attr(loom, expect(dead_code, reason = "no model sweeps"))]
    pub(super) fn is_sweeping(&self) -> bool {
        self.0.load(SeqCst) >= SWEEPING
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.0.load(SeqCst) == ABANDONED
    }

    pub(super) fn stop(&self) {
        self.0.fetch_max(STOPPING, SeqCst);
        // Then the servers are woken; pairs with the fences in `drain` and `lose_worker`.
        fence(SeqCst);
    }

    /// To be followed by a sweep.
    #[cfg_attr(loom, expect(dead_code, reason = "no model sweeps"))]
    pub(super) fn begin_sweep(&self) {
        self.0.fetch_max(SWEEPING, SeqCst);
        // Then the queues; pairs with the fence between push and look in `schedule`.
        fence(SeqCst);
    }

    pub(super) fn abandon(&self) {
        self.0.fetch_max(ABANDONED, SeqCst);
        // As in `stop`.
        fence(SeqCst);
    }
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.load(Relaxed) {
            RUNNING => "Running",
            STOPPING | SWEEPING => "Stopping",
            _ => "Abandoned",
        })
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::{sync::Arc, thread};

    use super::*;

    /// A server's state word: awake.
    const AWAKE: u32 = 0;
    /// Between `begin_drain` and the end of `wait`.
    const DRAINED: u32 = 1;

    /// One server with its word and its number of workers.
    struct Model {
        phase: Phase,
        state: AtomicU32,
        population: AtomicU32,
    }

    impl Model {
        fn new(population: u32) -> Arc<Self> {
            Arc::new(Self {
                phase: Phase::new(),
                state: AtomicU32::new(AWAKE),
                population: AtomicU32::new(population),
            })
        }

        /// `preempt`.
        fn wake(&self) {
            let _ = self.state.compare_exchange(DRAINED, AWAKE, SeqCst, SeqCst);
        }

        fn stop(&self) {
            self.phase.stop();
            self.wake();
        }

        fn abandon(&self) {
            self.phase.abandon();
            self.wake();
        }

        /// `Shared::lose_worker`.
        fn lose_worker(&self) {
            self.population.fetch_sub(1, SeqCst);
            fence(SeqCst);
            if self.phase.is_stopping() {
                self.wake();
            }
        }

        /// The server's loop, as far as it is about its end. True: it left. False: it sleeps.
        fn serve(&self) -> bool {
            loop {
                let _ = self.state.compare_exchange(AWAKE, DRAINED, SeqCst, SeqCst);
                fence(SeqCst);
                if self.phase.is_abandoned()
                    || self.phase.is_stopping() && self.population.load(SeqCst) == 0
                {
                    return true;
                }
                // `wait`: at once if the word says so, else until somebody changes it.
                if self.state.load(SeqCst) == DRAINED {
                    return false;
                }
            }
        }

        /// When all others are done: it left, or has been woken since it went to sleep.
        fn check(&self, left: bool) {
            assert!(
                left || self.state.load(SeqCst) == AWAKE,
                "the server sleeps, and nobody will wake it"
            );
        }
    }

    /// The last worker leaves, or could not be made, while the runtime is told to stop.
    #[test]
    fn a_server_without_workers_ends() {
        loom::model(|| {
            let model = Model::new(1);
            let server = thread::spawn({
                let model = Arc::clone(&model);
                move || model.serve()
            });
            let worker = thread::spawn({
                let model = Arc::clone(&model);
                move || model.lose_worker()
            });
            model.stop();
            worker.join().unwrap();
            model.check(server.join().unwrap());
        });
    }

    /// There is a worker that stays.
    #[test]
    fn an_abandoned_server_ends() {
        loom::model(|| {
            let model = Model::new(1);
            let server = thread::spawn({
                let model = Arc::clone(&model);
                move || model.serve()
            });
            model.stop();
            model.abandon();
            model.check(server.join().unwrap());
        });
    }
}
