//! Model twins of the primitives: loom's atomics, and a futex as the kernel documents it.
//!
//! The futex: the comparison and the going to sleep are one
//! step with respect to a wake. No spurious wake-ups, no time: a model in which nobody
//! wakes a sleeper is a deadlock, which loom reports.

use loom::sync::{Condvar, Mutex};

use super::{Deadline, Relaxed};

pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
pub(crate) use stop::here as visible_step;

/// These are the model twins: their types are larger than the ABI's.
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
    /// A deadline passes at once: the model has no time, and that is the earliest.
    pub(crate) fn wait(&self, expected: u32, deadline: Deadline) -> bool {
        if deadline.is_none() {
            self.sleep(expected);
        }
        deadline.is_some()
    }
}

impl Futex64 {
    pub(crate) fn wait(&self, expected: u64) {
        self.sleep(expected);
    }
}

/// In a model: until others have done something. Counts as many turns.
pub(crate) fn pause(turns: &mut u32) {
    *turns += 32;
    loom::thread::yield_now();
}

pub(crate) mod stop {
    use std::{cell::Cell, panic};

    loom::thread_local! {
        /// Steps that this thread may still make.
        static STEPS: Cell<u32> = Cell::new(u32::MAX);
    }

    /// Unwinds out of the thread's work.
    struct Stopped;

    /// Called before each step of the protocol. Ends a thread that has used up its steps.
    pub(crate) fn here() {
        STEPS.with(|steps| match steps.get() {
            u32::MAX => {}
            0 => panic::resume_unwind(Box::new(Stopped)),
            left => steps.set(left - 1),
        });
    }

    /// Runs `work` for at most that many steps. It must own nothing that unwinding would give
    /// back.
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
