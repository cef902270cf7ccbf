//! A spin lock whose waiters call `sched_yield`, as user-space libraries have them.

use std::{
    cell::UnsafeCell,
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

/// A value behind a spin lock.
#[derive(Debug, Default)]
pub struct SpinLock<T> {
    held: AtomicBool,
    /// Touched by the holder alone.
    value: UnsafeCell<T>,
}

// SAFETY: the value is touched by one thread at a time, which Send permits.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked one.
    pub const fn new(value: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Calls `f` with the value. Waits by `sched_yield`, and never sleeps.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // Acquire pairs with the Release below.
        while self
            .held
            .compare_exchange_weak(false, true, Acquire, Relaxed)
            .is_err()
        {
            thread::yield_now();
        }
        // SAFETY: `held` was false and is ours.
        let result = f(unsafe { &mut *self.value.get() });
        self.held.store(false, Release);
        result
    }
}
