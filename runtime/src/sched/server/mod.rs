//! A server as the other threads see it: its lists of workers, its inbox, and the words that its
//! workers read. The loop of its thread is in `run.rs`, `pick.rs`, `slices.rs`
//! and `surplus.rs`.

mod pick;
pub(in crate::sched) mod run;
mod slices;
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

pub(in crate::sched) use self::slices::Slices;
use super::{
    counters::ServerCounts,
    inbox::Inbox,
    run_queue::RunQueues,
    spawner::WorkerRequest,
    worker_list::{Fifo, Lifo},
};
use crate::sync::AtomicU32;

/// The workers that a server owns, by what they wait for.
///
/// Only servers lock this. A server is an ordinary thread, so a thread that holds the lock always
/// runs on. It is never held by a worker that waits to be picked.
#[derive(Debug)]
pub(in crate::sched) struct Lists {
    /// Unblocked, preempted, resumed and new workers, and those that are to retire.
    pub(in crate::sched) ready: Fifo,
    /// Workers that yielded in the middle of a task.
    pub(in crate::sched) yielded: Fifo,
    /// Workers without a task. The one that was busy last is used first, because its stack is in
    /// the cache, and because the others then stay idle and can retire.
    pub(in crate::sched) idle: Lifo,
}

/// A server, as the other threads see it.
pub(in crate::sched) struct Server {
    /// The server's UMCG task, by which the provider knows it.
    task: UmcgTask,
    /// Its place in `Shared::servers`.
    index: usize,
    /// Workers that gave the slot up, or were resumed, until the server takes them in.
    inbox: Inbox,
    /// The workers that it owns.
    lists: Mutex<Lists>,
    /// What its workers read with every task.
    words: CachePadded<Words>,
    /// What this server and its workers count.
    pub(in crate::sched) counters: ServerCounts,
    /// What the provider had counted when the server unregistered; `None` before that.
    last_counters: Mutex<Option<ServerCounters>>,
}

/// The words of a server that its workers read with every task. On a cache line of their own, away
/// from the lists and the inbox.
struct Words {
    /// `lists.idle.len()`, for threads that may not lock. Written under the lock.
    idle: AtomicU32,
    /// Idle workers in the inbox, which the server has not moved to `lists.idle` yet.
    idle_in_inbox: AtomicU32,
    /// How many workers belong to this server, with those that are being made.
    population: AtomicU32,
    /// How many of these are being made.
    starting: AtomicU32,
    /// For one more worker; see `spawner/request.rs`.
    request: WorkerRequest,
    /// The server has taken the slot from a worker that computes, for the sake of queued tasks, since
    /// it was last idle. Written by the server.
    gave_way: AtomicBool,
    /// Idle workers are to retire, and need the slot for that: the worker in it is to give it up
    /// between two tasks. Written by the server.
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
            words: CachePadded::new(Words {
                idle: AtomicU32::new(0),
                idle_in_inbox: AtomicU32::new(0),
                population: AtomicU32::new(0),
                starting: AtomicU32::new(0),
                request: WorkerRequest::new(),
                gave_way: AtomicBool::new(false),
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

    /// The lists, locked. For servers only.
    pub(in crate::sched) fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the lengths of the lists where other threads read them. The caller holds their lock.
    pub(in crate::sched) fn store_lengths(&self, lists: &Lists, run_queues: &RunQueues) {
        self.words.idle.store(lists.idle.len(), SeqCst);
        run_queues.servers[self.index]
            .workers
            .store(lists.ready.len() + lists.yielded.len(), SeqCst);
    }

    /// How many workers are in the idle list, from which any server may take one.
    pub(in crate::sched) fn idle_listed(&self) -> u32 {
        // SeqCst: a server that is about to starve reads this after its fence in `enter_starved`.
        self.words.idle.load(SeqCst)
    }

    /// An idle worker is about to be pushed on the inbox.
    pub(in crate::sched) fn count_idle_into_inbox(&self) {
        // Relaxed: a hint for growth.
        self.words.idle_in_inbox.fetch_add(1, Relaxed);
    }

    /// `count` idle workers have been taken out of the inbox.
    pub(in crate::sched) fn count_idle_out_of_inbox(&self, count: u32) {
        self.words.idle_in_inbox.fetch_sub(count, Relaxed);
    }

    /// How many workers are in the idle list or in the inbox. The server alone can take those in
    /// the inbox into its lists.
    pub(in crate::sched) fn idle_with_inbox(&self) -> u32 {
        self.idle_listed() + self.words.idle_in_inbox.load(Relaxed)
    }

    /// How many workers of this server are on none of its lists: those that run, are blocked, armed
    /// or parked, or are being made. The number may be off by those that are just moving.
    pub(in crate::sched) fn unlisted(&self, run_queues: &RunQueues) -> u32 {
        let listed = self.idle_with_inbox() + run_queues.servers[self.index].waiting();
        self.population().saturating_sub(listed)
    }

    pub(in crate::sched) fn population(&self) -> u32 {
        self.words.population.load(SeqCst)
    }

    /// A worker is about to be made for this server.
    pub(in crate::sched) fn worker_starting(&self) {
        self.words.population.fetch_add(1, SeqCst);
        self.words.starting.fetch_add(1, SeqCst);
    }

    /// A worker that was being made has registered, or could not be made or registered.
    pub(in crate::sched) fn worker_started(&self) {
        self.words.starting.fetch_sub(1, SeqCst);
    }

    pub(in crate::sched) fn has_starting_worker(&self) -> bool {
        self.words.starting.load(SeqCst) > 0
    }

    /// A worker moved to this server, which took it from another one.
    pub(in crate::sched) fn gain_worker(&self) {
        self.words.population.fetch_add(1, SeqCst);
    }

    /// A worker moved to another server. For one that ends, see
    /// [`Shared::lose_worker`](super::Shared::lose_worker).
    pub(in crate::sched) fn lose_worker(&self) {
        self.words.population.fetch_sub(1, SeqCst);
    }

    /// Requests a worker. True: none was requested, and the caller wakes the worker spawner.
    pub(in crate::sched) fn request_worker(&self) -> bool {
        self.words.request.make()
    }

    /// For the worker spawner: takes the request, and then asks whether this server starves. See
    /// [`WorkerRequest::take`].
    pub(in crate::sched) fn take_request(&self, starves: impl FnOnce() -> bool) -> (bool, bool) {
        self.words.request.take(starves)
    }

    /// Whether a worker is requested and the spawner has not taken the request yet.
    pub(in crate::sched) fn has_request(&self) -> bool {
        self.words.request.is_pending()
    }

    /// For the server: whether tasks have waited behind computing workers since it was last idle. Then
    /// workers that are on no list mostly compute, and no worker is made beforehand for their blocks.
    pub(in crate::sched) fn set_gave_way(&self, gave_way: bool) {
        // Relaxed, here and below: a hint for growth.
        self.words.gave_way.store(gave_way, Relaxed);
    }

    pub(in crate::sched) fn gave_way(&self) -> bool {
        self.words.gave_way.load(Relaxed)
    }

    /// For the server: whether the worker in the slot is to give it up, so that idle workers can
    /// retire.
    pub(in crate::sched) fn set_retirement_due(&self, due: bool) {
        // Relaxed, here and below: a worker that misses it looks again between its next two tasks.
        self.words.retirement_due.store(due, Relaxed);
    }

    pub(in crate::sched) fn is_retirement_due(&self) -> bool {
        self.words.retirement_due.load(Relaxed)
    }

    /// Whether somebody waits for the slot, so that the worker in it should give it up soon.
    pub(in crate::sched) fn is_slot_wanted(&self, run_queues: &RunQueues) -> bool {
        self.server_must_pick(run_queues) || run_queues.servers[self.index].has_resumed()
    }

    /// Whether a worker waits that only the server can pick: an unblocked, preempted or yielded
    /// one, or one that is to retire.
    pub(in crate::sched) fn server_must_pick(&self, run_queues: &RunQueues) -> bool {
        self.task.has_events(List::Runnable)
            || run_queues.servers[self.index].workers.load(Relaxed) > 0
            || self.is_retirement_due()
    }

    /// Whether tasks would be left without a worker if the worker in the slot blocked now, while
    /// another worker of this server is blocked already. As long as none is blocked the work may be
    /// CPU-bound, and a spare would be of no use.
    pub(in crate::sched) fn block_would_strand_tasks(&self, run_queues: &RunQueues) -> bool {
        self.idle_with_inbox() == 0
            && self.unlisted(run_queues) > 1
            && self.words.starting.load(Relaxed) == 0
            && !self.gave_way()
            && run_queues.any_queued()
    }

    /// Keeps what the provider has counted, for metrics after the server has unregistered.
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
