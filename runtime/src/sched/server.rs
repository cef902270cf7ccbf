//! A server's record: what others may see and do of it. Its loop is in `serve`.

use std::{
    fmt,
    ptr::NonNull,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use crossbeam_utils::CachePadded;
use umcg_sys::{List, ServerCounters, UmcgTask};

use super::{
    backlog::Backlog,
    counters::ServerCounts,
    list::{Fifo, Inbox, Lifo},
    wish::Wish,
};
use crate::sync::AtomicU32;

/// The workers that a server owns, by what they are there for.
///
/// Only servers lock this, and a server is an ordinary thread that nobody switches away: so a
/// worker never waits for it, and it is never held by one that waits to be picked.
#[derive(Debug)]
pub(super) struct Lists {
    /// Unblocked, preempted and new ones, and those that are to retire. First in, first out.
    pub(super) ready: Fifo,
    /// Those that yielded in the middle of a task.
    pub(super) yielded: Fifo,
    /// Those without a task. The one that was busy last comes first: its stack is warm.
    pub(super) idle: Lifo,
}

/// A server, as the rest of the runtime sees it.
pub(super) struct Server {
    task: UmcgTask,
    index: usize,
    /// Workers that gave the slot back, until the server comes round.
    inbox: Inbox,
    lists: Mutex<Lists>,
    shared: CachePadded<Words>,
    pub(super) counters: ServerCounts,
    /// What the provider had counted when the server left.
    last_counters: Mutex<Option<ServerCounters>>,
}

/// The words of a server that its workers read at every task.
struct Words {
    /// `lists.idle.len()`, for those that may not lock.
    idle: AtomicU32,
    /// Idle workers in the inbox: not yet in `lists`, but as good as.
    resting: AtomicU32,
    /// Workers whose `server` this is, with those that are being made.
    population: AtomicU32,
    /// Those of them that are being made.
    starting: AtomicU32,
    /// It asked for another worker; see `grow`.
    wanted: Wish,
    /// Idle workers have been idle for too long, and the slot is needed to let them go.
    retirement_due: AtomicBool,
}

impl Server {
    pub(super) fn new(index: usize) -> Self {
        Self {
            task: UmcgTask::new(),
            index,
            inbox: Inbox::new(),
            lists: Mutex::new(Lists {
                ready: Fifo::new(),
                yielded: Fifo::new(),
                idle: Lifo::new(),
            }),
            shared: CachePadded::new(Words {
                idle: AtomicU32::new(0),
                resting: AtomicU32::new(0),
                population: AtomicU32::new(0),
                starting: AtomicU32::new(0),
                wanted: Wish::new(),
                retirement_due: AtomicBool::new(false),
            }),
            counters: ServerCounts::default(),
            last_counters: Mutex::new(None),
        }
    }

    pub(super) const fn task(&self) -> &UmcgTask {
        &self.task
    }

    pub(super) fn task_ptr(&self) -> NonNull<UmcgTask> {
        NonNull::from(&self.task)
    }

    pub(super) fn tid(&self) -> u32 {
        self.task.tid()
    }

    pub(super) const fn index(&self) -> usize {
        self.index
    }

    pub(super) const fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// For servers.
    pub(super) fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the lengths of the lists, under their lock.
    pub(super) fn publish(&self, lists: &Lists, backlog: &Backlog) {
        self.shared.idle.store(lists.idle.len(), SeqCst);
        backlog.servers[self.index]
            .workers
            .store(lists.ready.len() + lists.yielded.len(), SeqCst);
    }

    /// How many workers are in the idle list here, to be had by any server.
    pub(super) fn idle(&self) -> u32 {
        // SeqCst: read by a server that is about to starve, after its fence.
        self.shared.idle.load(SeqCst)
    }

    /// A worker without work is about to come into the inbox.
    pub(super) fn expect_idle(&self) {
        // Relaxed: a hint for growth.
        self.shared.resting.fetch_add(1, Relaxed);
    }

    /// So many have been taken out of it.
    pub(super) fn take_in_idle(&self, count: u32) {
        self.shared.resting.fetch_sub(count, Relaxed);
    }

    /// With those in the inbox, which this server alone can take out.
    pub(super) fn idle_soon(&self) -> u32 {
        self.idle() + self.shared.resting.load(Relaxed)
    }

    /// Workers of this server that run, are blocked, armed, or being made: all that are in none
    /// of its lists. May be off by those that are on their way.
    pub(super) fn out(&self, backlog: &Backlog) -> u32 {
        let listed = self.idle_soon() + backlog.servers[self.index].workers.load(Relaxed);
        self.population().saturating_sub(listed)
    }

    pub(super) fn population(&self) -> u32 {
        self.shared.population.load(SeqCst)
    }

    /// A worker is to be made for this server.
    pub(super) fn expect_worker(&self) {
        self.shared.population.fetch_add(1, SeqCst);
        self.shared.starting.fetch_add(1, SeqCst);
    }

    /// A new worker was run for the first time, or could not be.
    pub(super) fn started(&self) {
        self.shared.starting.fetch_sub(1, SeqCst);
    }

    pub(super) fn is_starting(&self) -> bool {
        self.shared.starting.load(SeqCst) > 0
    }

    /// A worker moved here; for the server that took it.
    pub(super) fn gain_worker(&self) {
        self.shared.population.fetch_add(1, SeqCst);
    }

    /// A worker moved away, or see [`Shared::lose_worker`](super::Shared::lose_worker).
    pub(super) fn lose_worker(&self) {
        self.shared.population.fetch_sub(1, SeqCst);
    }

    /// Asks for a worker. True: nobody had.
    pub(super) fn want(&self) -> bool {
        self.shared.wanted.make()
    }

    /// Takes the wish back, and then asks whether this server starves: see [`Wish::take`].
    pub(super) fn unwant(&self, starves: impl FnOnce() -> bool) -> (bool, bool) {
        self.shared.wanted.take(starves)
    }

    /// Whether it asked and has not been answered.
    pub(super) fn is_wanting(&self) -> bool {
        self.shared.wanted.is_made()
    }

    pub(super) fn set_retirement_due(&self, due: bool) {
        self.shared.retirement_due.store(due, Relaxed);
    }

    pub(super) fn is_retirement_due(&self) -> bool {
        self.shared.retirement_due.load(Relaxed)
    }

    /// Whether a worker in the slot should hand over soon: somebody waits behind it.
    pub(super) fn is_awaited(&self, backlog: &Backlog) -> bool {
        self.needs_server(backlog) || backlog.servers[self.index].has_resumed()
    }

    /// Whether somebody waits whom only the server can pick: unblocked, preempted or yielded
    /// workers, and those that are to leave.
    pub(super) fn needs_server(&self, backlog: &Backlog) -> bool {
        self.task.has_events(List::Runnable)
            || backlog.servers[self.index].workers.load(Relaxed) > 0
            || self.is_retirement_due()
    }

    /// Whether a worker in the slot that blocks now would leave tasks behind with nobody to
    /// take them, while a sibling is blocked already. Without a blocked one the work is
    /// CPU-bound, as far as we know, and a spare would be of no use.
    pub(super) fn lacks_spare(&self, backlog: &Backlog) -> bool {
        self.idle_soon() == 0
            && self.out(backlog) > 1
            && self.shared.starting.load(Relaxed) == 0
            && backlog.any_queued()
    }

    /// Keeps what the provider counted, for metrics after the end.
    pub(super) fn keep_counters(&self, counters: Option<ServerCounters>) {
        *self
            .last_counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = counters;
    }

    pub(super) fn kept_counters(&self) -> Option<ServerCounters> {
        *self
            .last_counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("index", &self.index)
            .field("task", &self.task)
            .field("population", &self.population())
            .finish_non_exhaustive()
    }
}
