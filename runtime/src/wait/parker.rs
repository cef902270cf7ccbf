//! A one-token parker on a futex.
//!
//! The runtime's own blocking waits (`block_on`, `join`, `scope`, timers) sleep here, and not
//! in [`std::thread::park`], whose single token belongs to the user: a wait of ours would eat
//! an `unpark` that was meant for user code on the same thread.
//!
//! The protocol is that of std's futex parker: EMPTY -1-> PARKED by the one owner that waits,
//! anything -> NOTIFIED by whoever unparks, NOTIFIED -> EMPTY by the owner that takes the
//! token. Only the owner ever leaves NOTIFIED or enters PARKED.
//!
//! A worker does not sleep on the futex: that block would have to be seen, and its end would have
//! to queue up. It gives its slot up by itself and entrusts itself to the parker, PARKED ->
//! ENTRUSTED by the owner. Whoever unparks owns the worker then, and has it [`Resume`]d. The owner
//! may take itself back, ENTRUSTED -> PARKED; one of the two succeeds.

#[cfg(not(loom))]
use std::time::{Duration, Instant};
use std::{fmt, sync::Arc, task::Wake};

use crate::sync::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    UnsafeCell,
};

/// No token, nobody waits.
const EMPTY: u32 = 0;
/// The token is there.
const NOTIFIED: u32 = 1;
/// No token, the owner sleeps or is about to. `EMPTY - 1`, so that one `fetch_sub` takes the
/// token or announces the sleeper.
const PARKED: u32 = u32::MAX;

/// No token; the owner is a worker that sleeps without a slot, or is about to. It is in
/// [`Parker::sleeper`].
const ENTRUSTED: u32 = 2;

/// Who brings a worker back that sleeps without a slot.
pub(crate) trait Resume: Send + Sync {
    /// The worker `index`, which the caller owns, is to run again. Called with any lock of the
    /// user's held: it never blocks.
    fn resume(&self, index: u32);
}

/// A worker in a parker.
pub(crate) struct Sleeper {
    pub(crate) runtime: Arc<dyn Resume>,
    pub(crate) worker: u32,
}

/// The token of one thread, or of one wait of it. As a waker it is an `Arc`.
pub(crate) struct Parker {
    /// [`EMPTY`], [`NOTIFIED`], [`PARKED`] or [`ENTRUSTED`].
    word: AtomicU32,
    /// Written by the owner in PARKED, taken by whoever takes the word out of ENTRUSTED.
    sleeper: UnsafeCell<Option<Sleeper>>,
    /// The model's futex.
    #[cfg(loom)]
    queue: (loom::sync::Mutex<()>, loom::sync::Condvar),
}

// SAFETY: `sleeper` is the only field that is not Sync. Its comment says who touches it; the word
// orders one of them before the next.
unsafe impl Sync for Parker {}
// SAFETY: all fields are Send.
unsafe impl Send for Parker {}

impl Parker {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            word: AtomicU32::new(EMPTY),
            sleeper: UnsafeCell::new(None),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU32::new(EMPTY),
            sleeper: UnsafeCell::new(None),
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
        // owner's `fetch_sub` and compare-exchange. Acquire: pairs with the Release in `entrust`.
        match self.word.swap(NOTIFIED, AcqRel) {
            PARKED => self.rouse(),
            ENTRUSTED => {
                // SAFETY: this call took the word out of ENTRUSTED. The owner does not come back
                // here before it is resumed; one that was not resumed but lost its server never
                // entrusts itself again.
                let sleeper = unsafe { self.take_sleeper() };
                sleeper.runtime.resume(sleeper.worker);
            }
            _ => {}
        }
    }

    /// For the owner, a worker, in PARKED, or for whoever the owner has asked to while it sleeps:
    /// whoever unparks from here on owns the worker, and resumes it. False: the token is there,
    /// and the caller owns the worker.
    pub(crate) fn entrust(&self, sleeper: Sleeper) -> bool {
        // SAFETY: in PARKED the cell is the owner's.
        self.sleeper
            .with_mut(|cell| unsafe { *cell = Some(sleeper) });
        // Release: publishes the cell; pairs with the Acquire in `unpark`.
        let entrusted = self
            .word
            .compare_exchange(PARKED, ENTRUSTED, Release, Relaxed)
            .is_ok();
        if !entrusted {
            // SAFETY: never published.
            drop(unsafe { self.take_sleeper() });
        }
        entrusted
    }

    /// For the owner that entrusted itself and was not resumed: it owns itself again, in PARKED.
    /// False: somebody unparked, and has resumed it or is about to.
    pub(crate) fn take_back(&self) -> bool {
        let back = self
            .word
            .compare_exchange(ENTRUSTED, PARKED, Relaxed, Relaxed)
            .is_ok();
        if back {
            // SAFETY: the word was taken out of ENTRUSTED here.
            drop(unsafe { self.take_sleeper() });
        }
        back
    }

    /// Whether the token is there. For the owner, which takes it afterwards.
    pub(crate) fn is_notified(&self) -> bool {
        self.word.load(Relaxed) == NOTIFIED
    }

    /// # Safety
    /// The caller alone took the word out of ENTRUSTED, or never brought it there.
    unsafe fn take_sleeper(&self) -> Sleeper {
        // SAFETY: the caller's promise.
        let sleeper = self.sleeper.with_mut(|cell| unsafe { (*cell).take() });
        sleeper.expect("a worker that entrusted itself")
    }

    /// Takes the token, or announces that the owner sleeps. For the owner.
    pub(crate) fn announce(&self) -> bool {
        // Acquire: pairs with the Release in `unpark`.
        self.word.fetch_sub(1, Acquire) == NOTIFIED
    }

    /// Waits for the token and takes it; never returns without. One thread at a time, the
    /// owner, may call this.
    pub(crate) fn park(&self) {
        if self.announce() {
            return;
        }
        #[cfg(not(loom))]
        crate::context::with_worker(|worker| worker.sleep(self));
        if self.take() {
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
        if self.announce() {
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
