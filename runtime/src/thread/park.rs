//! Parking: waiting for a token.

use std::time::{Duration, Instant};

use super::current;
use crate::wait::ManagedWait;

/// Blocks until [`Thread::unpark`](super::Thread::unpark) was called for this thread since the
/// last `park`.
///
/// Works on any thread. On a worker, the server runs another worker meanwhile, and the wait does
/// not count against `max_workers`. Unlike std's, this function does not return without a token.
/// Check your condition all the same, since the token may be left over from before.
///
/// A future must not rely on its token across an `.await`: it may have another thread afterwards.
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicBool, Ordering}};
/// use umcg::thread;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let ready = Arc::new(AtomicBool::new(false));
/// let theirs = Arc::clone(&ready);
/// let sleeper = thread::spawn(move || {
///     while !theirs.load(Ordering::Acquire) {
///         thread::park();
///     }
/// });
/// ready.store(true, Ordering::Release);
/// sleeper.thread().unpark();
/// sleeper.join().unwrap();
/// # });
/// ```
pub fn park() {
    let thread = current();
    ManagedWait::begin().park(thread.token());
}

/// [`park`] for at most `timeout`.
///
/// The caller cannot see whether it returned for a token or for the time: check your condition, and
/// the clock.
pub fn park_timeout(timeout: Duration) {
    let thread = current();
    // `None`: the clock cannot represent the deadline, so there is none.
    let deadline = Instant::now().checked_add(timeout);
    ManagedWait::begin().park_until(thread.token(), deadline);
}
