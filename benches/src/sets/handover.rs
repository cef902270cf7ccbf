//! The time from "about to block" in one task to "running" in the next, on one server (target P4).
//!
//! Each task stores the time right before it sleeps, and the task that runs next reads it. While
//! tasks are queued, the running worker has an armed spare, to which its block switches. When only
//! workers that blocked before have something to do, the block goes by the server. For that case a
//! task computes until all others have unblocked behind it. Then it blocks, and they follow one
//! after the other; none of them wakes up in between and competes for the CPU.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::work::compute;
use crate::{
    clock::Clock,
    report::Row,
    runner::{Effort, Group},
    system::{System, Systems, Umcg},
};

pub(super) fn run(_: &Systems, effort: &Effort) -> Vec<Row> {
    groups(effort)
        .into_iter()
        .flat_map(|group| group.run_beside(effort))
        .collect()
}

/// The time of the last block, and the latencies that were seen.
#[derive(Clone)]
struct Baton(Arc<Inner>);

struct Inner {
    begin: Instant,
    /// Nanoseconds from `begin` to the last block, or 0 if no task is to read them.
    stamped: AtomicU64,
    /// Latencies in nanoseconds.
    seen: Mutex<Vec<u64>>,
}

impl Baton {
    fn new(capacity: usize) -> Self {
        Self(Arc::new(Inner {
            begin: Instant::now(),
            stamped: AtomicU64::new(0),
            seen: Mutex::new(Vec::with_capacity(capacity)),
        }))
    }

    fn now(&self) -> u64 {
        self.0.begin.elapsed().as_nanos() as u64 + 1
    }

    /// Called by a task that runs again, or for the first time. Takes the time of the block before.
    fn take(&self) {
        let since = self.0.stamped.swap(0, SeqCst);
        if since != 0 {
            let now = self.now();
            self.0.seen.lock().expect("samples").push(now - since);
        }
    }

    fn stamp(&self) {
        self.0.stamped.store(self.now(), SeqCst);
    }

    /// Discards the time of the last block.
    fn drop_stamp(&self) {
        self.0.stamped.store(0, SeqCst);
    }

    fn report(&self, clock: &mut Clock) {
        for nanos in self.0.seen.lock().expect("samples").drain(..) {
            clock.latency(Duration::from_nanos(nanos));
        }
    }
}

fn groups(effort: &Effort) -> Vec<Group<'static>> {
    let count: usize = effort.pick(10_000, 4_000);
    let sleep = Duration::from_micros(200);
    let system = || -> &'static Umcg {
        let builder = umcg::Builder::new().thread_name("one-umcg");
        Box::leak(Box::new(Umcg::build(1, builder)))
    };

    let mut spare = Group::new(
        "handover_spare",
        "from a block to the next worker, to an armed spare",
        "block",
        count as u64,
    );
    let one = system();
    spare.busy_on(one.cpu());
    spare.cell("umcg", "one-umcg", move |clock| {
        let baton = Baton::new(count);
        clock.time(|| {
            let tasks: Vec<_> = (0..count)
                .map(|_| {
                    let baton = baton.clone();
                    one.spawn_blocking(move || {
                        baton.take();
                        baton.stamp();
                        thread::sleep(sleep);
                    })
                })
                .collect();
            one.block_on(async {
                for task in tasks {
                    task.await;
                }
            });
        });
        baton.report(clock);
        blocks(one, clock);
    });

    let mut server = Group::new(
        "handover_server",
        "from a block to the next worker, by the server",
        "block",
        count as u64,
    );
    const WORKERS: usize = 16;
    /// All workers, one after the other, take a tenth of this.
    const SLEEP: Duration = Duration::from_millis(4);
    let one = system();
    server.busy_on(one.cpu());
    server.cell("umcg", "one-umcg", move |clock| {
        let baton = Baton::new(count);
        let rounds = (count / WORKERS / 4).max(1);
        clock.ops((rounds * WORKERS) as u64);
        let begun = Arc::new(AtomicU64::new(0));
        clock.time(|| {
            let tasks: Vec<_> = (0..WORKERS)
                .map(|me| {
                    let (baton, begun) = (baton.clone(), Arc::clone(&begun));
                    one.spawn_blocking(move || {
                        for round in 1..=rounds as u64 {
                            if me == 0 {
                                // All others sleep in this round, and wake up during the
                                // computation.
                                while begun.load(SeqCst) < round * (WORKERS as u64 - 1) {
                                    umcg::thread::yield_now();
                                }
                                compute(2 * SLEEP);
                            } else {
                                begun.fetch_add(1, SeqCst);
                                thread::sleep(SLEEP);
                                // Queues behind the task that computes.
                                umcg::thread::yield_now();
                                baton.take();
                            }
                            baton.stamp();
                            if me == 0 {
                                // Waits until all others have had their turn.
                                thread::sleep(SLEEP);
                                baton.drop_stamp();
                            }
                        }
                    })
                })
                .collect();
            one.block_on(async {
                for task in tasks {
                    task.await;
                }
            });
        });
        baton.report(clock);
        blocks(one, clock);
    });
    vec![spare, server]
}

/// The number of blocks that each reporter has seen so far.
fn blocks(system: &Umcg, clock: &mut Clock) {
    let metrics = system.runtime().metrics();
    clock.figure(
        "blocks by sentinel",
        metrics.provider().blocks_sentinel as f64,
    );
    clock.figure(
        "blocks by monitor",
        metrics.provider().blocks_monitor as f64,
    );
    clock.figure("blocks by kernel", metrics.provider().blocks_kernel as f64);
}
