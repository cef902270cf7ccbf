//! A one-token parker.
//!
//! The waits of the runtime's own sleep here and not in [`std::thread::park`], whose single token
//! belongs to the application: a wait of ours would take an `unpark` that was meant for
//! application code on the same thread.
//!
//! # The protocol
//!
//! One thread at a time, the *owner*, waits; any thread unparks. The word of the parker is in one
//! of these states:
//!
//! | state | meaning | left by |
//! |---|---|---|
//! | EMPTY | no token, nobody waits | the owner, to PARKED; `unpark`, to NOTIFIED |
//! | NOTIFIED | the token is there | the owner alone, which takes the token: to EMPTY |
//! | PARKED | the owner sleeps on the futex, or is about to sleep | `unpark`, to NOTIFIED; the owner, to HOLDS_WORKER, or to EMPTY after its deadline; its alarm, to EXPIRED |
//! | HOLDS_WORKER | the owner is a worker that sleeps without a slot, or is about to; the parker owns it | `unpark`, to NOTIFIED; the alarm, to EXPIRED; the owner, back to PARKED |
//! | EXPIRED | the deadline of the wait has passed, and no token came | `unpark`, to NOTIFIED; the owner, to EMPTY |
//!
//! Without workers this is the protocol of std's futex parker. A worker does not sleep on the
//! futex, since its provider would have to find out about that block, and its way back would be a
//! queue. It gives its slot up by itself and lets the parker hold it: PARKED -> HOLDS_WORKER. Who
//! takes the word out of HOLDS_WORKER owns the worker: `unpark` or the alarm, which then has it
//! [resumed](Resume), or the worker itself, if its server has gone and it runs without having
//! been resumed. These are compare-and-swaps or swaps of one word, so exactly one of them succeeds.
//!
//! The models in `task/model.rs` and `sched/worker/handoff.rs` check this.

use std::{fmt, sync::Arc, task::Wake, time::Duration};

use crate::sync::{
    Futex,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    UnsafeCell,
};

/// No token, nobody waits.
const EMPTY: u32 = 0;
/// The token is there.
const NOTIFIED: u32 = 1;
/// No token; the parker holds a worker, in [`Parker::worker`].
const HOLDS_WORKER: u32 = 2;
/// No token, and the deadline of the wait has passed.
const EXPIRED: u32 = 3;
/// No token; the owner sleeps or is about to. `EMPTY - 1`, so that one `fetch_sub` takes the token
/// or enters this state.
const PARKED: u32 = u32::MAX;

/// Brings workers back that sleep without a slot. Implemented by the scheduler.
pub(crate) trait Resume: Send + Sync {
    /// The worker `index`, which the caller owns, is to run again. Never blocks: the caller may
    /// hold any lock of the application's.
    fn resume(&self, index: u32);
}

/// A worker that a parker holds.
pub(crate) struct Sleeper {
    /// The runtime that resumes it.
    pub(crate) runtime: Arc<dyn Resume>,
    /// Its index in that runtime.
    pub(crate) worker: u32,
}

/// The token of one thread, or of one wait of a thread. As a waker it is an `Arc`.
pub(crate) struct Parker {
    /// The state, see the module page.
    state: Futex,
    /// Written by the owner in PARKED, or by its successor while the owner sleeps. Taken by
    /// the thread that takes the word out of HOLDS_WORKER.
    worker: UnsafeCell<Option<Sleeper>>,
}

// SAFETY: `worker` is the only field that is not Sync. Its comment says who touches it; the state
// orders one of them before the next.
unsafe impl Sync for Parker {}
// SAFETY: all fields are Send.
unsafe impl Send for Parker {}

impl Parker {
    pub(crate) fn new() -> Self {
        Self {
            state: Futex::new(EMPTY),
            worker: UnsafeCell::new(None),
        }
    }

    /// Sets the token, and wakes the owner if it sleeps.
    ///
    /// The caller keeps the parker alive until this returns. The owner may go on before that.
    pub(crate) fn unpark(&self) {
        // Release: the owner sees what was done before; pairs with the Acquire in `prepare_park`,
        // `take_token` and `leave`. Acquire: pairs with the Release in `hold`.
        match self.state.word().swap(NOTIFIED, AcqRel) {
            PARKED => self.state.wake_one(),
            HOLDS_WORKER => {
                // SAFETY: this call took the word out of HOLDS_WORKER. The owner does not come
                // back here before it is resumed. One that lost its server instead, and runs
                // without having been resumed, never lets itself be held again.
                let sleeper = unsafe { self.take_worker() };
                sleeper.runtime.resume(sleeper.worker);
            }
            _ => {}
        }
    }

    /// The deadline of the wait has passed. For the owner's [`Alarm`](super::Alarm). `Some`: the
    /// parker held the worker, which is the caller's now, to be resumed.
    pub(super) fn expire(&self) -> Option<Sleeper> {
        let word = self.state.word();
        let mut state = word.load(Relaxed);
        while matches!(state, PARKED | HOLDS_WORKER) {
            // Acquire: pairs with the Release in `hold`.
            match word.compare_exchange(state, EXPIRED, Acquire, Relaxed) {
                // An owner that sleeps on the futex has a timeout of its own there.
                Ok(PARKED) => return None,
                // SAFETY: this call took the word out of HOLDS_WORKER.
                Ok(_) => return Some(unsafe { self.take_worker() }),
                Err(changed) => state = changed,
            }
        }
        None
    }

    /// Lets the parker hold the worker that is its owner: a thread that unparks from here on owns
    /// the worker, and resumes it. False: the wait is over already, and the caller owns the worker.
    ///
    /// Called in PARKED by the owning worker, or by its successor on its behalf while it sleeps.
    pub(crate) fn hold(&self, sleeper: Sleeper) -> bool {
        // SAFETY: in PARKED the cell is the owner's, which is the caller or has asked it.
        self.worker
            .with_mut(|cell| unsafe { *cell = Some(sleeper) });
        // Release: makes the cell visible; pairs with the Acquire in `unpark` and `expire`.
        let held = self
            .state
            .word()
            .compare_exchange(PARKED, HOLDS_WORKER, Release, Relaxed)
            .is_ok();
        if !held {
            // SAFETY: never visible to others.
            drop(unsafe { self.take_worker() });
        }
        held
    }

    /// Takes the worker back, for the owner that runs although nobody has resumed it. True: the
    /// parker held it, and is PARKED again. False: it was not held, or somebody has resumed the
    /// worker or is about to.
    pub(crate) fn release(&self) -> bool {
        let released = self
            .state
            .word()
            .compare_exchange(HOLDS_WORKER, PARKED, Relaxed, Relaxed)
            .is_ok();
        if released {
            // SAFETY: the word was taken out of HOLDS_WORKER here.
            drop(unsafe { self.take_worker() });
        }
        released
    }

    /// Whether the wait is over: the token is there, or the alarm has fired. For the owner, which
    /// takes the token afterwards.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state.word().load(Relaxed), NOTIFIED | EXPIRED)
    }

    /// # Safety
    /// The caller alone took the word out of HOLDS_WORKER, or never brought it there.
    unsafe fn take_worker(&self) -> Sleeper {
        // SAFETY: the caller's promise.
        let sleeper = self.worker.with_mut(|cell| unsafe { (*cell).take() });
        sleeper.expect("a worker that the parker holds")
    }

    /// Takes the token, or enters PARKED. True: it was there. For the owner.
    pub(crate) fn prepare_park(&self) -> bool {
        // Acquire: pairs with the Release in `unpark`.
        self.state.word().fetch_sub(1, Acquire) == NOTIFIED
    }

    /// Sleeps on the futex while the parker is PARKED, at most for `timeout`. May return early
    /// without a reason. For the owner.
    pub(super) fn sleep_on_futex(&self, timeout: Option<Duration>) {
        self.state.wait(PARKED, timeout);
    }

    /// Goes on with a wait that was ended before its deadline. For the owner.
    pub(super) fn undo_expire(&self) {
        // Relaxed: nothing is passed on by it.
        let _ = self
            .state
            .word()
            .compare_exchange(EXPIRED, PARKED, Relaxed, Relaxed);
    }

    /// Ends a wait whose deadline has passed. True: the token came in meanwhile, and was taken. For
    /// the owner.
    pub(crate) fn leave(&self) -> bool {
        // Acquire: pairs with the Release in `unpark`.
        self.state.word().swap(EMPTY, Acquire) == NOTIFIED
    }

    /// Takes the token if it is there. For the owner.
    pub(crate) fn take_token(&self) -> bool {
        // Acquire: pairs with the Release in `unpark`.
        self.state
            .word()
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::wait::ManagedWait;

    fn park_timeout(parker: &Parker, timeout: Duration) -> bool {
        ManagedWait::begin().park_until(parker, Some(Instant::now() + timeout))
    }

    #[test]
    fn token_before_park_returns_at_once() {
        let parker = Parker::new();
        parker.unpark();
        ManagedWait::begin().park(&parker);
    }

    #[test]
    fn tokens_do_not_add_up() {
        let parker = Parker::new();
        parker.unpark();
        parker.unpark();
        ManagedWait::begin().park(&parker);
        assert!(!park_timeout(&parker, Duration::ZERO));
    }

    #[test]
    fn timeout_ends_the_wait_and_leaves_no_trace() {
        let parker = Parker::new();
        let start = Instant::now();
        assert!(!park_timeout(&parker, Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
        parker.unpark();
        assert!(park_timeout(&parker, Duration::from_secs(10)));
    }

    #[test]
    fn two_threads_ping_pong() {
        let (here, there) = (Arc::new(Parker::new()), Arc::new(Parker::new()));
        let (to_here, wait) = (Arc::clone(&here), Arc::clone(&there));
        let other = std::thread::spawn(move || {
            for _ in 0..2_000 {
                ManagedWait::begin().park(&wait);
                to_here.unpark();
            }
        });
        for _ in 0..2_000 {
            there.unpark();
            ManagedWait::begin().park(&here);
        }
        other.join().unwrap();
    }
}
