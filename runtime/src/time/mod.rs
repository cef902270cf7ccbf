//! Timers for futures.
//!
//! One thread for the whole process keeps all timers; it is made by the first one and sleeps
//! for good while none is armed. Where the system has no thread to give they work without, at
//! some cost: see [`sleep`]. Timers work on any executor, and outlive no runtime: they
//! only wake.
//!
//! A timer never fires early; how much later the future runs depends on who else wants a CPU.
//! In a closure or a thread use [`thread::sleep`](crate::thread::sleep).

mod interval;
mod sleep;
mod timeout;

use std::time::{Duration, Instant};

pub use self::{
    interval::{Interval, interval, interval_at},
    sleep::{Sleep, sleep, sleep_until},
    timeout::{Elapsed, Timeout, timeout, timeout_at},
};

/// `duration` from now, or about 30 years where that is beyond the clock.
fn from_now(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration)
        .unwrap_or_else(|| now + Duration::from_secs(60 * 60 * 24 * 365 * 30))
}

#[cfg(test)]
mod tests;
