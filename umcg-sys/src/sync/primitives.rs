//! The primitives of the product: the atomics of the standard library, and the kernel's futex.

use super::Deadline;

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, fence};

/// Whether these are the model twins, whose types are larger than the words of the ABI.
pub(crate) const IS_MODEL: bool = false;

/// Sleeps if `*word == expected`. Returns after a wake, a signal, the deadline, or for no reason,
/// so callers loop. The result is the errno.
fn wait(word: *const u32, expected: u32, deadline: Deadline) -> i32 {
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
    if result == -1 {
        // SAFETY: the calling thread's errno.
        unsafe { *libc::__errno_location() }
    } else {
        0
    }
}

/// Wakes the thread that sleeps on `word`, if there is one.
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

/// A 32-bit word to sleep on, for one sleeper at a time.
#[derive(Debug)]
pub(crate) struct Futex32(AtomicU32);

impl Futex32 {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// Sleeps if the word is `expected`; see `wait` above. True: the deadline has passed.
    pub(crate) fn wait(&self, expected: u32, deadline: Deadline) -> bool {
        wait(self.0.as_ptr(), expected, deadline) == libc::ETIMEDOUT
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

/// A 64-bit word to sleep on, for one sleeper at a time. A futex compares 32 bits, so the sleep is
/// on the low half: a change that must end a sleep changes the low half.
#[derive(Debug)]
pub(crate) struct Futex64(AtomicU64);

// The low half is at the word's own address on both supported architectures.
const _: () = assert!(cfg!(target_endian = "little"));

impl Futex64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Sleeps if the low half of the word is that of `expected`; see `wait` above. True: a signal
    /// handler has run. `ends_after_every_handler`: also if it was installed with `SA_RESTART`.
    pub(crate) fn wait(&self, expected: u64, ends_after_every_handler: bool) -> bool {
        // The kernel restarts a wait without a deadline only. This one is in 146 years.
        let deadline = ends_after_every_handler.then_some(u64::MAX / 4);
        wait(self.0.as_ptr().cast(), expected as u32, deadline) == libc::EINTR
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

/// Stands before each step of the protocol that other threads can see. A model may stop the thread
/// here; the product does nothing.
#[inline(always)]
pub(crate) fn visible_step() {}

/// Waits a little for a thread of normal priority: yields 15 times, then sleeps 20 us each time.
/// `turns` counts the calls.
pub(crate) fn pause(turns: &mut u32) {
    *turns += 1;
    if *turns < 16 {
        std::thread::yield_now();
    } else {
        std::thread::sleep(core::time::Duration::from_micros(20));
    }
}
