//! Model twin of `clock`: there is no time.

/// Always 0, so that a take-over finds each holder fresh.
pub(crate) fn now() -> u64 {
    0
}
