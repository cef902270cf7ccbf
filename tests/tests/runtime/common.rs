//! What the tests of the whole runtime share.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::net::UnixStream,
    sync::mpsc,
    time::{Duration, Instant},
};

/// The counts of servers that every property is tried with; this machine may have 2 CPUs.
pub(crate) const SERVERS: [usize; 3] = [1, 2, 5];

/// Runs `f` on a thread of its own; panics if it takes longer than `limit`.
pub(crate) fn within<R: Send + 'static>(
    limit: Duration,
    what: &str,
    f: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = f();
        let _ = tell.send(());
        result
    });
    match told.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} took longer than {limit:?}"),
        // Disconnected: it panicked.
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(result) => result,
            Err(payload) => std::panic::resume_unwind(payload),
        },
    }
}

/// Waits until `condition` holds; panics after 30 s.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "did not happen within 30 s: {what}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this run judges workers wrongly on purpose, so that running ones count as blocked.
pub(crate) fn wrong_verdicts() -> bool {
    env::var_os("UMCG_FAULT").is_some_and(|value| !value.is_empty())
}

/// Says that a test, by its full name, cannot run here: past the capture of the test harness, and
/// in the file that `UMCG_SKIP_LOG` names, where ci/prelude.sh counts it. The same line as that of
/// the package umcg-tests.
pub(crate) fn skipped(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("UMCG_SKIP_LOG") {
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// The names of this process's threads that begin with `prefix`.
pub(crate) fn threads(prefix: &str) -> Vec<String> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Two ends that block in `read` until the other is written to or dropped.
pub(crate) fn pipe() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}
