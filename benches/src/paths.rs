//! Instructions of the runtime's hot paths, counted by callgrind.
//!
//! This program runs under valgrind, once with few and once with many operations. The difference is
//! the cost of the operations in all threads, without the cost of the start. The runtime has one
//! server and no pinning, so that no sentinel runs. Instruction counts are far steadier than times,
//! so they show changes of a few per cent. They say nothing about the kernel or about caches.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
};

use umcg::Runtime;

use crate::{runner::median, system::Countdown};

/// The hidden argument that runs a path.
pub const PATH: &str = "--path";

/// The paths and their descriptions.
pub const PATHS: [(&str, &str); 7] = [
    ("spawn_run", "spawn a future in a task, pop it, run it"),
    ("spawn_join", "the same, and await its handle"),
    (
        "inject_run",
        "spawn an empty future in an outside thread, pop it, run it",
    ),
    ("closure_run", "spawn a closure in a task, pop it, run it"),
    (
        "wake_run",
        "wake a future from another one, pop it, poll it",
    ),
    (
        "checkpoint",
        "umcg::thread::yield_now when nothing waits: a checkpoint and a look at the queues",
    ),
    (
        "yield_run",
        "a future wakes itself and yields, is popped and polled",
    ),
];

const FEW: usize = 1_000;
const MANY: usize = 11_000;

/// The relative change of a count that is an error, or, if the count is smaller, a reason to renew
/// the stored counts. Counts differ a little from run to run, because the other threads do.
const TOLERANCE: f64 = 0.10;

/// Runs `count` operations of that path. Returns false if there is no such path.
pub fn run(path: &str, count: usize) -> bool {
    let runtime = umcg::Builder::new()
        .servers(1)
        .pin(false)
        .build()
        .expect("a runtime");
    match path {
        "spawn_run" => all(&runtime, count, |done| {
            drop(umcg::spawn(async move { done.done() }));
        }),
        "spawn_join" => runtime
            .block_on(runtime.spawn(async move {
                for _ in 0..count {
                    umcg::spawn(async {}).await.expect("the task");
                }
            }))
            .expect("the task"),
        "inject_run" => {
            let tasks: Vec<_> = (0..count).map(|_| runtime.spawn(async {})).collect();
            for task in tasks {
                task.join().expect("the task");
            }
        }
        "closure_run" => all(&runtime, count, |done| {
            drop(umcg::spawn_blocking(move || done.done()));
        }),
        "checkpoint" => runtime
            .spawn_blocking(move || {
                for _ in 0..count {
                    umcg::thread::yield_now();
                }
            })
            .join()
            .expect("the task"),
        "wake_run" => wake(&runtime, count),
        "yield_run" => runtime
            .block_on(runtime.spawn(async move {
                for _ in 0..count {
                    futures_lite::future::yield_now().await;
                }
            }))
            .expect("the task"),
        _ => return false,
    }
    runtime.shutdown_background();
    true
}

/// Lets a task spawn this many tasks, and waits until all are done.
fn all(runtime: &Runtime, count: usize, spawn: impl Fn(Countdown) + Send + 'static) {
    let countdown = Countdown::new(count);
    let done = countdown.clone();
    drop(runtime.spawn(async move {
        for _ in 0..count {
            spawn(done.clone());
        }
    }));
    countdown.wait();
}

/// Two futures that wake each other in turn.
fn wake(runtime: &Runtime, count: usize) {
    let turn = Arc::new(AtomicUsize::new(0));
    let wakers = Arc::new([const { futures::task::AtomicWaker::new() }; 2]);
    let tasks: Vec<_> = (0..2)
        .map(|me| {
            let (turn, wakers) = (Arc::clone(&turn), Arc::clone(&wakers));
            runtime.spawn(std::future::poll_fn(move |cx| {
                wakers[me].register(cx.waker());
                let now = turn.load(SeqCst);
                if now >= count {
                    wakers[1 - me].wake();
                    return Poll::Ready(());
                }
                if now % 2 == me {
                    turn.store(now + 1, SeqCst);
                    wakers[1 - me].wake();
                }
                Poll::Pending
            }))
        })
        .collect();
    for task in tasks {
        task.join().expect("the task");
    }
}

/// Counts the instructions of one operation of each path.
///
/// # Errors
///
/// valgrind is missing, or its output is unexpected.
pub fn count() -> io::Result<BTreeMap<String, f64>> {
    let mut counts = BTreeMap::new();
    for (path, _) in PATHS {
        let mut found = Vec::new();
        for _ in 0..3 {
            let (few, many) = (instructions(path, FEW)?, instructions(path, MANY)?);
            found.push((many as f64 - few as f64) / (MANY - FEW) as f64);
        }
        counts.insert(path.to_string(), median(found).round());
    }
    Ok(counts)
}

/// The instructions of a whole run, in all threads.
fn instructions(path: &str, count: usize) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([PATH, path, &count.to_string()])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .find_map(|line| line.split_once("Collected :"))
        .and_then(|(_, number)| number.trim().parse().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| io::Error::other(format!("callgrind said:\n{text}")))
}

/// Counts, and prints the counts beside the stored ones. Returns whether all are within the
/// tolerance. With `renew` it stores the counts before.
///
/// # Errors
///
/// Those of [`count`] and of the file.
pub fn compare(file: &Path, renew: bool) -> io::Result<bool> {
    let counts = count()?;
    if renew {
        let text: String = counts
            .iter()
            .map(|(path, count)| format!("{path} {count}\n"))
            .collect();
        fs::write(file, text)?;
    }
    let stored: BTreeMap<String, f64> = fs::read_to_string(file)?
        .lines()
        .filter_map(|line| {
            let (path, count) = line.split_once(' ')?;
            Some((path.to_string(), count.parse().ok()?))
        })
        .collect();
    let mut good = true;
    println!("| path | instructions | stored | |\n|---|--:|--:|---|");
    for (path, what) in PATHS {
        let (now, then) = (counts[path], stored.get(path).copied());
        let word = match then {
            None => "not stored",
            Some(then) if now > then * (1.0 + TOLERANCE) => "**more**",
            Some(then) if now < then * (1.0 - TOLERANCE) => "less: store it",
            Some(_) => "same",
        };
        good &= matches!(word, "same" | "less: store it");
        let then = then.map_or(String::new(), |then| then.to_string());
        println!("| {path}: {what} | {now} | {then} | {word} |");
    }
    Ok(good)
}
