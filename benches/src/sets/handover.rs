//! The time from "about to block" in one task to "running" in the next, on one server (target P4).
//!
//! Each task stores the time right before it blocks, and the task that runs next reads it. There
//! are three ways from one to the other:
//!
//! - To an armed spare. While tasks are queued, the running worker has one, to which its block
//!   switches.
//! - By the server, when only workers that yielded have something to do. For that case a task
//!   computes until all others have unblocked behind it. Then it blocks, and they follow one after
//!   the other; none of them wakes up in between and competes for the CPU.
//! - Directly to a worker that waits for the slot, because it came back from a call. Only managed
//!   calls do that. The block may be announced (a wait with a futex: the worker gives its slot away
//!   and makes the call) or parked (a sleep: the worker waits in its gate in place of the call).
//!   If no worker waited when the first one blocked, it has kept its slot, and the next one to come
//!   back takes the slot over from it.

use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    threads::{TURNS, switches},
    work::compute,
};
use crate::{
    clock::Clock,
    cpu::pin,
    report::Row,
    runner::{Effort, Group},
    system::{BareUmcg, StdThreads, System, Systems, Umcg},
};

/// The cell that the others of its group are compared with in the targets.
pub(crate) const FUTEX_SWITCH: &str = "bare futex switch";

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

/// Adds a cell with managed calls, and one without.
macro_rules! both {
    ($group:expr, $one:expr, $bare:expr, |$s:ident, $clock:ident| $work:expr) => {{
        let (one, bare) = ($one, $bare);
        $group.cell(Umcg::NAME, "one-umcg", move |clock: &mut Clock| {
            counted(one, one.runtime(), clock, |$s, $clock| $work);
        });
        $group.cell(
            BareUmcg::NAME,
            BareUmcg::THREADS,
            move |clock: &mut Clock| {
                counted(bare, bare.runtime(), clock, |$s, $clock| $work);
            },
        );
    }};
}

fn groups(effort: &Effort) -> Vec<Group<'static>> {
    let count: usize = effort.pick(10_000, 4_000);
    let builder = umcg::Builder::new().thread_name("one-umcg");
    let one: &'static Umcg = Box::leak(Box::new(Umcg::build(1, builder)));
    let bare: &'static BareUmcg = Box::leak(Box::new(Umcg::bare(1)));

    let mut spare = Group::new(
        "handover_spare",
        "from a block to the next worker while tasks are queued: to an armed spare, or, with \
         managed calls, also to a worker that came back",
        "block",
        count as u64,
    );
    both!(spare, one, bare, |s, clock| queued(s, count, clock));

    let mut server = Group::new(
        "handover_server",
        "from a block to the next worker, by the server",
        "block",
        count as u64,
    );
    both!(server, one, bare, |s, clock| yielded(s, count, clock));

    let announced = direct(
        "handover_announced",
        "from a wait with a futex to a worker that came back from one",
        thread::park_timeout,
        (one, bare),
        count,
    );
    let sleep = direct(
        "handover_sleep",
        "from a sleep to a worker that came back from one",
        thread::sleep,
        (one, bare),
        count,
    );
    let mut groups = vec![spare, server, announced, sleep];
    for group in &mut groups {
        group.busy_on(one.cpu());
    }
    groups
}

/// All tasks are queued, and each blocks once.
fn queued<S: System>(one: &'static S, count: usize, clock: &mut Clock) {
    const SLEEP: Duration = Duration::from_micros(200);
    let baton = Baton::new(count);
    clock.time(|| {
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let baton = baton.clone();
                one.spawn_blocking(move || {
                    baton.take();
                    baton.stamp();
                    thread::sleep(SLEEP);
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
}

/// The workers that are to run have yielded, so only the server can pick them.
fn yielded<S: System>(one: &'static S, count: usize, clock: &mut Clock) {
    const WORKERS: usize = 16;
    /// All workers, one after the other, take a tenth of this.
    const SLEEP: Duration = Duration::from_millis(4);
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
                            // All others sleep in this round, and wake up during the computation.
                            while begun.load(SeqCst) < round * (WORKERS as u64 - 1) {
                                umcg::thread::yield_now();
                            }
                            compute(2 * SLEEP);
                            // Waits until all others have had their turn. With managed calls the
                            // others have not yielded yet, but wait for the slot where they sleep.
                            // So this block is no sample: they yield before one of them takes it.
                            thread::sleep(SLEEP);
                            baton.drop_stamp();
                        } else {
                            begun.fetch_add(1, SeqCst);
                            thread::sleep(SLEEP);
                            // Queues behind all others.
                            umcg::thread::yield_now();
                            baton.take();
                            baton.stamp();
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
}

/// The members of [`relay`].
const MEMBERS: usize = 64;

/// A group in which the next worker waits for the slot, because it came back from a block of its
/// own. Beside it the same on threads of std on the CPU of that server, and a bare futex switch.
fn direct(
    id: &'static str,
    title: &str,
    block: fn(Duration),
    (one, bare): (&'static Umcg, &'static BareUmcg),
    count: usize,
) -> Group<'static> {
    let mut group = Group::new(id, title, "block", count as u64);
    let cpu = one.cpu();
    both!(group, one, bare, |s, clock| relay(
        s,
        &[],
        block,
        count,
        clock
    ));
    group.cell(StdThreads::NAME, StdThreads::THREADS, move |clock| {
        relay(&StdThreads, &[cpu], block, count, clock);
    });
    group.cell(FUTEX_SWITCH, "futex-", move |clock| {
        clock.ops(u64::from(TURNS));
        clock.time(|| switches(TURNS, cpu, libc::SCHED_OTHER));
    });
    group
}

/// The members compute for a moment and block, in turns, `count` times between them. They ask for
/// twice as much as the CPU can do, so there is always a next one.
fn relay<S: System>(
    system: &'static S,
    cpus: &[usize],
    block: fn(Duration),
    count: usize,
    clock: &mut Clock,
) {
    const COMPUTE: Duration = Duration::from_micros(5);
    const PAUSE: Duration = Duration::from_micros(200);
    let baton = Baton::new(count);
    let left = Arc::new(AtomicUsize::new(count));
    let start = Arc::new(Barrier::new(MEMBERS));
    clock.time(|| {
        let tasks: Vec<_> = (0..MEMBERS)
            .map(|_| {
                let (baton, left, start) = (baton.clone(), Arc::clone(&left), Arc::clone(&start));
                let cpus = cpus.to_vec();
                system.spawn_blocking(move || {
                    pin(&cpus);
                    start.wait();
                    let one_less = |left: usize| left.checked_sub(1);
                    loop {
                        // Looks for the last block all the time: a member that was preempted is a
                        // next one, too.
                        let begin = Instant::now();
                        while begin.elapsed() < COMPUTE {
                            baton.take();
                        }
                        if left.fetch_update(SeqCst, SeqCst, one_less).is_err() {
                            break;
                        }
                        baton.stamp();
                        block(PAUSE);
                    }
                })
            })
            .collect();
        system.block_on(async {
            for task in tasks {
                task.await;
            }
        });
    });
    baton.report(clock);
}

/// Does the work, and records how many of its blocks each reporter has seen.
fn counted<S: System>(
    one: &'static S,
    runtime: &umcg::Runtime,
    clock: &mut Clock,
    work: impl FnOnce(&'static S, &mut Clock),
) {
    let counters = || {
        let metrics = runtime.metrics();
        let provider = metrics.provider();
        [
            ("blocks announced", provider.blocks_announced),
            ("blocks parked", metrics.parked_blocks_count()),
            ("blocks by sentinel", provider.blocks_sentinel),
            ("blocks by monitor", provider.blocks_monitor),
            ("blocks by kernel", provider.blocks_kernel),
            // The slot of a worker that had blocked in it, without having given it away.
            ("slots taken over", provider.taken_over),
        ]
    };
    let before = counters();
    work(one, clock);
    for ((name, after), (_, before)) in counters().into_iter().zip(before) {
        clock.figure(name, (after - before) as f64);
    }
}
