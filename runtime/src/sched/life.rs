//! Whether the runtime goes on, and which of its threads are still there.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

use super::phase::Phase;

/// See the module page.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) phase: Phase,
    /// Threads of the runtime that have not come to their end. Locked by threads that no server
    /// schedules (any more), so that nobody is switched away with it; and at the end of a runtime
    /// by a late push (`Shared::cancel_late_push`), for which no server waits.
    threads: Mutex<usize>,
    /// `threads` went down.
    gone: Condvar,
}

impl Life {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::new(),
            threads: Mutex::new(0),
            gone: Condvar::new(),
        }
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
