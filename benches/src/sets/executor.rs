//! Futures that do not block (target P5).

use super::work::{self, Stalling};
use crate::{
    clock::Clock,
    for_futures,
    report::Row,
    runner::{Effort, Group},
    system::{May, System, Systems},
};

/// Iterations of the original bench in one measured round, so that a round takes about 10 ms.
const MORE: u64 = 5;

/// A group that runs `$work` on each system that runs futures.
macro_rules! group {
    ($systems:expr, $id:expr, $title:expr, $unit:expr, $ops:expr, $times:expr, $s:ident => $work:expr) => {{
        let mut group = Group::new($id, $title, $unit, $ops as u64);
        for_futures!($systems, $s => if takes($id, name($s)) {
            let times = times(name($s), $times);
            group.cell(name($s), threads($s), move |clock: &mut Clock| {
                clock.ops($ops as u64 * times);
                clock.time(|| for _ in 0..times { $work })
            });
        });
        group
    }};
}

/// Whether that system takes part in that group. may does not where there are 90 000 coroutines at
/// a time, which need more mappings than Linux allows a process by default.
fn takes(id: &str, system: &str) -> bool {
    !(id == "spawn_recursively" && system == May::NAME)
}

/// The number of iterations in a round. One is enough for may, which is slow at making coroutines.
fn times(system: &str, times: u64) -> u64 {
    if system == May::NAME { 1 } else { times }
}

fn name<S: System>(_: &'static S) -> &'static str {
    S::NAME
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let mut groups = targeted(systems, effort);
    groups.extend(others(systems));
    groups
        .into_iter()
        .flat_map(|group| group.run(effort))
        .collect()
}

/// The groups of P5, for systems with one worker: the cost when nothing is shared.
pub(super) fn one(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let groups = targeted(systems, effort).into_iter();
    let mut rows: Vec<Row> = groups.flat_map(|group| group.run(effort)).collect();
    for row in &mut rows {
        row.title += ", one worker";
    }
    rows
}

/// The groups of P5, which P9 runs too.
pub(super) fn targeted(systems: &Systems, effort: &Effort) -> Vec<Group<'static>> {
    let more = effort.pick(MORE, 2);
    vec![
        group!(
            systems,
            "spawn_many_local",
            "spawn 10 000 from block_on (tokio's spawn_many_local)",
            "task",
            work::SPAWNS,
            more,
            s => work::spawn_many_local(s)
        ),
        group!(
            systems,
            "spawn_many_worker",
            "spawn 10 000 from a task",
            "task",
            work::SPAWNS,
            more,
            s => work::spawn_many_worker(s)
        ),
        group!(
            systems,
            "spawn_many_remote",
            "spawn 10 000 from an outside thread, await each (tokio's spawn_many_remote_idle)",
            "task",
            work::SPAWNS,
            more,
            s => work::spawn_many_remote(s)
        ),
        group!(
            systems,
            "yield_many",
            "200 tasks yield 1000 times, each system's own yield (tokio's yield_many)",
            "yield",
            work::YIELDERS * work::YIELDS,
            1,
            s => work::yield_many(s, true)
        ),
        group!(
            systems,
            "ping_pong",
            "1000 pings: 2 tasks, 2 oneshots each (tokio's ping_pong)",
            "ping",
            work::PINGS,
            4 * more,
            s => work::ping_pong(s)
        ),
        group!(
            systems,
            "chained_spawn",
            "1000 tasks, each spawns the next (tokio's chained_spawn)",
            "task",
            work::CHAIN,
            10 * more,
            s => work::chained_spawn(s)
        ),
        group!(
            systems,
            "web_server",
            "300 requests, half ask a database task (async-executor's web_server)",
            "request",
            work::TASKS,
            1,
            s => work::web_server(s)
        ),
    ]
}

fn others(systems: &Systems) -> Vec<Group<'static>> {
    let mut groups = vec![
        group!(
            systems,
            "yield_many_wake",
            "200 tasks yield 1000 times by a wake of themselves",
            "yield",
            work::YIELDERS * work::YIELDS,
            1,
            s => work::yield_many(s, false)
        ),
        group!(
            systems,
            "spawn_one",
            "spawn one, await it from block_on (async-executor's spawn_one)",
            "task",
            1,
            500,
            s => work::spawn_one(s)
        ),
        group!(
            systems,
            "spawn_many_joined",
            "spawn 25 000 from block_on, await each (async-executor's spawn_many_local)",
            "task",
            work::LIGHT_TASKS,
            2,
            s => work::spawn_many_joined(s)
        ),
        group!(
            systems,
            "spawn_recursively",
            "300 chains of 300 tasks that await the next (async-executor's)",
            "task",
            work::TASKS * work::STEPS,
            1,
            s => work::spawn_recursively(s)
        ),
        group!(
            systems,
            "channels",
            "a token in a ring of 300 tasks, 300 times (async-executor's)",
            "hop",
            work::TASKS * work::STEPS,
            1,
            s => work::channels(s)
        ),
        group!(
            systems,
            "noop_blocking",
            "2 tasks, 100 batches of 16 empty closures (tokio's spawn_blocking)",
            "closure",
            3200,
            2,
            s => work::noop_blocking(s, 2)
        ),
    ];
    groups.extend(busy(systems));
    groups.extend(remote_spawn(systems));
    groups
}

/// tokio's `spawn_many_remote_busy1` and `_busy2`, in which the workers are busy.
fn busy(systems: &Systems) -> [Group<'static>; 2] {
    let workers = systems.workers;
    let (mut one, mut two) = (
        Group::new(
            "spawn_many_busy1",
            "spawn 10 000 from outside beside tasks that compute and yield (tokio's _busy1)",
            "task",
            work::SPAWNS as u64,
        ),
        Group::new(
            "spawn_many_busy2",
            "spawn 10 000 from outside beside tasks that compute and wake themselves (tokio's _busy2)",
            "task",
            work::SPAWNS as u64,
        ),
    );
    // The pool of `futures` is left out, because its tasks that wake themselves never leave their
    // worker. may is left out, because a poll that wakes itself is no yield there either.
    macro_rules! cells {
        ($($s:expr),*) => {$({
            let s = $s;
            one.cell(name(s), threads(s), move |clock| {
                let _busy = Stalling::yielding(s, workers);
                clock.time(|| work::spawn_many_remote(s));
            });
            two.cell(name(s), threads(s), move |clock| {
                let _busy = Stalling::waking(s, workers);
                clock.time(|| work::spawn_many_remote(s));
            });
        })*};
    }
    cells!(systems.umcg, systems.tokio, systems.async_executor);
    [one, two]
}

/// tokio's `remote_spawn`, which times the pushes only.
fn remote_spawn(systems: &Systems) -> Vec<Group<'static>> {
    [(1, "remote_spawn_1"), (4, "remote_spawn_4")]
        .into_iter()
        .map(|(pushers, id)| {
            let mut group = Group::new(
                id,
                format!("push 12 800 tasks from {pushers} outside threads (tokio's remote_spawn)"),
                "task",
                work::REMOTE as u64,
            );
            for_futures!(systems, s => group.cell(name(s), threads(s), move |clock: &mut Clock| {
                let took = clock.time(|| work::remote_spawn(s, pushers));
                clock.wall_is(took);
            }));
            group
        })
        .collect()
}
