//! A one-token parker on a futex.
//!
//! The runtime's own blocking waits (`block_on`, `join`, `scope`, timers) sleep here, and not
//! in [`std::thread::park`], whose single token belongs to the user: a wait of ours would eat
//! an `unpark` that was meant for user code on the same thread.
//!
//! The protocol is that of std's futex parker: EMPTY -1-> PARKED by the one owner that waits,
//! anything -> NOTIFIED by whoever unparks, NOTIFIED -> EMPTY by the owner that takes the
//! token. Only the owner ever leaves NOTIFIED or enters PARKED.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
    task::{Wake, Waker},
    time::{Duration, Instant},
};

/// No token, nobody waits.
const EMPTY: u32 = 0;
/// The token is there.
const NOTIFIED: u32 = 1;
/// No token, the owner sleeps or is about to. `EMPTY - 1`, so that one `fetch_sub` takes the
/// token or announces the sleeper.
const PARKED: u32 = u32::MAX;

/// The owner's side. Exactly one thread parks on it at a time, which `&mut self` says.
pub(crate) struct Parker {
    word: Arc<Unparker>,
}

/// The other side: sets the token, from any thread.
pub(crate) struct Unparker {
    /// [`EMPTY`], [`NOTIFIED`] or [`PARKED`].
    word: AtomicU32,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self {
            word: Arc::new(Unparker {
                word: AtomicU32::new(EMPTY),
            }),
        }
    }

    /// The side that unparks.
    pub(crate) fn unparker(&self) -> &Arc<Unparker> {
        &self.word
    }

    /// A waker that unparks.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.word))
    }

    /// Waits for the token and takes it. Never returns without it.
    pub(crate) fn park(&mut self) {
        self.word.park();
    }

    /// Waits for the token until `deadline` and takes it; false: the deadline came first.
    pub(crate) fn park_until(&mut self, deadline: Instant) -> bool {
        self.word
            .park_timeout(deadline.saturating_duration_since(Instant::now()))
    }
}

impl Unparker {
    /// Sets the token and wakes the owner if it sleeps.
    pub(crate) fn unpark(&self) {
        // Release: what was done before is seen by the owner; pairs with the Acquire of the
        // owner's `fetch_sub` and compare-exchange.
        if self.word.swap(NOTIFIED, Release) == PARKED {
            futex_wake_one(&self.word);
        }
    }

    fn park(&self) {
        // Acquire: pairs with the Release in `unpark`.
        if self.word.fetch_sub(1, Acquire) == NOTIFIED {
            return;
        }
        loop {
            futex_wait(&self.word, PARKED, None);
            if self.take() {
                return;
            }
        }
    }

    fn park_timeout(&self, timeout: Duration) -> bool {
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

impl Wake for Unparker {
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

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unparker").finish_non_exhaustive()
    }
}

/// Sleeps while `word` is `expected`, at most for `timeout`. May return early for no reason.
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

/// Wakes one thread that sleeps on `word`.
pub(crate) fn futex_wake_one(word: &AtomicU32) {
    // SAFETY: a wake does not touch the memory; an address without sleepers is no error.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_before_park_returns_at_once() {
        let mut parker = Parker::new();
        parker.unparker().unpark();
        parker.park();
    }

    #[test]
    fn tokens_do_not_add_up() {
        let mut parker = Parker::new();
        parker.unparker().unpark();
        parker.unparker().unpark();
        parker.park();
        assert!(!parker.park_until(Instant::now()));
    }

    #[test]
    fn deadline_ends_the_wait_and_leaves_no_trace() {
        let mut parker = Parker::new();
        let start = Instant::now();
        assert!(!parker.park_until(start + Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        parker.waker().wake();
        assert!(parker.park_until(Instant::now() + Duration::from_secs(10)));
    }

    #[test]
    fn two_threads_ping_pong() {
        let mut here = Parker::new();
        let mut there = Parker::new();
        let (to_here, to_there) = (Arc::clone(here.unparker()), Arc::clone(there.unparker()));
        let other = std::thread::spawn(move || {
            for _ in 0..2_000 {
                there.park();
                to_here.unpark();
            }
        });
        for _ in 0..2_000 {
            to_there.unpark();
            here.park();
        }
        other.join().unwrap();
    }
}
