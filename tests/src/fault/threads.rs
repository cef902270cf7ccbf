//! This process's threads, counted.

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
