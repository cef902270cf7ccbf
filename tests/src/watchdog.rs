//! Waits for conditions. Every wait of a test has a time limit.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The longest nap between two looks at a condition.
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// Polls until `look` returns a value. Returns `None` if that takes longer than `limit`.
///
/// The calling thread sleeps between two looks, at first for 50 us and later for 1 ms.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut nap = Duration::from_micros(50);
    loop {
        // Before the look: a condition that came true while this thread had no CPU counts.
        let last = Instant::now() > end;
        if let Some(value) = look() {
            return Some(value);
        }
        if last {
            return None;
        }
        thread::sleep(nap);
        nap = (nap * 2).min(LONGEST_NAP);
    }
}

/// Waits until a condition holds, for at most 20 s.
///
/// # Panics
/// If the condition does not hold within the time limit. The message names `what`.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Duration::from_secs(20);
    let held = poll(limit, || condition().then_some(()));
    assert!(
        held.is_some(),
        "waited {limit:?} for this condition: {what}"
    );
}
