//! From "about to block" in one task to "running" in the next, on one server (P4).
//!
//! Each task stamps the time right before it sleeps; who runs next takes the stamp. With tasks
//! queued there is an idle worker armed, which the block switches to by itself. Where instead
//! only workers that were blocked before have something to do, the block goes through the
//! server. For that a task computes for so long that all the others have unblocked behind it, and
//! then blocks, as they do one after the other: none wakes up in between and wants the CPU too.

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

/// Who stamped last, and what the others saw.
#[derive(Clone)]
struct Baton(Arc<Inner>);

struct Inner {
    begin: Instant,
    stamped: AtomicU64,
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

    /// Runs again, or for the first time: takes the stamp of who blocked before.
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

    /// Nobody is to take what was stamped last.
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
        "block -> next worker running, to an armed spare",
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
        "block -> next worker running, via the server",
        "block",
        count as u64,
    );
    const WORKERS: usize = 16;
    /// The chain of all workers takes a tenth of this.
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
                                // All have gone to sleep for this round, and wake up meanwhile.
                                while begun.load(SeqCst) < round * (WORKERS as u64 - 1) {
                                    umcg::thread::yield_now();
                                }
                                compute(2 * SLEEP);
                            } else {
                                begun.fetch_add(1, SeqCst);
                                thread::sleep(SLEEP);
                                // Queues up behind the one that computes.
                                umcg::thread::yield_now();
                                baton.take();
                            }
                            baton.stamp();
                            if me == 0 {
                                // Until the others have passed the stamp on.
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

/// Who reported how many blocks so far.
fn blocks(system: &Umcg, clock: &mut Clock) {
    let metrics = system.runtime().metrics();
    clock.figure("blocks by sentinel", metrics.provider().blocks_sentinel as f64);
    clock.figure("blocks by monitor", metrics.provider().blocks_monitor as f64);
    clock.figure("blocks by kernel", metrics.provider().blocks_kernel as f64);
}
