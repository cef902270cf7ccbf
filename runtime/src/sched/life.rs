//! Whether the runtime goes on, and who is still there. The steps of a shutdown are in this
//! directory's README, section 6.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Instant,
};

const RUNNING: u8 = 0;
/// No task is taken any more; workers leave when they have nothing on their stack.
const STOPPING: u8 = 1;
/// Servers leave at once, whatever their workers do.
const ABANDONED: u8 = 2;

/// See the module page.
#[derive(Debug)]
pub(super) struct Life {
    /// [`RUNNING`], [`STOPPING`] or [`ABANDONED`]; only ever raised.
    phase: AtomicU8,
    /// Threads of the runtime that have not come to their end. Locked by threads that no server
    /// schedules (any more), so that nobody is switched away with it.
    threads: Mutex<usize>,
    /// `threads` went down.
    gone: Condvar,
}

impl Life {
    pub(super) fn new() -> Self {
        Self {
            phase: AtomicU8::new(RUNNING),
            threads: Mutex::new(0),
            gone: Condvar::new(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        // SeqCst: a spawner pushes, then looks; a shutdown stores, then sweeps.
        self.phase.load(SeqCst) != RUNNING
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.phase.load(SeqCst) == ABANDONED
    }

    pub(super) fn stop(&self) {
        self.phase.fetch_max(STOPPING, SeqCst);
    }

    pub(super) fn abandon(&self) {
        self.phase.fetch_max(ABANDONED, SeqCst);
    }

    /// Before a thread is made.
    pub(super) fn thread_comes(&self) {
        *self.lock() += 1;
    }

    /// The last thing that a thread of the runtime does, or whoever failed to make it.
    pub(super) fn thread_goes(&self) {
        *self.lock() -= 1;
        self.gone.notify_all();
    }

    /// Waits until no thread is left. False: the deadline came first.
    pub(super) fn wait_for_all(&self, deadline: Option<Instant>) -> bool {
        let mut threads = self.lock();
        while *threads > 0 {
            threads = match deadline {
                None => self
                    .gone
                    .wait(threads)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    self.gone
                        .wait_timeout(threads, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        true
    }

    /// How many threads are left.
    pub(super) fn threads(&self) -> usize {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
