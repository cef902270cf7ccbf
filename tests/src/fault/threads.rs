//! This process's threads, counted.

use std::{thread, time::Duration};

use super::eventually;
use crate::proc;

/// How many threads this process has.
#[must_use]
pub fn count() -> usize {
    proc::threads().len()
}

/// How many of them have a name that begins so.
#[must_use]
pub fn named(prefix: &str) -> usize {
    proc::threads()
        .into_iter()
        .filter(|&tid| proc::status(tid, "Name").is_some_and(|name| name.starts_with(prefix)))
        .count()
}

/// Threads other than the caller, with how often each went to sleep or was preempted so far.
#[must_use]
pub fn switches() -> Vec<(u32, String, u64)> {
    let this = umcg_sys::gettid();
    let mut all: Vec<_> = proc::threads()
        .into_iter()
        .filter(|&tid| tid != this)
        .filter_map(|tid| {
            let name = proc::status(tid, "Name")?;
            let voluntary = proc::status(tid, "voluntary_ctxt_switches")?;
            Some((tid, name, voluntary.parse().ok()?))
        })
        .collect();
    all.sort_unstable();
    all
}

/// Waits until all threads but the caller's are asleep, and then sees that not one of them wakes
/// up for `time`: no thread goes to sleep a second time, and none comes or goes.
///
/// Asleep and quiet, before it begins: on a busy machine a sentinel may be on its way to bed for
/// long.
///
/// # Panics
/// If one does, or they never come to rest.
#[track_caller]
pub fn stay_asleep(time: Duration) {
    let mut last = switches();
    eventually("all threads are asleep", || {
        thread::sleep(Duration::from_millis(200));
        let now = switches();
        let quiet = now == last && now.iter().all(|&(tid, _, _)| proc::asleep(tid));
        last = now;
        quiet
    });
    thread::sleep(time);
    assert_eq!(
        switches(),
        last,
        "(thread, name, times that it went to sleep)"
    );
}
