//! A server's record: what others may see and do of it. Its loop is in `serve`.

mod pick;
pub(in crate::sched) mod run;
mod surplus;

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
    counters::ServerCounts,
    inbox::Inbox,
    run_queue::RunQueues,
    spawner::WorkerRequest,
    worker_list::{Fifo, Lifo},
};
use crate::sync::AtomicU32;

/// The workers that a server owns, by what they are there for.
///
/// Only servers lock this, and a server is an ordinary thread that nobody switches away: so a
/// worker never waits for it, and it is never held by one that waits to be picked.
#[derive(Debug)]
pub(in crate::sched) struct Lists {
    /// Unblocked, preempted and new ones, and those that are to retire. First in, first out.
    pub(in crate::sched) ready: Fifo,
    /// Those that yielded in the middle of a task.
    pub(in crate::sched) yielded: Fifo,
    /// Those without a task. The one that was busy last comes first: its stack is warm.
    pub(in crate::sched) idle: Lifo,
}

/// A server, as the rest of the runtime sees it.
pub(in crate::sched) struct Server {
    task: UmcgTask,
    index: usize,
    /// Workers that gave the slot back, until the server comes round.
    inbox: Inbox,
    lists: Mutex<Lists>,
    shared: CachePadded<Words>,
    pub(in crate::sched) counters: ServerCounts,
    /// What the provider had counted when the server left.
    last_counters: Mutex<Option<ServerCounters>>,
}

/// The words of a server that its workers read at every task.
struct Words {
    /// `lists.idle.len()`, for those that may not lock.
    idle: AtomicU32,
    /// Idle workers in the inbox: not yet in `lists`, but as good as.
    idle_in_inbox: AtomicU32,
    /// Workers whose `server` this is, with those that are being made.
    population: AtomicU32,
    /// Those of them that are being made.
    starting: AtomicU32,
    /// It asked for another worker; see `grow`.
    request: WorkerRequest,
    /// Idle workers have been idle for too long, and the slot is needed to let them go.
    retirement_due: AtomicBool,
}

impl Server {
    pub(in crate::sched) fn new(index: usize) -> Self {
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
                idle_in_inbox: AtomicU32::new(0),
                population: AtomicU32::new(0),
                starting: AtomicU32::new(0),
                request: WorkerRequest::new(),
                retirement_due: AtomicBool::new(false),
            }),
            counters: ServerCounts::default(),
            last_counters: Mutex::new(None),
        }
    }

    pub(in crate::sched) const fn task(&self) -> &UmcgTask {
        &self.task
    }

    pub(in crate::sched) fn task_ptr(&self) -> NonNull<UmcgTask> {
        NonNull::from(&self.task)
    }

    pub(in crate::sched) fn tid(&self) -> u32 {
        self.task.tid()
    }

    pub(in crate::sched) const fn index(&self) -> usize {
        self.index
    }

    pub(in crate::sched) const fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// For servers.
    pub(in crate::sched) fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the lengths of the lists, under their lock.
    pub(in crate::sched) fn store_lengths(&self, lists: &Lists, run_queues: &RunQueues) {
        self.shared.idle.store(lists.idle.len(), SeqCst);
        run_queues.servers[self.index]
            .workers
            .store(lists.ready.len() + lists.yielded.len(), SeqCst);
    }

    /// How many workers are in the idle list here, to be had by any server.
    pub(in crate::sched) fn idle_listed(&self) -> u32 {
        // SeqCst: read by a server that is about to starve, after its fence.
        self.shared.idle.load(SeqCst)
    }

    /// A worker without work is about to come into the inbox.
    pub(in crate::sched) fn count_idle_into_inbox(&self) {
        // Relaxed: a hint for growth.
        self.shared.idle_in_inbox.fetch_add(1, Relaxed);
    }

    /// So many have been taken out of it.
    pub(in crate::sched) fn count_idle_out_of_inbox(&self, count: u32) {
        self.shared.idle_in_inbox.fetch_sub(count, Relaxed);
    }

    /// With those in the inbox, which this server alone can take out.
    pub(in crate::sched) fn idle_with_inbox(&self) -> u32 {
        self.idle_listed() + self.shared.idle_in_inbox.load(Relaxed)
    }

    /// Workers of this server that run, are blocked, armed, or being made: all that are in none
    /// of its lists. May be off by those that are on their way.
    pub(in crate::sched) fn unlisted(&self, run_queues: &RunQueues) -> u32 {
        let listed = self.idle_with_inbox() + run_queues.servers[self.index].workers.load(Relaxed);
        self.population().saturating_sub(listed)
    }

    pub(in crate::sched) fn population(&self) -> u32 {
        self.shared.population.load(SeqCst)
    }

    /// A worker is to be made for this server.
    pub(in crate::sched) fn worker_starting(&self) {
        self.shared.population.fetch_add(1, SeqCst);
        self.shared.starting.fetch_add(1, SeqCst);
    }

    /// A new worker was run for the first time, or could not be.
    pub(in crate::sched) fn worker_started(&self) {
        self.shared.starting.fetch_sub(1, SeqCst);
    }

    pub(in crate::sched) fn has_starting_worker(&self) -> bool {
        self.shared.starting.load(SeqCst) > 0
    }

    /// A worker moved here; for the server that took it.
    pub(in crate::sched) fn gain_worker(&self) {
        self.shared.population.fetch_add(1, SeqCst);
    }

    /// A worker moved away, or see [`Shared::lose_worker`](super::Shared::lose_worker).
    pub(in crate::sched) fn lose_worker(&self) {
        self.shared.population.fetch_sub(1, SeqCst);
    }

    /// Asks for a worker. True: nobody had.
    pub(in crate::sched) fn request_worker(&self) -> bool {
        self.shared.request.make()
    }

    /// Takes the wish back, and then asks whether this server starves: see [`WorkerRequest::take`].
    pub(in crate::sched) fn take_request(&self, starves: impl FnOnce() -> bool) -> (bool, bool) {
        self.shared.request.take(starves)
    }

    /// Whether it asked and has not been answered.
    pub(in crate::sched) fn has_request(&self) -> bool {
        self.shared.request.is_pending()
    }

    pub(in crate::sched) fn set_retirement_due(&self, due: bool) {
        self.shared.retirement_due.store(due, Relaxed);
    }

    pub(in crate::sched) fn is_retirement_due(&self) -> bool {
        self.shared.retirement_due.load(Relaxed)
    }

    /// Whether a worker in the slot should hand over soon: somebody waits behind it.
    pub(in crate::sched) fn is_slot_wanted(&self, run_queues: &RunQueues) -> bool {
        self.server_must_pick(run_queues) || run_queues.servers[self.index].has_resumed()
    }

    /// Whether somebody waits whom only the server can pick: unblocked, preempted or yielded
    /// workers, and those that are to leave.
    pub(in crate::sched) fn server_must_pick(&self, run_queues: &RunQueues) -> bool {
        self.task.has_events(List::Runnable)
            || run_queues.servers[self.index].workers.load(Relaxed) > 0
            || self.is_retirement_due()
    }

    /// Whether a worker in the slot that blocks now would leave tasks behind with nobody to
    /// take them, while a sibling is blocked already. Without a blocked one the work is
    /// CPU-bound, as far as we know, and a spare would be of no use.
    pub(in crate::sched) fn block_would_strand_tasks(&self, run_queues: &RunQueues) -> bool {
        self.idle_with_inbox() == 0
            && self.unlisted(run_queues) > 1
            && self.shared.starting.load(Relaxed) == 0
            && run_queues.any_queued()
    }

    /// Keeps what the provider counted, for metrics after the end.
    pub(in crate::sched) fn save_counters(&self, counters: Option<ServerCounters>) {
        *self
            .last_counters
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = counters;
    }

    pub(in crate::sched) fn saved_counters(&self) -> Option<ServerCounters> {
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
