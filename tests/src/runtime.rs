//! Runtimes for tests, and work that shows whether a runtime does its job.

use std::{
    hint,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, JoinHandle, Runtime};

use crate::{BlockerGate, watchdog::eventually};

/// The numbers of servers that a property is tried with. The machine may have two CPUs.
pub const SERVERS: [usize; 3] = [1, 2, 5];

/// A runtime with as many servers as `UMCG_SERVERS` says, or one for each CPU.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn default_runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// A runtime with this number of servers.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn runtime_with(servers: usize) -> Runtime {
    Builder::new().servers(servers).build().expect("a runtime")
}

/// Keeps the CPU busy for this long, without a system call that could block.
pub fn compute(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        hint::spin_loop();
    }
}

/// Spawns tasks that block until the gate is opened, and waits until all of them are blocked. Half
/// of them are closures and half of them futures, and each returns its number.
///
/// # Panics
/// If they do not all block.
#[track_caller]
pub fn block_tasks(runtime: &Runtime, tasks: usize) -> (Arc<BlockerGate>, Vec<JoinHandle<usize>>) {
    let gate = Arc::new(BlockerGate::new());
    let handles = (0..tasks)
        .map(|i| {
            let gate = Arc::clone(&gate);
            let body = move || {
                gate.wait();
                i
            };
            if i % 2 == 0 {
                runtime.spawn_blocking(body)
            } else {
                runtime.spawn(async move { body() })
            }
        })
        .collect();
    eventually("all tasks are blocked", || gate.waiting() == tasks);
    (gate, handles)
}

/// Joins tasks of which each returns its number.
///
/// # Panics
/// If a task has failed, or if a result is wrong.
#[track_caller]
pub fn join_all(handles: Vec<JoinHandle<usize>>) {
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().expect("the task fails"), i);
    }
}

/// Runs a mix of futures and closures, most of which sleep for a millisecond.
///
/// # Panics
/// If a result is lost or wrong.
#[track_caller]
pub fn run_mixed_tasks(runtime: &Runtime, tasks: usize) {
    let nap = || thread::sleep(Duration::from_millis(1));
    let handles: Vec<_> = (0..tasks)
        .map(|i| match i % 4 {
            0 => runtime.spawn(async move {
                umcg::yield_now().await;
                i
            }),
            1 => runtime.spawn(async move {
                nap();
                umcg::yield_now().await;
                i
            }),
            _ => runtime.spawn_blocking(move || {
                nap();
                i
            }),
        })
        .collect();
    join_all(handles);
}

/// Blocks one task more than there are servers. Asserts that another task still runs, and soon.
///
/// # Panics
/// If it does not, or if a blocked task does not come back.
#[track_caller]
pub fn assert_blocks_are_seen(runtime: &Runtime) {
    let servers = runtime.metrics().servers().len();
    let (gate, handles) = block_tasks(runtime, servers + 1);
    let begun = Instant::now();
    assert_eq!(runtime.spawn(async { 7 }).join().expect("it runs"), 7);
    // At least one worker had to be found blocked before this task got a slot. That takes no longer
    // than the block bound of the provider; the rest is for other load on the machine.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "it ran after {took:?}");
    gate.open();
    join_all(handles);
}
