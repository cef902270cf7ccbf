//! Timers for futures.
//!
//! Each runtime fires the timers of the futures that are polled in it from one thread of its own.
//! The first timer makes that thread, and it sleeps while no timer is armed. A future that is
//! polled outside of any runtime uses a thread of the process instead, so timers work on any
//! executor. Where the system has no thread to give, timers work without one, at some cost: see
//! [`sleep`](fn@sleep).
//!
//! When a runtime shuts down, its tasks are cancelled and their timers with them. A timer that
//! another executor or a [`block_on`](crate::Handle::block_on) waits for is not lost: it moves to
//! the thread of the process.
//!
//! A timer never fires early. How much later its task runs depends on the load of the CPUs. In a
//! closure or a thread use [`thread::sleep`](crate::thread::sleep), which blocks.

mod interval;
mod sleep;
mod timeout;

use std::time::{Duration, Instant};

pub use self::{
    interval::{Interval, MissedTickBehavior, interval, interval_at},
    sleep::{Sleep, sleep, sleep_until},
    timeout::{Elapsed, Timeout, timeout, timeout_at},
};

/// `duration` after `start`, or about 30 years from now where the clock cannot represent that.
fn saturating_add(start: Instant, duration: Duration) -> Instant {
    start
        .checked_add(duration)
        .unwrap_or_else(|| Instant::now() + Duration::from_secs(60 * 60 * 24 * 365 * 30))
}

#[cfg(test)]
mod tests;
