//! A counter to wait for.

use super::{ManagedWait, Parker};
use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Counts what is still to be done. One thread waits until the count is 0.
#[derive(Debug)]
pub(crate) struct CountLatch {
    /// What is still to be done.
    count: AtomicU32,
    /// Of the one thread that waits. Unparked when the count falls to 0.
    waiter: Parker,
}

impl Default for CountLatch {
    fn default() -> Self {
        Self {
            count: AtomicU32::new(0),
            waiter: Parker::new(),
        }
    }
}

impl CountLatch {
    /// Counts one more.
    ///
    /// # Panics
    /// Beyond two thousand million.
    pub(crate) fn add(&self) {
        // Relaxed: a thread that counts down gets the latch after this.
        if self.count.fetch_add(1, Relaxed) > u32::MAX / 2 {
            self.count.fetch_sub(1, Relaxed);
            panic!("too many threads in one scope");
        }
    }

    /// Counts one less. The latch must outlive this call: the waiter may go on before it
    /// returns, so the caller holds it in an `Arc` of its own.
    pub(crate) fn done(&self) {
        // Release: what was done before comes before the end of the wait; pairs with the
        // Acquire in `wait`.
        if self.count.fetch_sub(1, Release) == 1 {
            self.waiter.unpark();
        }
    }

    /// What is still to be done.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Blocks until the count is 0.
    pub(crate) fn wait(&self) {
        // Acquire: pairs with the Release in `done`.
        let waits = || self.count.load(Acquire) != 0;
        if waits() {
            ManagedWait::begin().park_while(&self.waiter, waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn waits_for_all() {
        let latch = Arc::new(CountLatch::default());
        for _ in 0..8 {
            latch.add();
        }
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let latch = Arc::clone(&latch);
                thread::spawn(move || latch.done())
            })
            .collect();
        latch.wait();
        assert_eq!(latch.count(), 0);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn zero_is_no_wait() {
        CountLatch::default().wait();
    }
}
