//! The shared-memory primitives, or their model-checked twins.
//!
//! Everything that two roles touch goes through this module, so that `--cfg loom` replaces
//! the atomics, the fence and the futex of the whole protocol at once.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// The end of a sleep: absolute CLOCK_MONOTONIC nanoseconds, `None` = none.
pub(crate) type Deadline = Option<u64>;

#[cfg(not(loom))]
mod futex {
    use super::{AtomicU32, AtomicU64, Deadline};

    /// Sleeps while `*word == expected`. Returns on a wake, a signal, the deadline, or for no
    /// reason: callers loop. True: the deadline has passed.
    fn wait(word: *const u32, expected: u32, deadline: Deadline) -> bool {
        let timeout;
        let timeout_ptr = match deadline {
            Some(ns) => {
                timeout = libc::timespec {
                    tv_sec: (ns / 1_000_000_000) as libc::time_t,
                    tv_nsec: (ns % 1_000_000_000) as libc::c_long,
                };
                &raw const timeout
            }
            None => core::ptr::null(),
        };
        // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time (futex(2)).
        // SAFETY: `word` is an aligned live u32 and `timeout_ptr` null or a live timespec.
        let result = unsafe {
            libc::syscall(
                libc::SYS_futex,
                word,
                libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                expected,
                timeout_ptr,
                core::ptr::null::<u32>(),
                u32::MAX,
            )
        };
        // SAFETY: the calling thread's errno.
        result == -1 && unsafe { *libc::__errno_location() } == libc::ETIMEDOUT
    }

    /// Wakes the one thread that sleeps on `word`.
    fn wake(word: *const u32) {
        // SAFETY: the address of a word in live memory; the kernel does not read through it.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word,
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            );
        }
    }

    /// A 32-bit word to sleep on. One sleeper at a time.
    #[derive(Debug)]
    pub(crate) struct Futex32(AtomicU32);

    impl Futex32 {
        pub(crate) const fn new(value: u32) -> Self {
            Self(AtomicU32::new(value))
        }

        pub(crate) fn wait(&self, expected: u32, deadline: Deadline) -> bool {
            wait(self.0.as_ptr(), expected, deadline)
        }

        pub(crate) fn wake(&self) {
            wake(self.0.as_ptr());
        }
    }

    impl core::ops::Deref for Futex32 {
        type Target = AtomicU32;

        fn deref(&self) -> &AtomicU32 {
            &self.0
        }
    }

    /// A 64-bit word to sleep on by its low half. One sleeper at a time. Whoever changes it
    /// for a sleeper to see changes the low half.
    #[derive(Debug)]
    pub(crate) struct Futex64(AtomicU64);

    // The low half is at the word's own address on both supported architectures.
    const _: () = assert!(cfg!(target_endian = "little"));

    impl Futex64 {
        pub(crate) const fn new(value: u64) -> Self {
            Self(AtomicU64::new(value))
        }

        pub(crate) fn wait(&self, expected: u64) {
            wait(self.0.as_ptr().cast(), expected as u32, None);
        }

        pub(crate) fn wake(&self) {
            wake(self.0.as_ptr().cast());
        }
    }

    impl core::ops::Deref for Futex64 {
        type Target = AtomicU64;

        fn deref(&self) -> &AtomicU64 {
            &self.0
        }
    }
}

#[cfg(loom)]
mod futex {
    //! The futex as the kernel documents it: the comparison and the going to sleep are one
    //! step with respect to a wake. No spurious wake-ups, no time: a model in which nobody
    //! wakes a sleeper is a deadlock, which loom reports.

    use super::{AtomicU32, AtomicU64, Deadline, Relaxed};
    use loom::sync::{Condvar, Mutex};

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
                    super::stop::here();
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
}

pub(crate) use futex::{Futex32, Futex64};

/// A thread that is stopped for ever, at any step that others can see: what an idle-priority
/// thread beside a busy process is.
#[cfg(loom)]
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
