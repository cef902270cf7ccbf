//! Whether a runtime goes on, and which of its threads are still there.
//!
//! The steps of a shutdown are numbered at the head of `shutdown.rs`. This directory's README,
//! section 6, has the argument for the orderings here.

use std::fmt;

use crate::{
    sync::{
        AtomicU32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence,
    },
    wait::Parker,
};

/// The runtime takes tasks and runs them.
const RUNNING: u32 = 0;
/// The runtime takes no more tasks. A worker leaves as soon as it has nothing on its stack.
const STOPPING: u32 = 1;
/// As [`STOPPING`], and all suspended tasks have been woken. What is queued is being dropped, or has
/// been: a pusher cannot rely on the first sweep any more.
const SWEEPING: u32 = 2;
/// As [`SWEEPING`], and servers leave at once, whatever their workers do.
const ABANDONED: u32 = 3;

/// The phase of a runtime, and the number of its threads.
pub(super) struct Lifecycle {
    /// [`RUNNING`], [`STOPPING`], [`SWEEPING`] or [`ABANDONED`]; only ever raised.
    ///
    /// The thread that raises the phase wakes all servers afterwards. A wake-up is lost on a server
    /// that is awake, so a server looks at the phase between `begin_drain` and `wait`. A thread that
    /// makes a server's number of workers smaller looks at the phase afterwards, and wakes the
    /// server if the runtime is stopping. Each of the three has a SeqCst fence between its two
    /// steps.
    ///
    /// A pusher looks at the phase after each push, and a sweep looks at the queues after
    /// [`SWEEPING`] was stored, both with a SeqCst fence in between.
    phase: AtomicU32,
    /// Threads of the runtime that have not come to their end. Each is counted before it is made.
    threads: AtomicUsize,
    /// Of the one thread that waits until no thread is left; unparked when `threads` becomes 0.
    waiter: Parker,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self {
            phase: AtomicU32::new(RUNNING),
            threads: AtomicUsize::new(0),
            waiter: Parker::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.phase.load(SeqCst) != RUNNING
    }

    /// Whether the first sweep has begun, and so may be over.
    pub(super) fn is_sweeping(&self) -> bool {
        self.phase.load(SeqCst) >= SWEEPING
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.phase.load(SeqCst) == ABANDONED
    }

    /// The caller wakes all servers afterwards.
    pub(super) fn stop(&self) {
        self.phase.fetch_max(STOPPING, SeqCst);
        // Between the phase and the wake-ups; pairs with the fence in `drain`, between `begin_drain`
        // and the look at the phase, and with the one in `lose_worker`.
        fence(SeqCst);
    }

    /// From here on a sweep may drop what is queued. The caller has queued all suspended tasks, and
    /// has a thread sweep afterwards.
    pub(super) fn begin_sweep(&self) {
        self.phase.fetch_max(SWEEPING, SeqCst);
        // Between the phase and the sweep's look at the queues; pairs with the fence in `schedule`,
        // between the push and the look at the phase.
        fence(SeqCst);
    }

    /// The caller wakes all servers afterwards.
    pub(super) fn abandon(&self) {
        self.phase.fetch_max(ABANDONED, SeqCst);
        // As in `stop`.
        fence(SeqCst);
    }

    /// Counts a thread that is about to be made.
    pub(super) fn add_thread(&self) {
        // Relaxed: the caller is counted itself, or holds the `Runtime` and waits afterwards, or is
        // a late push, which may come after the wait is over.
        self.threads.fetch_add(1, Relaxed);
    }

    /// The last thing that a thread of the runtime does, or the thread that failed to make it.
    pub(super) fn remove_thread(&self) {
        // Release: what the thread did comes before the end of the wait; pairs with the Acquire in
        // `threads`.
        if self.threads.fetch_sub(1, Release) == 1 {
            self.waiter.unpark();
        }
    }

    /// How many threads are left.
    pub(super) fn threads(&self) -> usize {
        // Acquire: pairs with the Release in `remove_thread`.
        self.threads.load(Acquire)
    }

    /// Where the thread that shuts the runtime down sleeps until [`threads`](Self::threads) is 0.
    /// A token may be left from an earlier time at which it was 0.
    pub(super) fn waiter(&self) -> &Parker {
        &self.waiter
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match self.phase.load(Relaxed) {
            RUNNING => "Running",
            STOPPING => "Stopping",
            SWEEPING => "Sweeping",
            _ => "Abandoned",
        };
        f.debug_struct("Lifecycle")
            .field("phase", &phase)
            .field("threads", &self.threads.load(Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::wait::ManagedWait;

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
        fn new(population: u32) -> Arc<Self> {
            Arc::new(Self {
                lifecycle: Lifecycle::new(),
                state: AtomicU32::new(AWAKE),
                population: AtomicU32::new(population),
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

        /// The part of a server's loop that is about its end. True: the server left. False: it
        /// sleeps.
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

        /// When all other threads are done: the server left, or has been woken since it went to
        /// sleep.
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

    /// A waker pushes a task while the runtime stops: the first sweep drops it, or the waker has it
    /// dropped (`Shared::cancel_late_push`).
    #[test]
    fn a_task_that_is_pushed_late_is_dropped() {
        loom::model(|| {
            let shared = Arc::new((Lifecycle::new(), AtomicUsize::new(0)));
            let pusher = thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    let (lifecycle, queue) = &*shared;
                    queue.store(1, Relaxed);
                    // `Shared::schedule`.
                    fence(SeqCst);
                    lifecycle.is_sweeping()
                }
            });
            let (lifecycle, queue) = &*shared;
            lifecycle.stop();
            lifecycle.begin_sweep();
            let swept = queue.swap(0, Relaxed) == 1;
            let late = pusher.join().unwrap();
            assert!(swept || late, "the task stays in its queue");
        });
    }

    /// Two threads end, and the one that waits for them returns.
    #[test]
    fn the_last_thread_ends_the_wait() {
        loom::model(|| {
            let lifecycle = Arc::new(Lifecycle::new());
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    lifecycle.add_thread();
                    let lifecycle = Arc::clone(&lifecycle);
                    thread::spawn(move || lifecycle.remove_thread())
                })
                .collect();
            while lifecycle.threads() > 0 {
                ManagedWait::begin().park(lifecycle.waiter());
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
