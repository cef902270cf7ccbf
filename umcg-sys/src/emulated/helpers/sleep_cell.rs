//! Where a helper thread sleeps while it has nothing to watch.
//!
//! The pattern of Dekker: the helper stores ASLEEP, then looks for work; a waker makes work,
//! then looks for ASLEEP. With a SeqCst fence between the two steps on both sides at least one
//! of them sees the other.

use crate::sync::{Futex32, SeqCst, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// One helper's bed.
#[derive(Debug)]
pub(crate) struct SleepCell(Futex32);

impl SleepCell {
    /// A cell of a helper that is awake. `word` is 0, from [`Futex32::new`], which is `const` in
    /// the product and not in a model.
    pub(crate) const fn new(word: Futex32) -> Self {
        Self(word)
    }

    /// Sleeps while `idle` says that there is nothing to do. Returns awake.
    ///
    /// Who wakes: [`wake`](Self::wake).
    pub(crate) fn sleep_while(&self, mut idle: impl FnMut() -> bool) {
        self.0.store(ASLEEP, SeqCst);
        // ASLEEP, then look; pairs with the fence in `wake`.
        fence(SeqCst);
        while self.0.load(SeqCst) == ASLEEP {
            if !idle() {
                break;
            }
            self.0.wait(ASLEEP, None);
        }
        self.0.store(AWAKE, SeqCst);
    }

    /// Wakes the helper if it is in bed. To be called after the work was made visible. One fence
    /// and one load if it is not.
    pub(crate) fn wake(&self) {
        fence(SeqCst);
        self.wake_after_fence();
    }

    /// [`wake`](Self::wake) for a caller that has passed a SeqCst fence since it made the work
    /// visible: that fence pairs with the one in `sleep_while`.
    pub(crate) fn wake_after_fence(&self) {
        if self.0.load(SeqCst) == ASLEEP && self.0.swap(AWAKE, SeqCst) == ASLEEP {
            self.0.wake();
        }
    }
}
