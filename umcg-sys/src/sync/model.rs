//! Model twins of the primitives: loom's atomics, a futex, and threads that stop.
//!
//! The futex is the kernel's as futex(2) documents it: comparing the word and going to sleep are
//! one step with respect to a wake. There are no spurious wake-ups, and there is no time. So a
//! sleep that nobody ends is a deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};

use super::{Deadline, Relaxed};

pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
pub(crate) use stop::here as visible_step;

/// Whether these are the model twins, whose types are larger than the words of the ABI.
pub(crate) const IS_MODEL: bool = true;

macro_rules! futex {
    ($name:ident, $atomic:ty, $int:ty) => {
        #[derive(Debug)]
        pub(crate) struct $name {
            word: $atomic,
            queue: Mutex<()>,
            sleeper: Condvar,
        }

        impl $name {
            pub(crate) fn new(value: $int) -> Self {
                Self {
                    word: <$atomic>::new(value),
                    queue: Mutex::new(()),
                    sleeper: Condvar::new(),
                }
            }

            fn sleep(&self, expected: $int) {
                let queue = self.queue.lock().unwrap();
                // The kernel re-reads the word under its bucket lock, after a full barrier.
                if self.word.load(Relaxed) == expected {
                    drop(self.sleeper.wait(queue).unwrap());
                }
            }

            pub(crate) fn wake(&self) {
                visible_step();
                let _queue = self.queue.lock().unwrap();
                self.sleeper.notify_all();
            }
        }

        impl core::ops::Deref for $name {
            type Target = $atomic;

            fn deref(&self) -> &$atomic {
                &self.word
            }
        }
    };
}

futex!(Futex32, AtomicU32, u32);
futex!(Futex64, AtomicU64, u64);

impl Futex32 {
    /// True: the deadline has passed. In a model it passes at once, since that is the earliest.
    pub(crate) fn wait(&self, expected: u32, deadline: Deadline) -> bool {
        if deadline.is_none() {
            self.sleep(expected);
        }
        deadline.is_some()
    }
}

impl Futex64 {
    /// Sleeps while the word is `expected`. False: no signal came.
    pub(crate) fn wait(&self, expected: u64, _ends_after_every_handler: bool) -> bool {
        self.sleep(expected);
        false
    }
}

/// Waits until other threads have made a step. Counts as many turns.
pub(crate) fn pause(turns: &mut u32) {
    *turns += 32;
    loom::thread::yield_now();
}

/// Threads that stop at any step which others can see, and never go on. A sentinel beside a busy
/// process is such a thread.
pub(crate) mod stop {
    use std::{cell::Cell, panic};

    loom::thread_local! {
        /// How many steps this thread may still make; `u32::MAX` for any number.
        static STEPS: Cell<u32> = Cell::new(u32::MAX);
    }

    /// The payload that unwinds out of the work of a stopped thread.
    struct Stopped;

    /// Called before each visible step. Stops a thread that has used up its steps.
    pub(crate) fn here() {
        STEPS.with(|steps| match steps.get() {
            u32::MAX => {}
            0 => panic::resume_unwind(Box::new(Stopped)),
            left => steps.set(left - 1),
        });
    }

    /// Runs `work`, and stops it before its step number `steps`, counted from 0. The work must own
    /// nothing that unwinding would give back.
    #[cfg(test)]
    pub(crate) fn after(steps: u32, work: impl FnOnce()) {
        STEPS.with(|left| left.set(steps));
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(work));
        STEPS.with(|left| left.set(u32::MAX));
        if let Err(reason) = outcome {
            if !reason.is::<Stopped>() {
                panic::resume_unwind(reason);
            }
        }
    }
}
