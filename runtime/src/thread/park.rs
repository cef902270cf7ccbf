//! Waiting for a token.

use std::time::{Duration, Instant};

use super::current;
use crate::wait::ManagedWait;

/// Blocks until [`Thread::unpark`](super::Thread::unpark) was called for this thread since the
/// last `park`.
///
/// Works on any thread. On a worker the server runs something else meanwhile, and the wait does
/// not count against `max_workers`. Unlike std's it does not return for no reason; check your
/// condition all the same, since a token may be left over from before.
///
/// In a future do not park across an `.await`: the thread is another one after it.
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
/// It does not say why it returned: check your condition, and the clock.
pub fn park_timeout(timeout: Duration) {
    let thread = current();
    // `None`: beyond the clock, so there is no limit.
    let deadline = Instant::now().checked_add(timeout);
    ManagedWait::begin().park_until(thread.token(), deadline);
}
