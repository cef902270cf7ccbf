//! Signal masks: no handler of the user's runs on a server or on the maker of workers.

use std::{fmt, mem, ptr};

/// The signals that a thread has blocked.
#[derive(Clone, Copy)]
pub(super) struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// That of the calling thread.
    pub(super) fn current() -> Self {
        // SAFETY: a signal set is plain data.
        let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: a live set; without a new one nothing changes. This cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut mask) };
        Self(mask)
    }

    /// All signals.
    pub(super) fn all() -> Self {
        // SAFETY: a signal set is plain data.
        let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: a live set.
        unsafe { libc::sigfillset(&raw mut mask) };
        Self(mask)
    }

    /// Makes it the calling thread's.
    pub(super) fn apply(&self) {
        // SAFETY: a live set; the old one is not wanted. This cannot fail.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

impl fmt::Debug for SignalMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalMask").finish_non_exhaustive()
    }
}
