//! An idle runtime costs nothing: no thread of this process wakes up. The only test in its file,
//! since it counts over the whole process.

use std::{collections::BTreeMap, time::Duration};

use umcg::Builder;

use umcg_tests::{fault::apart, skip};

use crate::common::{eventually, pipe, wrong_verdicts};

#[derive(Debug, PartialEq, Eq)]
struct Thread {
    asleep: bool,
    /// Context switches so far.
    switches: u64,
}

/// Each thread but the caller's.
fn switches() -> BTreeMap<String, Thread> {
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
            let asleep = status.lines().any(|line| line.starts_with("State:\tS"));
            Some((
                format!("{name} {}", path.display()),
                Thread { asleep, switches },
            ))
        })
        .collect()
}

#[test]
fn no_thread_wakes_up_while_nothing_is_to_be_done() {
    apart(60, idle);
}

fn idle() {
    if wrong_verdicts() {
        skip!("the thread that makes wrong verdicts does");
    }
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

    // Whoever lingers comes to rest first. Asleep, too: on a busy machine a sentinel may be on its
    // way to bed for long.
    let before = std::cell::RefCell::new(switches());
    eventually("all threads are asleep", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = switches();
        let quiet = *before.borrow() == now && now.values().all(|thread| thread.asleep);
        before.replace(now);
        quiet
    });
    // From here on not a single wake-up.
    std::thread::sleep(Duration::from_secs(3));
    let (before, after) = (before.into_inner(), switches());
    let woken: Vec<_> = after
        .iter()
        .filter(|(thread, now)| before.get(*thread) != Some(*now))
        .collect();
    assert!(
        woken.is_empty() && before.len() == after.len(),
        "threads that woke up: {woken:?}, of {before:?}"
    );
    drop(write);
    assert_eq!(blocked.join().unwrap(), 0);
    suspended.abort();
}
