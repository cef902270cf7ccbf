//! A stopping runtime leaves no server asleep, no task in a queue, and no thread that waits for its
//! end.
//!
//! `Lifecycle` is the product's. The server, its workers and the queue are lines of this file,
//! which stand for `server/run.rs`, `worker/run.rs`, and `schedule` in `mod.rs`.

use loom::sync::Arc;

use super::{check, start};
use crate::{
    sched::lifecycle::Lifecycle,
    sync::{
        AtomicU32, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
    wait::ManagedWait,
};

/// A server's state word: awake.
const AWAKE: u32 = 0;
/// A server's state word: between `begin_drain` and the end of `wait`.
const DRAINED: u32 = 1;

/// One server with its state word and its number of workers.
struct Model {
    lifecycle: Lifecycle,
    state: AtomicU32,
    population: AtomicU32,
}

impl Model {
    /// With one worker.
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lifecycle: Lifecycle::new(),
            state: AtomicU32::new(AWAKE),
            population: AtomicU32::new(1),
        })
    }

    /// `Provider::wake`.
    fn wake(&self) {
        let _ = self.state.compare_exchange(DRAINED, AWAKE, SeqCst, SeqCst);
    }

    fn stop(&self) {
        self.lifecycle.stop();
        self.wake();
    }

    fn abandon(&self) {
        self.lifecycle.abandon();
        self.wake();
    }

    /// `Shared::lose_worker`.
    fn lose_worker(&self) {
        self.population.fetch_sub(1, SeqCst);
        fence(SeqCst);
        if self.lifecycle.is_stopping() {
            self.wake();
        }
    }

    /// The part of a server's loop that is about its end. True: the server left. False: it sleeps.
    fn serve(&self) -> bool {
        loop {
            let _ = self.state.compare_exchange(AWAKE, DRAINED, SeqCst, SeqCst);
            fence(SeqCst);
            if self.lifecycle.is_abandoned()
                || self.lifecycle.is_stopping() && self.population.load(SeqCst) == 0
            {
                return true;
            }
            // `wait` returns at once if the word says so, else it sleeps until a wake-up.
            if self.state.load(SeqCst) == DRAINED {
                return false;
            }
        }
    }

    /// When all other threads are done: the server left, or has been woken since it fell asleep.
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
    check(|| {
        let model = Model::new();
        let server = start(&model, Model::serve);
        let worker = start(&model, Model::lose_worker);
        model.stop();
        worker.join().unwrap();
        model.check(server.join().unwrap());
    });
}

/// The runtime is abandoned with a worker that stays.
#[test]
fn an_abandoned_server_ends() {
    check(|| {
        let model = Model::new();
        let server = start(&model, Model::serve);
        model.stop();
        model.abandon();
        model.check(server.join().unwrap());
    });
}

/// A waker pushes a task while the runtime stops: the first sweep drops the task, or the waker has
/// it dropped (`Shared::cancel_late_push`).
#[test]
fn a_task_that_is_pushed_late_is_dropped() {
    check(|| {
        let shared = Arc::new((Lifecycle::new(), AtomicUsize::new(0)));
        let waker = start(&shared, |(lifecycle, queued)| {
            queued.store(1, Relaxed);
            // `Shared::schedule`.
            fence(SeqCst);
            lifecycle.is_sweeping()
        });
        let (lifecycle, queued) = &*shared;
        lifecycle.stop();
        lifecycle.begin_sweep();
        // The sweep looks at a queue by a load before it takes anything.
        let swept = queued.load(Relaxed) == 1;
        let late = waker.join().unwrap();
        assert!(swept || late, "the task stays in its queue");
    });
}

/// Two threads end, and the thread that waits for them returns.
#[test]
fn the_last_thread_ends_the_wait() {
    check(|| {
        let lifecycle = Arc::new(Lifecycle::new());
        lifecycle.add_thread();
        lifecycle.add_thread();
        let threads = [(); 2].map(|()| start(&lifecycle, Lifecycle::remove_thread));
        while lifecycle.threads() > 0 {
            ManagedWait::begin().park(lifecycle.waiter());
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
