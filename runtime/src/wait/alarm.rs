//! The end of a worker's wait by time.
//!
//! A worker that waits with a deadline has no slot, and so it cannot sleep in a system call with a
//! timeout: it has to be resumed, by a timer. The waker of that timer is an [`Alarm`].
//!
//! A timer that is removed may be firing at that moment, and a parker lives on the stack or is used
//! for the next wait. So the alarm has a word of its own. Whoever takes it out of ARMED first
//! decides: the timer, which then touches the parker, or the owner, whose wait is over and after
//! which the timer does not. If the timer is in the middle of it (FIRING), the owner waits for
//! that: a few instructions, since the timer leaves FIRING before it resumes the worker.

use std::{
    fmt,
    marker::PhantomData,
    sync::Arc,
    task::{Wake, Waker},
};

use super::Parker;
use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// The owner waits, and nothing has happened.
const ARMED: u32 = 0;
/// The timer touches the parker. Left by the timer.
const FIRING: u32 = 1;
/// The alarm has fired, or the wait is over. Nobody touches the parker by this alarm.
const OVER: u32 = 2;

/// What a timer does to a worker that waits; see the module page.
pub(crate) struct Alarm {
    /// [`ARMED`], [`FIRING`] or [`OVER`].
    state: AtomicU32,
    /// Valid until `state` is OVER.
    parker: *const Parker,
}

// SAFETY: `parker` is a shared reference to a Sync value, and `state` says for how long.
unsafe impl Send for Alarm {}
// SAFETY: as above.
unsafe impl Sync for Alarm {}

impl Alarm {
    /// An alarm for the owner of `parker`, which is about to wait in it.
    pub(crate) fn arm(parker: &Parker) -> ArmedAlarm<'_> {
        ArmedAlarm {
            alarm: Arc::new(Self {
                state: AtomicU32::new(ARMED),
                parker,
            }),
            parker: PhantomData,
        }
    }

    /// The time is up: ends the wait, unless it is over.
    fn fire(&self) {
        // Relaxed: what the alarm points to was there before the alarm was given to the timer.
        if self
            .state
            .compare_exchange(ARMED, FIRING, Relaxed, Relaxed)
            .is_err()
        {
            return;
        }
        // SAFETY: ARMED was left here, so the owner does not return from `ArmedAlarm::drop` before
        // OVER is stored.
        let sleeper = unsafe { &*self.parker }.expire();
        // Release: the parker was used before; pairs with the Acquire in `disarm`.
        self.state.store(OVER, Release);
        if let Some(sleeper) = sleeper {
            sleeper.runtime.resume(sleeper.worker);
        }
    }

    /// For the owner. When this returns, the timer does not touch the parker any more. Calls
    /// `pause` again and again while the timer is firing.
    fn disarm(&self, mut pause: impl FnMut()) {
        loop {
            // Acquire: pairs with the Release in `fire`.
            match self.state.compare_exchange(ARMED, OVER, Acquire, Acquire) {
                Err(FIRING) => pause(),
                _ => return,
            }
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.fire();
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Alarm")
            .field(&self.state.load(Relaxed))
            .finish()
    }
}

/// An [`Alarm`], until the wait is over. Must be dropped, not leaked.
#[derive(Debug)]
pub(crate) struct ArmedAlarm<'a> {
    alarm: Arc<Alarm>,
    parker: PhantomData<&'a Parker>,
}

impl ArmedAlarm<'_> {
    /// What the timer is to wake.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.alarm))
    }
}

impl Drop for ArmedAlarm<'_> {
    fn drop(&mut self) {
        self.alarm.disarm(crate::sync::pause);
    }
}
