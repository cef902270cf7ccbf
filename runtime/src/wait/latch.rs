//! A counter to wait for.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::{context, wait::Parker};

/// Counts what is to come; one thread waits until it is 0.
#[derive(Debug)]
pub(crate) struct CountLatch {
    count: AtomicU32,
    /// Of the one thread that waits: unparked when the count falls to 0.
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
        // Relaxed: whoever is to count down gets the latch after this.
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

    /// How many are to come.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Blocks until the count is 0: a wait of the runtime's own.
    pub(crate) fn wait(&self) {
        // Acquire: pairs with the Release in `done`.
        if self.count.load(Acquire) == 0 {
            return;
        }
        let _wait = context::managed_blocking();
        while self.count.load(Acquire) != 0 {
            self.waiter.park();
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
