//! What the tests of the runtime and its faults share.
//!
//! Every test body runs in a process of its own ([`apart`]): it may alter whatever a process
//! has, it counts threads that are its alone, and a hang is a failed test with the state of each
//! thread instead of a suite that stands still.
//!
//! No body sleeps to make something likely: it waits for a condition ([`eventually`]), and the
//! child's time limit ends what never comes.

mod apart;
pub mod cpu;
mod dam;
pub mod dump;
pub mod limits;
mod load;
pub mod seccomp;
pub mod signals;
mod spin;
pub mod threads;

use std::{
    env, thread,
    time::{Duration, Instant},
};

pub use self::{
    apart::{apart, apart_with, test_name},
    dam::Dam,
    load::{blocks_are_seen, overlap},
    spin::SpinLock,
};

/// Whether this run injects wrong verdicts. Then tests do not count threads: each wrong verdict
/// may cost one.
#[must_use]
pub fn wrong_verdicts() -> bool {
    env::var_os("UMCG_FAULT").is_some_and(|value| !value.is_empty())
}

/// Waits for a condition, at most 20 s.
///
/// # Panics
/// If it does not come; `what` says what was waited for.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    let mut nap = Duration::from_micros(50);
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "waited 20 s for: {what}"
        );
        thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(5));
    }
}
