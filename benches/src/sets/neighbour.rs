//! A 1 ms ticker beside tasks that block or compute for long (target P8).
//!
//! The ticks are due at fixed times. Each missed tick counts with its own lateness, so that a long
//! stall is more than one sample.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::work::{Stop, compute};
use crate::{
    clock::Clock,
    for_futures,
    report::Row,
    runner::{Effort, Group},
    system::{System, Systems, Tokio},
};

const PERIOD: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(100);

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let ticks = effort.pick(1500, 500);
    let effort = &Effort {
        rounds: effort.rounds.min(3),
        ..*effort
    };
    [
        ("ticker_alone", "a 1 ms ticker, nothing else", 0, 0),
        (
            "ticker_one",
            "a 1 ms ticker beside one task that blocks 100 ms again and again",
            1,
            0,
        ),
        (
            "ticker_blocked",
            "a 1 ms ticker beside 8 tasks that block 100 ms",
            8,
            0,
        ),
        (
            "ticker_mixed",
            "a 1 ms ticker beside 8 tasks that block 100 ms and 2 that compute 100 ms",
            8,
            2,
        ),
    ]
    .into_iter()
    .flat_map(|(id, title, blocking, computing)| {
        let load = Load {
            blocking,
            computing,
        };
        let mut group = Group::new(id, format!("{title}; lateness of the ticks"), "tick", ticks);
        for_futures!(systems, s => group.cell(name(s), threads(s), move |clock: &mut Clock| {
            ticker(s, load, false, ticks, clock);
        }));
        let bare = systems.bare_umcg;
        group.cell(name(bare), threads(bare), move |clock: &mut Clock| {
            ticker(bare, load, false, ticks, clock);
        });
        // What users of tokio do: pass what blocks to `spawn_blocking`.
        let tokio = systems.tokio;
        if blocking > 0 {
            group.cell("tokio spawn_blocking", Tokio::THREADS, move |clock| {
                ticker(tokio, load, true, ticks, clock);
            });
        }
        let std = systems.std_threads;
        group.cell("std threads", threads(std), move |clock: &mut Clock| {
            ticker(std, load, false, ticks, clock);
        });
        group.run(effort)
    })
    .collect()
}

/// The numbers of tasks beside the ticker.
#[derive(Clone, Copy)]
struct Load {
    blocking: usize,
    computing: usize,
}

fn ticker<S: System>(system: &'static S, load: Load, told: bool, ticks: u64, clock: &mut Clock) {
    let stop = Stop::default();
    let short = Arc::new(AtomicU64::new(0));
    let mut neighbours = Vec::new();
    for _ in 0..load.blocking {
        let stop = stop.clone();
        neighbours.push(system.spawn(async move {
            while !stop.is_set() {
                // It waits for a timer first, as a task that waits for a request would. So it
                // blocks on whichever worker the timer wakes it.
                S::sleep(Duration::from_millis(5)).await;
                if told {
                    system.spawn_blocking(|| thread::sleep(LONG)).await;
                } else {
                    thread::sleep(LONG);
                }
            }
        }));
    }
    for _ in 0..load.computing {
        let stop = stop.clone();
        neighbours.push(system.spawn(async move {
            while !stop.is_set() {
                compute(LONG);
                S::yield_now().await;
            }
        }));
    }
    // Short tasks one after the other, to count how many of them run.
    let shorts = {
        let (stop, short) = (stop.clone(), Arc::clone(&short));
        system.spawn(async move {
            while !stop.is_set() {
                S::sleep(PERIOD).await;
                system.spawn(async {}).await;
                short.fetch_add(1, Relaxed);
            }
        })
    };
    let (tell, told_late) = mpsc::channel();
    let begin = Instant::now();
    let late = clock.time(|| {
        system.spawn_detached(async move {
            // Ticks are due from the time of the spawn on: a ticker that does not begin is late.
            let mut due = begin;
            let mut late = Vec::with_capacity(ticks as usize);
            while (late.len() as u64) < ticks {
                due += PERIOD;
                let wait = due.saturating_duration_since(Instant::now());
                if !wait.is_zero() {
                    S::sleep(wait).await;
                }
                late.push(Instant::now().saturating_duration_since(due));
            }
            let _ = tell.send(late);
        });
        let limit = PERIOD * ticks as u32 * 10;
        told_late.recv_timeout(limit).unwrap_or_else(|_| {
            // The ticker starves on a system that polls a task which yields again at once.
            stop.set();
            told_late.recv().expect("the ticker")
        })
    });
    for late in late {
        clock.latency(late);
    }
    let seconds = begin.elapsed().as_secs_f64();
    stop.set();
    clock.figure("short tasks per s", short.load(Relaxed) as f64 / seconds);
    system.block_on(async {
        for neighbour in neighbours {
            neighbour.await;
        }
        shorts.await;
    });
}

fn name<S: System>(_: &'static S) -> &'static str {
    S::NAME
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}
