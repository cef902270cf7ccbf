//! The monitor: one thread of normal priority for each process.
//!
//! It sees the blocks that the sentinel cannot, on CPUs that other processes keep busy, and it
//! repeats what a judge that was stopped half-way may have left undone. It ticks only while
//! work waits for some server; it sleeps when none did for 10 ms.

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

/// Ticks go from 50 us, doubling while nothing is found, to 1 ms; back at each verdict.
const FIRST_TICK_NS: u64 = 50_000;
const LAST_TICK_NS: u64 = 1_000_000;

/// So many ticks after it judged the holder that it had seen before, the monitor takes the CPU for
/// one that others keep busy, where nobody else judges: it does not slow down, and judges whoever
/// sleeps in the slot at first sight.
const STARVED_TICKS: u32 = 16;

/// It goes on ticking for so long after the last waiting work: a wake-up of a sleeping monitor
/// on another CPU costs the waker 15 us (trace B7).
const LINGER_NS: u64 = 10_000_000;

/// A holder whose CPU clock stood still for so long is asleep or does not get its CPU. Without
/// `/proc` it is taken for asleep.
const STILL_NS: u64 = 1_000_000;

static SERVERS: Mutex<Vec<Attached>> = Mutex::new(Vec::new());
/// Changes with `SERVERS`.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// 1 while a monitor thread exists, or is being made.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// A server to watch, and what its application has to say.
#[derive(Clone)]
struct Attached {
    server: Index,
    has_work: Option<HasWork>,
    overdue: Option<Overdue>,
}

/// What the monitor remembers of a server from tick to tick.
struct Watched {
    server: Index,
    has_work: Option<HasWork>,
    overdue: Option<Overdue>,
    /// The slot at the last tick.
    slot: Slot,
    /// Ticks since the monitor judged here.
    ticks_since: u32,
    /// The holder's CPU time when it was last seen to change, and when that was.
    cpu_time: u64,
    since: u64,
}

/// What one look at a server brought; of several servers the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    /// Nothing waits.
    NoWork,
    /// Work waits, and something goes on.
    Progress,
    /// The same: another worker is in the slot, and the sentinel seems to starve.
    Changed,
    /// A verdict, or a repair.
    Acted,
}

fn lock() -> std::sync::MutexGuard<'static, Vec<Attached>> {
    SERVERS.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Serialises `attach`: while one caller finds out whether the monitor can be had at all, no other
/// relies on it.
static START: Mutex<()> = Mutex::new(());

/// Watches a server from now on.
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

/// Watches it no more. The last one ends the monitor.
pub(crate) fn detach(server: Index) {
    lock().retain(|attached| attached.server != server);
    GENERATION.fetch_add(1, SeqCst);
    REGISTRY.notify_monitor();
}

fn run() {
    os::sharp_timers();
    let mut watched: Vec<Watched> = Vec::new();
    let mut generation = u64::MAX;
    let mut tick_ns = FIRST_TICK_NS;
    let mut last_work = now();
    loop {
        let current = GENERATION.load(SeqCst);
        if current != generation {
            generation = current;
            watched = lock()
                .iter()
                .cloned()
                .map(|attached| Watched {
                    server: attached.server,
                    has_work: attached.has_work,
                    overdue: attached.overdue,
                    slot: Slot::DEAD,
                    ticks_since: STARVED_TICKS,
                    cpu_time: 0,
                    since: now(),
                })
                .collect();
            if watched.is_empty() {
                RUNNING.store(0, SeqCst);
                // A server may have come between the two lines; whoever swaps goes on.
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
                tick_ns = FIRST_TICK_NS;
                last_work = now();
                continue;
            }
            Seen::NoWork => tick_ns = (tick_ns * 2).min(LAST_TICK_NS),
            Seen::Progress => {
                last_work = now();
                tick_ns = (tick_ns * 2).min(LAST_TICK_NS);
            }
            Seen::Changed => last_work = now(),
            Seen::Acted => {
                last_work = now();
                tick_ns = FIRST_TICK_NS;
            }
        }
        os::nap(tick_ns);
    }
}

/// Whether the worker of this record sleeps, by `/proc` alone.
fn is_asleep(worker: &Record) -> bool {
    os::thread_state(worker.tid.load(SeqCst)) == ThreadState::Asleep
}

impl Watched {
    /// Whether work waits for this server while a worker holds its slot, or its list has events
    /// that nobody looks at.
    fn waits(&self) -> bool {
        REGISTRY
            .guard(self.server, status::SERVER)
            .is_some_and(|server| self.work_for(&server))
    }

    fn work_for(&self, server: &RecordGuard<'_>) -> bool {
        // An idle server with queued tasks is the application's to wake. One whose slot is its
        // own may be owed a wake-up by a judge that was stopped.
        server.task().has_events(List::Runnable)
            || matches!(server.slot().tag(), Tag::Held | Tag::Server)
                && self.has_work.as_ref().is_some_and(|ask| ask())
    }

    fn look(&mut self) -> Seen {
        let Some(server) = REGISTRY.guard(self.server, status::SERVER) else {
            return Seen::NoWork;
        };
        if !self.work_for(&server) {
            return Seen::NoWork;
        }
        let slot = server.slot();
        self.ticks_since = self.ticks_since.saturating_add(1);
        let same = slot == self.slot;
        self.slot = slot;
        if !same {
            self.since = now();
            self.cpu_time = 0;
            if self.ticks_since >= STARVED_TICKS {
                return Seen::Progress;
            }
            // Siblings that wake up take the slot over from each other, so it is never the same
            // one twice, and each sleeps most of its turn: that is blocked, too.
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
                    self.tell();
                }
                seen
            }
        }
    }

    /// Work has waited since the last look, behind a worker that runs: another server may take it.
    fn tell(&self) {
        let idle = self.overdue.as_ref().and_then(|overdue| overdue());
        if let Some(tid) = idle {
            // ESRCH: it has left meanwhile.
            let _ = REGISTRY.wake(tid);
        }
    }

    /// The holder by `run`: it has been that for a tick if `same`.
    fn suspect(&mut self, server: &RecordGuard<'_>, holder: Index, run: Run, same: bool) -> Seen {
        let tid = REGISTRY.record(holder).tid.load(SeqCst);
        if !self.asleep(tid) {
            Counts::bump(&server.counts.refused);
            if self.stands_still(tid) {
                // It is awake and has the slot, and others have the CPU.
                server.contended.store(1, SeqCst);
                self.since = now();
                self.ticks_since = 0;
                return Seen::Acted;
            }
            return Seen::Progress;
        }
        // It had its chance of being seen by the sentinel: the CPU is busy with others.
        server.contended.store(1, SeqCst);
        let awake = |worker: &RecordGuard<'_>| {
            os::thread_state(worker.tid.load(SeqCst)) == ThreadState::Awake
        };
        if REGISTRY.adopt(server, holder, run, awake) || REGISTRY.judge(holder, run, Judge::Monitor)
        {
            // Not at first sight, or one verdict would bring the next for ever, also where the
            // sentinel is well.
            if same {
                self.ticks_since = 0;
            }
            return Seen::Acted;
        }
        Seen::Progress
    }

    /// Whether the thread sleeps, by `/proc`, or where that cannot be had by its CPU clock: one
    /// that stood still may also be waiting for its CPU; that verdict is wrong, and harmless.
    fn asleep(&mut self, tid: u32) -> bool {
        match os::thread_state(tid) {
            ThreadState::Asleep => true,
            ThreadState::Awake => false,
            ThreadState::Unknown => self.stands_still(tid),
        }
    }

    /// Whether the holder has used no CPU time for long.
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
