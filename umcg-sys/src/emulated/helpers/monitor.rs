//! The monitor: one thread of normal priority for each process.
//!
//! *Problem.* On a CPU that other processes keep busy the sentinel does not run, so it sees no
//! block. And a judge may be stopped in the middle of a verdict.
//!
//! *Mechanism.* The monitor looks at the slots of all servers for which work waits. It completes
//! the steps that a judge left undone. A holder that it finds asleep at two looks it judges, unless
//! it can adopt a worker that is awake.
//!
//! *Cost.* A look takes a few loads for each server, and reads `/proc` where a worker has held its
//! slot since the last look. Looks are 50 us apart, doubling to 1 ms while nothing is found. When
//! no work has waited for 10 ms the monitor sleeps in its sleep cell.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use super::super::{
    clock::now,
    os::{self, ThreadState},
    packed::{Index, Run, Slot, Tag},
    record::{Counts, Record, status},
    registry::{REGISTRY, RecordGuard},
    repair::Repair,
    verdict::Judge,
};
use crate::{HasWork, List, Overdue};

/// The time between two looks after a verdict. It doubles with each look that finds nothing, up to
/// [`LAST_PERIOD_NS`] (trace B7).
const FIRST_PERIOD_NS: u64 = 50_000;
/// The longest time between two looks while work waits.
const LAST_PERIOD_NS: u64 = 1_000_000;

/// For this many looks after it judged a holder that it had seen at two looks, the monitor takes
/// the CPU for one that other processes keep busy, where no other thread judges: it does not slow
/// down, and judges at first sight a worker that sleeps in the slot (README, "A contended CPU").
const CONTENDED_LOOKS: u32 = 16;

/// How long the monitor goes on looking after it last saw work wait. To wake it from its sleep cell
/// costs the waker 15 us if the monitor slept on another CPU (trace B7). Nothing depends on the
/// value. With work every 15 ms the monitor used 0.2 % of a CPU without lingering, 1.0 % with
/// 10 ms, and 1.7 % with 100 ms, where it never slept.
const LINGER_NS: u64 = 10_000_000;

/// A holder whose CPU clock has stood still for this long sleeps or does not get its CPU. Without
/// `/proc` it counts as asleep. As long as one time slice of a worker: a holder that waits for a
/// shorter time may only wait for the end of another thread's slice. A verdict that comes too early
/// or too late is harmless, and the value hardly shows: beside a busy process on each CPU, 4,000
/// blocks took 0.17 to 0.24 s with 0.1 ms, 0.19 to 0.35 s with 1 ms, and 0.20 to 0.49 s with 10 ms.
const STILL_NS: u64 = 1_000_000;

/// The servers to watch.
static SERVERS: Mutex<Vec<Attached>> = Mutex::new(Vec::new());
/// Changes after each change of `SERVERS`, so that the monitor reads the list only then. A change
/// is followed by a wake of the monitor's sleep cell, and the monitor reads this once more before
/// it sleeps: the fences of the cell order the two.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// 1 while a monitor thread exists or is being started.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// A server to watch, and the questions that its application registered.
#[derive(Clone)]
struct Attached {
    /// Its record.
    server: Index,
    /// [`Register::has_work`](crate::Register::has_work).
    has_work: Option<HasWork>,
    /// [`Register::overdue`](crate::Register::overdue).
    overdue: Option<Overdue>,
}

/// What the monitor remembers of a server from one look to the next.
struct Watched {
    /// The server, and the questions of its application.
    attached: Attached,
    /// The slot at the last look at which work waited.
    slot: Slot,
    /// How many such looks there were since the monitor judged a holder that it had seen twice, or
    /// found the CPU contended otherwise.
    looks_since: u32,
    /// The CPU time of the holder when it was last seen to change, in nanoseconds.
    cpu_time: u64,
    /// When `slot` or `cpu_time` changed last, CLOCK_MONOTONIC in nanoseconds.
    since: u64,
}

/// The result of one look at a server. Of the looks at several servers the greatest result counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// No work waits.
    NoWork,
    /// Work waits, and a worker runs or a step is under way.
    Progress,
    /// The same, on a contended CPU where another worker has come to the slot.
    Changed,
    /// The monitor gave a verdict, adopted a worker, or made a step that a judge owed.
    Acted,
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Attached>> {
    SERVERS.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Held during `attach`. While one caller finds out whether the monitor can be started, no other
/// caller relies on it.
static START: Mutex<()> = Mutex::new(());

/// Watches a server from now on. Starts the monitor if it does not run.
///
/// # Errors
/// There is no thread for it.
pub(crate) fn attach(
    server: Index,
    has_work: Option<HasWork>,
    overdue: Option<Overdue>,
) -> std::io::Result<()> {
    let _start = START.lock().unwrap_or_else(|poison| poison.into_inner());
    lock().push(Attached {
        server,
        has_work,
        overdue,
    });
    GENERATION.fetch_add(1, SeqCst);
    // The list, then RUNNING. Pairs with a monitor that ends, which writes RUNNING, then reads the
    // list under its lock: the monitor sees this server, or this thread sees that none runs.
    if RUNNING.swap(1, SeqCst) == 0 {
        if let Err(error) = os::start_helper("umcg-monitor".into(), run) {
            RUNNING.store(0, SeqCst);
            detach(server);
            return Err(error);
        }
    }
    REGISTRY.notify_monitor();
    Ok(())
}

/// Stops watching a server. Without any server the monitor ends.
pub(crate) fn detach(server: Index) {
    lock().retain(|attached| attached.server != server);
    GENERATION.fetch_add(1, SeqCst);
    REGISTRY.notify_monitor();
}

/// What the monitor thread does until there is no server.
fn run() {
    os::sharp_timers();
    let mut watched: Vec<Watched> = Vec::new();
    let mut generation = u64::MAX;
    let mut period_ns = FIRST_PERIOD_NS;
    let mut last_work = now();
    loop {
        let current = GENERATION.load(SeqCst);
        if current != generation {
            generation = current;
            watched = lock()
                .iter()
                .cloned()
                .map(|attached| Watched {
                    attached,
                    slot: Slot::DEAD,
                    looks_since: CONTENDED_LOOKS,
                    cpu_time: 0,
                    since: now(),
                })
                .collect();
            if watched.is_empty() {
                RUNNING.store(0, SeqCst);
                // RUNNING, then the list: pairs with `attach`. A server may have come meanwhile.
                // Then this thread or a new one goes on, whichever swaps RUNNING first.
                if lock().is_empty() || RUNNING.swap(1, SeqCst) != 0 {
                    return;
                }
                generation = u64::MAX;
                continue;
            }
        }
        let mut seen = Seen::NoWork;
        for server in &mut watched {
            seen = seen.max(server.look());
        }
        match seen {
            Seen::NoWork if now() - last_work > LINGER_NS => {
                REGISTRY.helpers().monitor.sleep_while(|| {
                    GENERATION.load(SeqCst) == generation && watched.iter().all(|s| !s.waits())
                });
                period_ns = FIRST_PERIOD_NS;
                last_work = now();
                continue;
            }
            Seen::NoWork => period_ns = (period_ns * 2).min(LAST_PERIOD_NS),
            Seen::Progress => {
                last_work = now();
                period_ns = (period_ns * 2).min(LAST_PERIOD_NS);
            }
            Seen::Changed => last_work = now(),
            Seen::Acted => {
                last_work = now();
                period_ns = FIRST_PERIOD_NS;
            }
        }
        os::nap(period_ns);
    }
}

/// Whether the worker of this record sleeps, according to `/proc` alone.
fn is_asleep(worker: &Record) -> bool {
    os::thread_state(worker.tid.load(SeqCst)) == ThreadState::Asleep
}

impl Watched {
    /// Whether work waits for this server.
    fn waits(&self) -> bool {
        self.guard().is_some_and(|server| self.work_for(&server))
    }

    /// A guard on the server.
    fn guard(&self) -> Option<RecordGuard<'static>> {
        REGISTRY.guard(self.attached.server, status::SERVER)
    }

    /// Whether the server has runnable events, or the application has work for it.
    fn work_for(&self, server: &RecordGuard<'_>) -> bool {
        // To wake an idle server for queued tasks is the application's task, so an idle slot does
        // not count here. A server whose slot is its own may be owed a wake-up by a judge that was
        // stopped.
        server.task().has_events(List::Runnable)
            || matches!(server.slot().tag(), Tag::Held | Tag::Server)
                && self.attached.has_work.as_ref().is_some_and(|ask| ask())
    }

    /// One look.
    fn look(&mut self) -> Seen {
        let Some(server) = self.guard() else {
            return Seen::NoWork;
        };
        if !self.work_for(&server) {
            return Seen::NoWork;
        }
        let slot = server.slot();
        self.looks_since = self.looks_since.saturating_add(1);
        let same = slot == self.slot;
        self.slot = slot;
        if !same {
            self.since = now();
            self.cpu_time = 0;
            if self.looks_since >= CONTENDED_LOOKS {
                return Seen::Progress;
            }
            // Workers that unblock take the slot over from each other, so two looks never see the
            // same one, although each of them sleeps for most of its turn.
            if slot.tag() != Tag::Held || !is_asleep(REGISTRY.record(slot.index())) {
                return Seen::Changed;
            }
        }
        match REGISTRY.repair(&server, slot) {
            Repair::Gone => Seen::NoWork,
            Repair::Progress => Seen::Progress,
            Repair::Done => Seen::Acted,
            Repair::Runs(run) => {
                let seen = self.suspect(&server, slot.index(), run, same);
                if seen == Seen::Progress {
                    self.report_overdue();
                }
                seen
            }
        }
    }

    /// Tells the application that its work for this server is overdue: it has waited from one look
    /// to the next behind a worker that runs. Wakes the server that the application names.
    fn report_overdue(&self) {
        let server = self.attached.overdue.as_ref().and_then(|overdue| overdue());
        if let Some(tid) = server {
            // Fails if that server has unregistered meanwhile.
            let _ = REGISTRY.wake(tid);
        }
    }

    /// Finds out whether the `holder`, ACKED by `run`, sleeps, and if so adopts another worker or
    /// judges the holder. `same`: it has held the slot since the last look.
    fn suspect(&mut self, server: &RecordGuard<'_>, holder: Index, run: Run, same: bool) -> Seen {
        let tid = REGISTRY.record(holder).tid.load(SeqCst);
        if !self.asleep(tid) {
            Counts::bump(&server.counts.refused);
            if self.stands_still(tid) {
                // It is awake and uses no CPU time, so another process has the CPU.
                server.contended.store(1, SeqCst);
                self.since = now();
                self.looks_since = 0;
                return Seen::Acted;
            }
            return Seen::Progress;
        }
        // The sentinel had the time to judge it and did not, so the CPU is busy with other
        // processes.
        server.contended.store(1, SeqCst);
        let awake = |worker: &RecordGuard<'_>| {
            os::thread_state(worker.tid.load(SeqCst)) == ThreadState::Awake
        };
        if REGISTRY.adopt(server, holder, run, awake) || REGISTRY.judge(holder, run, Judge::Monitor)
        {
            // A verdict at first sight does not extend the time of such verdicts. Otherwise each
            // one would extend it indefinitely, even when the sentinel is healthy.
            if same {
                self.looks_since = 0;
            }
            return Seen::Acted;
        }
        Seen::Progress
    }

    /// Whether the holder sleeps, according to `/proc`, or if that is not available to its CPU
    /// clock. A thread whose clock stands still may also wait for its CPU; such a verdict is wrong,
    /// and harmless.
    fn asleep(&mut self, tid: u32) -> bool {
        match os::thread_state(tid) {
            ThreadState::Asleep => true,
            ThreadState::Awake => false,
            ThreadState::Unknown => self.stands_still(tid),
        }
    }

    /// Whether the holder has used no CPU time for [`STILL_NS`].
    fn stands_still(&mut self, tid: u32) -> bool {
        let Some(time) = os::cpu_time(tid) else {
            return false;
        };
        if time != self.cpu_time {
            self.cpu_time = time;
            self.since = now();
            return false;
        }
        now() - self.since > STILL_NS
    }
}
