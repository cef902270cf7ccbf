//! Signal masks. No signal handler of the application runs on a server, or on the worker spawner
//! while it makes workers.

use std::{fmt, mem, ptr};

/// The set of signals that a thread has blocked.
#[derive(Clone, Copy)]
pub(super) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// The mask of the calling thread.
    pub(super) fn current() -> Self {
        // SAFETY: a signal set is plain data.
        let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: the set is alive, and without a new set nothing changes. This cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut mask) };
        Self(mask)
    }

    /// The mask that blocks all signals.
    pub(super) fn all() -> Self {
        // SAFETY: a signal set is plain data.
        let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: the set is alive.
        unsafe { libc::sigfillset(&raw mut mask) };
        Self(mask)
    }

    /// Makes this the mask of the calling thread.
    pub(super) fn apply(&self) {
        // SAFETY: the set is alive, and the old mask is not asked for. This cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalMask").finish_non_exhaustive()
    }
}
