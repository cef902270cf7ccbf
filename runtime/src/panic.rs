//! Panics: those of the user are contained, ours end the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{task::discard, trace};

/// Aborts the process if it is dropped by a panic: a scheduler that lost its thread in the
/// middle of a step would leave workers that nobody ever picks.
#[must_use = "guards the scope it is bound in"]
pub(crate) struct AbortIfPanic(
    /// What was going on.
    pub(crate) &'static str,
);

impl AbortIfPanic {
    /// The guarded code came to its end.
    pub(crate) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        eprintln!(
            "umcg: {} panicked; this is a bug of the runtime, which cannot go on safely: aborting",
            self.0
        );
        std::process::abort();
    }
}

/// Runs code of the user's that has nobody to report a panic to: the panic hook has printed it,
/// an event names it, and it ends here.
pub(crate) fn contain(what: &'static str, f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        discard(payload);
        trace::contained_panic(what);
    }
}
