//! The threads of this process: how many there are, and whether they are at rest.

use std::{fs, sync::mpsc, thread, time::Duration};

use crate::{proc, watchdog::eventually};

/// One thread at one moment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thread {
    /// Its thread id.
    pub tid: u32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// Whether it sleeps in the kernel.
    pub asleep: bool,
    /// How often it went to sleep or was preempted so far.
    pub switches: u64,
}

/// A thread of this process. `None` if it has ended.
#[must_use]
pub fn look(tid: u32) -> Option<Thread> {
    let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key))?;
        Some(line[key.len()..].trim())
    };
    let count = |key: &str| value(key)?.parse::<u64>().ok();
    Some(Thread {
        tid,
        name: value("Name:")?.to_owned(),
        asleep: value("State:")?.starts_with(['S', 'D']),
        switches: count("voluntary_ctxt_switches:")? + count("nonvoluntary_ctxt_switches:")?,
    })
}

/// The threads of this process that `wanted` selects, in the order of their tids.
#[must_use]
pub fn list(wanted: impl Fn(&Thread) -> bool) -> Vec<Thread> {
    let mut all: Vec<_> = proc::threads().into_iter().filter_map(look).collect();
    all.retain(wanted);
    all.sort_unstable();
    all
}

/// The thread of this process that has this name.
#[must_use]
pub fn by_name(name: &str) -> Option<Thread> {
    list(|thread| thread.name == name).pop()
}

/// How many threads this process has.
#[must_use]
pub fn count() -> usize {
    proc::threads().len()
}

/// How many threads of this process have a name that begins with `prefix`.
#[must_use]
pub fn named(prefix: &str) -> usize {
    list(|thread| thread.name.starts_with(prefix)).len()
}

/// Whether a thread of this name is a server of a runtime: "umcg-s0", "umcg-s1" and so on.
#[must_use]
pub fn is_server(name: &str) -> bool {
    name.rsplit_once("-s")
        .is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

/// Waits until the threads that `wanted` selects are at rest, and returns them: each sleeps in the
/// kernel, and in `period` none of them has run, has ended, or has come.
///
/// A test waits for this where the other side offers nothing else that says how far it has come.
///
/// # Panics
/// If the threads do not come to rest.
#[track_caller]
pub fn until_at_rest(
    what: &str,
    period: Duration,
    wanted: impl Fn(&Thread) -> bool,
) -> Vec<Thread> {
    let mut last = list(&wanted);
    eventually(&format!("at rest: {what}"), || {
        thread::sleep(period);
        let now = list(&wanted);
        let quiet = now == last && now.iter().all(|thread| thread.asleep);
        last = now;
        quiet
    });
    last
}

/// Waits until the helper threads of the emulated provider are at rest, so that none of them
/// watches for blocks. Other providers have none.
///
/// Returns at once in a run with wrong verdicts: the thread that makes them never rests.
///
/// # Panics
/// If the helper threads do not come to rest.
#[track_caller]
pub fn until_helpers_at_rest() {
    if !crate::wrong_verdicts() {
        until_at_rest("the helper threads", Duration::from_millis(20), |thread| {
            ["umcg-sentinel", "umcg-monitor"]
                .iter()
                .any(|name| thread.name.starts_with(name))
        });
    }
}

/// Starts `body` on a thread of its own, and returns when it has ended or can go no further.
///
/// # Panics
/// If the thread neither ends nor comes to rest.
#[track_caller]
pub fn spawn_until_at_rest<T: Send + 'static>(
    what: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(umcg_sys::gettid())
            .expect("the test waits for the tid");
        body()
    });
    let tid = told.recv().expect("the tid of the thread");
    until_at_rest(what, Duration::from_millis(20), |thread| thread.tid == tid);
    thread
}

/// Waits until all threads except the caller are at rest. Then asserts that for `time` none of them
/// wakes up.
///
/// # Panics
/// If a thread wakes up, or if they never come to rest.
#[track_caller]
pub fn stay_asleep(time: Duration) {
    let own = umcg_sys::gettid();
    let others = |thread: &Thread| thread.tid != own;
    // Longer than a helper lingers before it goes to sleep, also on a busy machine.
    let before = until_at_rest("all threads", Duration::from_millis(200), others);
    thread::sleep(time);
    assert_eq!(
        list(others),
        before,
        "a thread woke up while nothing was to be done"
    );
}
