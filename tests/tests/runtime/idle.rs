//! A runtime that has nothing to do costs nothing: none of its threads wakes up.

use std::{future, time::Duration};

use umcg::Builder;
use umcg_tests::{
    eventually, isolated,
    runtime::{assert_blocks_are_seen, block_tasks, join_all, run_mixed_tasks},
    skip, threads, wrong_verdicts,
};

fn nobody_wakes_up(blocked: usize, queued: usize) {
    if wrong_verdicts() {
        skip!("the thread that makes wrong verdicts wakes up");
    }
    let runtime = Builder::new()
        .servers(2)
        .max_workers(if queued > 0 { blocked } else { 4096 })
        .keep_alive(Duration::from_millis(50))
        .build()
        .unwrap();
    // Everything has been used once: workers, the monitor, timers.
    run_mixed_tasks(&runtime, 100);
    assert_blocks_are_seen(&runtime);
    let timer = umcg::time::sleep(Duration::from_millis(5));
    runtime.spawn(timer).join().unwrap();
    let suspended = runtime.spawn(future::pending::<()>());
    eventually("it is suspended", || {
        runtime.metrics().num_suspended_tasks() == 1
    });
    let (gate, blocked) = block_tasks(&runtime, blocked);
    let queued: Vec<_> = (0..queued)
        .map(|i| runtime.spawn(async move { i }))
        .collect();
    // After a second the worker spawner reports once that the tasks wait.
    eventually("the wait is reported", || {
        queued.is_empty() || runtime.metrics().worker_limit_waits_count() > 0
    });
    // The workers beyond `min_idle_workers` leave first.
    threads::stay_asleep(Duration::from_secs(2));
    gate.open();
    join_all(blocked);
    join_all(queued);
    suspended.abort();
}

#[test]
fn an_idle_runtime_does_not_wake_up() {
    isolated(60, || nobody_wakes_up(0, 0));
}

#[test]
fn a_runtime_whose_tasks_are_all_blocked_does_not_wake_up() {
    isolated(60, || nobody_wakes_up(10, 0));
}

/// Nothing can be done for a queued task until a worker unblocks.
#[test]
fn a_full_pool_with_tasks_queued_does_not_wake_up() {
    isolated(60, || nobody_wakes_up(8, 40));
}
