//! A one-token parker on a futex.
//!
//! The runtime's own blocking waits (`block_on`, `join`, `scope`, timers) sleep here, and not
//! in [`std::thread::park`], whose single token belongs to the user: a wait of ours would eat
//! an `unpark` that was meant for user code on the same thread.
//!
//! The protocol is that of std's futex parker: EMPTY -1-> PARKED by the one owner that waits,
//! anything -> NOTIFIED by whoever unparks, NOTIFIED -> EMPTY by the owner that takes the
//! token. Only the owner ever leaves NOTIFIED or enters PARKED.

#[cfg(not(loom))]
use std::time::{Duration, Instant};
use std::{fmt, sync::Arc, task::Wake};

use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Release},
};

/// No token, nobody waits.
const EMPTY: u32 = 0;
/// The token is there.
const NOTIFIED: u32 = 1;
/// No token, the owner sleeps or is about to. `EMPTY - 1`, so that one `fetch_sub` takes the
/// token or announces the sleeper.
const PARKED: u32 = u32::MAX;

/// The token of one thread, or of one wait of it. As a waker it is an `Arc`.
pub(crate) struct Parker {
    /// [`EMPTY`], [`NOTIFIED`] or [`PARKED`].
    word: AtomicU32,
    /// The model's futex.
    #[cfg(loom)]
    queue: (loom::sync::Mutex<()>, loom::sync::Condvar),
}

impl Parker {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            word: AtomicU32::new(EMPTY),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU32::new(EMPTY),
            queue: (loom::sync::Mutex::new(()), loom::sync::Condvar::new()),
        }
    }

    /// Sleeps while the owner is PARKED, or returns for no reason.
    #[cfg(not(loom))]
    fn sleep(&self) {
        futex_wait(&self.word, PARKED, None);
    }

    #[cfg(not(loom))]
    fn rouse(&self) {
        futex_wake(&self.word, 1);
    }

    /// As the kernel does it: the comparison and going to sleep are one step for a waker.
    #[cfg(loom)]
    fn sleep(&self) {
        let queue = self.queue.0.lock().unwrap();
        if self.word.load(Acquire) == PARKED {
            drop(self.queue.1.wait(queue).unwrap());
        }
    }

    #[cfg(loom)]
    fn rouse(&self) {
        let _queue = self.queue.0.lock().unwrap();
        self.queue.1.notify_all();
    }

    /// Sets the token and wakes the owner if it sleeps.
    pub(crate) fn unpark(&self) {
        // Release: what was done before is seen by the owner; pairs with the Acquire of the
        // owner's `fetch_sub` and compare-exchange.
        if self.word.swap(NOTIFIED, Release) == PARKED {
            self.rouse();
        }
    }

    /// Waits for the token and takes it; never returns without. One thread at a time, the
    /// owner, may call this.
    pub(crate) fn park(&self) {
        // Acquire: pairs with the Release in `unpark`.
        if self.word.fetch_sub(1, Acquire) == NOTIFIED {
            return;
        }
        loop {
            self.sleep();
            if self.take() {
                return;
            }
        }
    }

    /// Waits for the token at most that long; whether it was taken. For the owner.
    #[cfg(not(loom))]
    pub(crate) fn park_timeout(&self, timeout: Duration) -> bool {
        // Acquire: pairs with the Release in `unpark`.
        if self.word.fetch_sub(1, Acquire) == NOTIFIED {
            return true;
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                // The owner leaves PARKED; a token that came in meanwhile counts.
                return self.word.swap(EMPTY, Acquire) == NOTIFIED;
            }
            futex_wait(&self.word, PARKED, left);
            if self.take() {
                return true;
            }
        }
    }

    fn take(&self) -> bool {
        // Acquire: pairs with the Release in `unpark`.
        self.word
            .compare_exchange(NOTIFIED, EMPTY, Acquire, Acquire)
            .is_ok()
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unpark();
    }
}

impl fmt::Debug for Parker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parker").finish_non_exhaustive()
    }
}

/// Sleeps while `word` is `expected`, at most for `timeout`. May return early for no reason.
#[cfg(not(loom))]
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|left| libc::timespec {
        tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    // SAFETY: the word outlives the call, and the timeout is null or a valid timespec. Every
    // outcome (woken, value changed, EINTR, ETIMEDOUT) means the same: look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
        );
    }
}

/// Wakes up to `count` threads that sleep on `word`.
#[cfg(not(loom))]
pub(crate) fn futex_wake(word: &AtomicU32, count: i32) {
    // SAFETY: a wake does not touch the memory; an address without sleepers is no error.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            count,
        );
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn token_before_park_returns_at_once() {
        let parker = Parker::new();
        parker.unpark();
        parker.park();
    }

    #[test]
    fn tokens_do_not_add_up() {
        let parker = Parker::new();
        parker.unpark();
        parker.unpark();
        parker.park();
        assert!(!parker.park_timeout(Duration::ZERO));
    }

    #[test]
    fn timeout_ends_the_wait_and_leaves_no_trace() {
        let parker = Parker::new();
        let start = Instant::now();
        assert!(!parker.park_timeout(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        parker.unpark();
        assert!(parker.park_timeout(Duration::from_secs(10)));
    }

    #[test]
    fn endless_timeout_is_no_timeout() {
        let parker = Arc::new(Parker::new());
        let other = Arc::clone(&parker);
        let thread = std::thread::spawn(move || other.unpark());
        assert!(parker.park_timeout(Duration::MAX));
        thread.join().unwrap();
    }

    #[test]
    fn two_threads_ping_pong() {
        let (here, there) = (Arc::new(Parker::new()), Arc::new(Parker::new()));
        let (to_here, wait) = (Arc::clone(&here), Arc::clone(&there));
        let other = std::thread::spawn(move || {
            for _ in 0..2_000 {
                wait.park();
                to_here.unpark();
            }
        });
        for _ in 0..2_000 {
            there.unpark();
            here.park();
        }
        other.join().unwrap();
    }
}
