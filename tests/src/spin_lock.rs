//! A spin lock whose waiters call `sched_yield`, as those of many libraries in user space do.

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
    /// Somebody is inside [`with`](Self::with).
    held: AtomicBool,
    /// Only the holder of the lock touches it.
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time touches the value, which `Send` permits.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An unlocked value.
    pub const fn new(value: T) -> Self {
        Self {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Calls `f` with the value. Waits for the lock with `sched_yield`, and never sleeps.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // Acquire pairs with the Release below: this holder sees what the last one wrote.
        while self
            .held
            .compare_exchange_weak(false, true, Acquire, Relaxed)
            .is_err()
        {
            thread::yield_now();
        }
        // SAFETY: `held` was false and is now ours.
        let result = f(unsafe { &mut *self.value.get() });
        self.held.store(false, Release);
        result
    }
}
