//! An idle runtime costs nothing: no thread of this process wakes up. The only test in its file,
//! since it counts over the whole process.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use umcg::Builder;

mod common;
use common::{eventually, pipe};

/// Context switches of each thread so far, but for the caller's.
fn switches() -> BTreeMap<String, u64> {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name() != own.file_name())
        .filter_map(|path| {
            let status = std::fs::read_to_string(path.join("status")).ok()?;
            let name = status.lines().next()?.to_owned();
            let switches = status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .map(|line| {
                    line.split_whitespace()
                        .last()
                        .unwrap()
                        .parse::<u64>()
                        .unwrap()
                })
                .sum();
            Some((format!("{name} {}", path.display()), switches))
        })
        .collect()
}

#[test]
fn no_thread_wakes_up_while_nothing_is_to_be_done() {
    let runtime = Builder::new()
        .servers(2)
        .keep_alive(Duration::from_millis(300))
        .build()
        .unwrap();
    // Grow, and keep one task suspended and one blocked for good.
    let tasks: Vec<_> = (0..50)
        .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))))
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    let suspended = runtime.spawn(std::future::pending::<()>());
    let (mut read, write) = pipe();
    let blocked = runtime.spawn_blocking(move || std::io::Read::read(&mut read, &mut [0]).unwrap());
    let handle = runtime.handle().clone();
    eventually("idle workers leave", || handle.metrics().workers.total <= 3);

    // Whoever lingers, lingers for less than this; then all is quiet.
    let quiet = Duration::from_secs(3);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = switches();
        std::thread::sleep(quiet);
        let after = switches();
        if before == after {
            break;
        }
        let changed: Vec<_> = after
            .iter()
            .filter(|(thread, count)| before.get(*thread) != Some(*count))
            .collect();
        assert!(
            Instant::now() < deadline,
            "threads that woke up in {quiet:?} of idleness: {changed:?}"
        );
    }
    drop(write);
    assert_eq!(blocked.join().unwrap(), 0);
    suspended.abort();
}
