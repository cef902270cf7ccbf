//! The sleep cell: where a helper thread (a sentinel, the monitor) sleeps while it has nothing to
//! watch.
//!
//! *Problem.* A dispatch must wake a sleeping sentinel, and queued work must wake a sleeping
//! monitor. That must cost next to nothing while the helper is awake, which it mostly is.
//!
//! *Mechanism.* Dekker's pattern. The helper stores ASLEEP, fences, and looks for work once more
//! before it sleeps. A waker makes the work visible, fences, and looks for ASLEEP. With SeqCst
//! fences at least one of them sees what the other did, so no wake-up is lost.
//!
//! *Cost.* One fence and one load for each notification of a helper that is awake.

use crate::sync::{Futex32, SeqCst, fence};

/// The helper runs, or a waker has claimed the wake-up.
const AWAKE: u32 = 0;
/// The helper sleeps, or is about to.
const ASLEEP: u32 = 1;

/// One helper's sleep cell: AWAKE or ASLEEP. The helper itself stores both; a waker changes ASLEEP
/// to AWAKE.
#[derive(Debug)]
pub(crate) struct SleepCell(Futex32);

impl SleepCell {
    /// A cell of a helper that is awake. `word` is 0, from [`Futex32::new`], which is `const` in
    /// the product and not in a model.
    pub(crate) const fn new(word: Futex32) -> Self {
        Self(word)
    }

    /// Sleeps while `idle` returns true, until [`wake`](Self::wake) ends that. For the helper that
    /// owns this cell.
    pub(crate) fn sleep_while(&self, mut idle: impl FnMut() -> bool) {
        self.0.store(ASLEEP, SeqCst);
        // ASLEEP, then the look for work; pairs with the fence of the waker.
        fence(SeqCst);
        while self.0.load(SeqCst) == ASLEEP {
            if !idle() {
                break;
            }
            self.0.wait(ASLEEP, None);
        }
        self.0.store(AWAKE, SeqCst);
    }

    /// Wakes the helper if it sleeps. To be called after the work was made visible.
    pub(crate) fn wake(&self) {
        // The work, then the look for ASLEEP; pairs with the fence in `sleep_while`.
        fence(SeqCst);
        self.wake_after_fence();
    }

    /// [`wake`](Self::wake) for a caller that has passed a SeqCst fence since it made the work
    /// visible. That fence pairs with the one in `sleep_while`.
    pub(crate) fn wake_after_fence(&self) {
        if self.0.load(SeqCst) == ASLEEP && self.0.swap(AWAKE, SeqCst) == ASLEEP {
            self.0.wake();
        }
    }
}
