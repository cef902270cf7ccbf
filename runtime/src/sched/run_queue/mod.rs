//! Everything that waits to run: the injector, and the run queue and LIFO slot of each server.
//!
//! No queue belongs to a thread. A worker that blocks strands no task, and whichever worker its
//! server runs next finds all of them.
//!
//! The run queues are an object of their own, apart from the rest of the scheduler, so that the
//! callbacks of the provider can hold it without keeping the runtime alive.

mod lifo_slot;
mod queue;
mod returned;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use crossbeam_utils::CachePadded;

use self::{
    lifo_slot::LifoSlot,
    queue::{Batch, InjectorQueue, ServerQueue},
    returned::ReturnedWorkers,
};
use super::{
    clock::now_ns,
    idle::IdleServers,
    policy::{self, BATCH},
    sleepers::Sleepers,
};
use crate::{
    sync::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
    task::Runnable,
};

/// What one server has to run.
#[derive(Debug)]
pub(in crate::sched) struct ServerQueues {
    /// The run queue: tasks that workers of this server spawned, woke or yielded.
    pub(in crate::sched) queue: ServerQueue<Runnable>,
    /// The task that a worker of this server woke or spawned last.
    pub(in crate::sched) lifo: LifoSlot<Runnable>,
    /// How many *workers* wait to be picked in the server's lists: unblocked, preempted, resumed or
    /// yielded. Written under the lock of these lists.
    pub(in crate::sched) workers: AtomicU32,
    /// How many resumed workers are in the server's inbox. Raised before the push and lowered
    /// after the removal, so it is never too low.
    resumed: AtomicU32,
    /// Workers that came back from a managed call and wait for the slot.
    pub(in crate::sched) returned: ReturnedWorkers,
    /// How often in a row workers have handed the slot off to resumed ones without a task having
    /// been taken. Relaxed everywhere: a count for fairness.
    handoffs: AtomicU32,
    /// How many woken workers have been picked in a row while others had come back from I/O.
    /// Relaxed everywhere: a count for fairness.
    woken_in_a_row: AtomicU32,
    /// Of the workers that come before those from I/O, the next one is one that came back from a
    /// managed call, if there is one. Relaxed everywhere: they take turns.
    woken_next: AtomicBool,
    /// How busy the slot has been of late, see [`policy::saturation`]. Relaxed everywhere: a hint
    /// whether to park.
    saturation: AtomicU32,
    /// Resumed workers were there when the provider last said that work of this server is overdue.
    /// Written by the provider's thread only.
    resumed_seen: AtomicBool,
    /// The address of the task that was in `lifo` when the provider last said that work of this
    /// server is overdue. It is compared and never followed. Written by the provider's thread only.
    lifo_seen: AtomicUsize,
    /// The task in `lifo` is overdue: any server may take it. Set by the provider's thread, cleared
    /// by the thread that takes the task. If it outlasts the task for a moment, one more task is
    /// open to all servers.
    lifo_overdue: AtomicBool,
    /// The server's tid, for a thread of the provider that has to wake the server and holds nothing
    /// but this object.
    tid: AtomicU32,
    /// When a worker of this server last gave the injector its turn, CLOCK_MONOTONIC ns. Relaxed
    /// everywhere: if two workers look at once, both may give the injector a turn.
    injector_served: AtomicU64,
}

impl ServerQueues {
    /// A worker that goes to sleep hands its slot off to a resumed one.
    pub(in crate::sched) fn count_handoff(&self) {
        self.handoffs.fetch_add(1, Relaxed);
    }

    /// A worker was requested for the tasks that are due.
    pub(in crate::sched) fn reset_handoffs(&self) {
        self.handoffs.store(0, Relaxed);
    }

    /// Whether workers that wake each other have kept the slot to themselves for long enough, so
    /// that a task is next, if there is one.
    pub(in crate::sched) fn is_task_due(&self) -> bool {
        policy::task_is_due(self.handoffs.load(Relaxed))
    }

    /// Whether the next of the ready workers is one that came back from I/O. For whoever picks it.
    /// `woken`: whether there are others.
    pub(in crate::sched) fn io_is_next(&self, woken: bool) -> bool {
        let mut in_a_row = self.woken_in_a_row.load(Relaxed);
        let next = policy::io_is_next(&mut in_a_row, woken, self.returned.len_io() > 0);
        self.woken_in_a_row.store(in_a_row, Relaxed);
        next
    }

    /// Of the workers that come before those from I/O, whether the next one is one that came back
    /// from a managed call. For whoever picks it. `others`: whether there are unblocked, preempted
    /// or resumed ones. The two kinds take turns.
    pub(in crate::sched) fn woken_is_next(&self, others: bool) -> bool {
        if self.returned.len_woken() == 0 {
            return false;
        }
        let next = !others || self.woken_next.load(Relaxed);
        self.woken_next.store(!next, Relaxed);
        next
    }

    /// A worker is about to wait for an event. Whether it parks, rather than sleeping in its call.
    /// `somebody_waits`: for the slot.
    pub(in crate::sched) fn parks(&self, somebody_waits: bool) -> bool {
        let saturation = policy::saturation(self.saturation.load(Relaxed), somebody_waits);
        self.saturation.store(saturation, Relaxed);
        somebody_waits && policy::parks(saturation, self.waiting())
    }

    /// A resumed worker is about to be pushed on the inbox.
    pub(in crate::sched) fn count_resumed_into_inbox(&self) {
        self.resumed.fetch_add(1, SeqCst);
    }

    /// `count` resumed workers have been taken out of the inbox.
    pub(in crate::sched) fn count_resumed_out_of_inbox(&self, count: u32) {
        self.resumed.fetch_sub(count, SeqCst);
    }

    /// Whether workers wait that another worker may hand its slot to: resumed ones in the inbox,
    /// and those that came back from a managed call.
    pub(in crate::sched) fn has_resumed(&self) -> bool {
        self.has_resumed_in_inbox() || !self.returned.is_empty()
    }

    /// Whether resumed workers are in the inbox.
    pub(in crate::sched) fn has_resumed_in_inbox(&self) -> bool {
        self.resumed.load(SeqCst) > 0
    }

    /// How many workers wait to be picked, and may be picked by another server as well.
    pub(in crate::sched) fn waiting(&self) -> u32 {
        self.workers.load(Relaxed) + self.returned.len()
    }

    /// Whether workers of other servers may take the task in the LIFO slot.
    fn lifo_is_open(&self, owner_is_awake: bool) -> bool {
        policy::lifo_is_open(owner_is_awake, self.lifo_overdue.load(SeqCst))
    }

    /// Takes the task in the LIFO slot.
    fn take_lifo(&self) -> Option<Runnable> {
        let task = self.lifo.take()?;
        // Relaxed: the flag is seldom set, and a late clear is harmless, see `lifo_overdue`.
        if self.lifo_overdue.load(Relaxed) {
            self.lifo_overdue.store(false, Relaxed);
        }
        Some(task)
    }
}

/// What one worker remembers from one take to the next.
#[derive(Debug, Default)]
pub(in crate::sched) struct TakeHistory {
    /// How many tasks it has looked for.
    takes: u32,
    /// How often in a row it has taken from a LIFO slot in the slot's turn.
    lifo_in_a_row: u32,
    /// Empty between two takes; kept so that its memory need not be allocated again.
    batch: Batch<Runnable>,
}

/// Where a task came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sched) enum Source {
    /// The worker's own server: its run queue or LIFO slot.
    Own,
    /// The injector.
    Injector,
    /// Another server.
    Stolen,
}

/// See the module page.
#[derive(Debug)]
pub(in crate::sched) struct RunQueues {
    /// Tasks that threads outside the runtime spawned or woke.
    pub(in crate::sched) injector: CachePadded<InjectorQueue<Runnable>>,
    /// How many workers wait for a descriptor without sleeping in the call (`reactor.rs`).
    pub(in crate::sched) parked: CachePadded<AtomicU32>,
    /// The workers that sleep in their slots.
    pub(in crate::sched) sleepers: Sleepers,
    /// One entry for each server.
    pub(in crate::sched) servers: Box<[CachePadded<ServerQueues>]>,
}

impl RunQueues {
    pub(in crate::sched) fn new(servers: usize) -> Self {
        Self {
            injector: CachePadded::new(InjectorQueue::new()),
            parked: CachePadded::new(AtomicU32::new(0)),
            sleepers: Sleepers::new(servers),
            servers: (0..servers)
                .map(|_| {
                    CachePadded::new(ServerQueues {
                        queue: ServerQueue::new(),
                        lifo: LifoSlot::new(),
                        workers: AtomicU32::new(0),
                        resumed: AtomicU32::new(0),
                        returned: ReturnedWorkers::new(),
                        handoffs: AtomicU32::new(0),
                        woken_in_a_row: AtomicU32::new(0),
                        woken_next: AtomicBool::new(false),
                        saturation: AtomicU32::new(0),
                        resumed_seen: AtomicBool::new(false),
                        lifo_seen: AtomicUsize::new(0),
                        lifo_overdue: AtomicBool::new(false),
                        tid: AtomicU32::new(0),
                        injector_served: AtomicU64::new(0),
                    })
                })
                .collect(),
        }
    }

    /// Whether the server would have something to do if its worker blocked now: to run something,
    /// or to see to the events of workers that are parked. If its worker sleeps in the slot and has
    /// said so, the poller sees to these. The provider asks this from its own
    /// threads, so it consists of loads only.
    pub(in crate::sched) fn has_work(&self, server: usize) -> bool {
        let own = &self.servers[server];
        own.workers.load(SeqCst) > 0
            || own.has_resumed()
            || (self.parked.load(SeqCst) > 0 && !self.sleepers.is_asleep(server))
            || !own.lifo.is_empty()
            || self.any_queued()
    }

    /// Whether a task is in the injector or in a run queue, from which every server takes.
    pub(in crate::sched) fn any_queued(&self) -> bool {
        !self.injector.is_empty() || self.servers.iter().any(|other| !other.queue.is_empty())
    }

    /// Whether a worker of this server would find a task: true exactly if [`take`](Self::take)
    /// would return one. A server that could see a task which its workers cannot take would never
    /// sleep; one that overlooked a task which they can take would sleep beside it.
    pub(in crate::sched) fn has_task_for(&self, server: usize, idle_servers: &IdleServers) -> bool {
        self.any_queued()
            || self.servers.iter().enumerate().any(|(index, other)| {
                !other.lifo.is_empty()
                    && (index == server || other.lifo_is_open(idle_servers.is_awake(index)))
            })
    }

    /// How many tasks are queued, in all queues and LIFO slots.
    pub(in crate::sched) fn len(&self) -> usize {
        self.injector.len()
            + self
                .servers
                .iter()
                .map(|server| server.queue.len() + usize::from(!server.lifo.is_empty()))
                .sum::<usize>()
    }

    /// Whether more than `limit` tasks are queued. It stops counting as soon as it knows.
    pub(in crate::sched) fn len_exceeds(&self, limit: usize) -> bool {
        let mut seen = self.injector.len();
        for server in &self.servers {
            if seen > limit {
                break;
            }
            seen += server.queue.len() + usize::from(!server.lifo.is_empty());
        }
        seen > limit
    }

    /// Whether there is a task that another server can take, beside the `spoken_for` tasks that a
    /// worker of this server is about to take. That worker takes the one in its LIFO slot first.
    pub(in crate::sched) fn has_more_for_others(&self, server: usize, spoken_for: usize) -> bool {
        let own = usize::from(!self.servers[server].lifo.is_empty());
        let beside = spoken_for.saturating_sub(own);
        let mut seen = self.injector.len();
        for other in &self.servers {
            if seen > beside {
                break;
            }
            seen += other.queue.len();
        }
        seen > beside
    }

    /// The next task for a worker of this server.
    pub(in crate::sched) fn take(
        &self,
        server: usize,
        idle_servers: &IdleServers,
        history: &mut TakeHistory,
    ) -> Option<(Runnable, Source)> {
        let own = &self.servers[server];
        history.takes = history.takes.wrapping_add(1);
        if own.handoffs.load(Relaxed) != 0 {
            own.handoffs.store(0, Relaxed);
        }
        let injector_is_due = !self.injector.is_empty() && self.is_injector_due(own, history);
        let lifo_is_due = policy::lifo_is_due(history.lifo_in_a_row);
        let mut places = PlacesOf {
            queues: self,
            own,
            server,
            idle_servers,
            history,
        };
        policy::take(&mut places, injector_is_due, lifo_is_due)
    }

    /// Whether the injector comes before the server's own tasks. This reads the clock, so it is
    /// only called while the injector has a task.
    fn is_injector_due(&self, own: &ServerQueues, history: &TakeHistory) -> bool {
        let now = now_ns();
        let waited_ns = now.saturating_sub(own.injector_served.load(Relaxed));
        let due = policy::injector_is_due(history.takes, waited_ns);
        if due {
            own.injector_served.store(now, Relaxed);
        }
        due
    }

    /// Moves a server's share of the injector's tasks to the back of its run queue. There they take
    /// turns with the tasks of that queue, and other servers find them as well.
    fn move_injector_share(&self, own: &ServerQueues) {
        if own.queue.is_empty() {
            // Nothing would take turns with them: whichever server is first takes each of them.
            return;
        }
        for _ in 0..policy::injector_share(self.injector.len(), self.servers.len()) {
            let Some(task) = self.injector.pop() else {
                return;
            };
            own.queue.push(task);
        }
    }

    /// The provider says that work of this server is overdue. If the same task is in the LIFO slot
    /// as at its last such call, the slot is open to all servers from here on. Returns whether it
    /// is.
    pub(in crate::sched) fn open_overdue_lifo(&self, server: usize) -> bool {
        let own = &self.servers[server];
        let task = own.lifo.address();
        // Relaxed: only the provider's thread uses it.
        let seen = own.lifo_seen.swap(task, Relaxed);
        let overdue = task != 0 && task == seen;
        if overdue {
            // SeqCst: the caller passes a fence and then claims an idle server, which reads this
            // in its look at the queues.
            own.lifo_overdue.store(true, SeqCst);
        }
        overdue
    }

    /// The same for workers that were resumed by the worker in the slot, which has not come back to
    /// the scheduler since. True: resumed workers were there at the last such call as well, and the
    /// server is to be woken.
    pub(in crate::sched) fn note_overdue_resumed(&self, server: usize) -> bool {
        let own = &self.servers[server];
        let some = own.has_resumed();
        // Relaxed: only the provider's thread uses it.
        own.resumed_seen.swap(some, Relaxed) && some
    }

    /// Whether a task is in the LIFO slot, and the slot is open to all servers.
    pub(in crate::sched) fn has_open_lifo(&self, server: usize) -> bool {
        let own = &self.servers[server];
        !own.lifo.is_empty() && own.lifo_overdue.load(SeqCst)
    }

    /// Stores by which tid a server is woken.
    pub(in crate::sched) fn set_tid(&self, server: usize, tid: u32) {
        self.servers[server].tid.store(tid, SeqCst);
    }

    pub(in crate::sched) fn tid(&self, server: usize) -> u32 {
        self.servers[server].tid.load(SeqCst)
    }

    /// Drops all queued tasks, on this thread. The task layer contains panics of their destructors.
    /// See
    /// [`Shared::sweep`](super::Shared::sweep).
    pub(in crate::sched) fn sweep(&self) {
        while let Some(task) = self.injector.pop() {
            drop(task);
        }
        for server in &self.servers {
            drop(server.lifo.take());
            while let Some(task) = server.queue.pop() {
                drop(task);
            }
        }
    }

    /// How many tasks, and how many workers, wait at one server. For metrics.
    pub(in crate::sched) fn depth(&self, server: usize) -> (usize, usize) {
        let own = &self.servers[server];
        (
            own.queue.len() + usize::from(!own.lifo.is_empty()),
            own.waiting() as usize,
        )
    }
}

/// Where a worker of one server finds tasks.
struct PlacesOf<'a> {
    queues: &'a RunQueues,
    /// Those of the worker's server. Looked up once: it is on the path of each task.
    own: &'a ServerQueues,
    /// The worker's server.
    server: usize,
    idle_servers: &'a IdleServers,
    /// The worker's.
    history: &'a mut TakeHistory,
}

impl policy::Places for PlacesOf<'_> {
    type Task = (Runnable, Source);

    #[inline]
    fn injector_in_turn(&mut self) -> Option<Self::Task> {
        let task = self.queues.injector.pop()?;
        self.queues.move_injector_share(self.own);
        Some((task, Source::Injector))
    }

    #[inline]
    fn lifo_in_turn(&mut self) -> Option<Self::Task> {
        let task = self.own.take_lifo()?;
        self.history.lifo_in_a_row += 1;
        Some((task, Source::Own))
    }

    #[inline]
    fn queue(&mut self) -> Option<Self::Task> {
        self.history.lifo_in_a_row = 0;
        Some((self.own.queue.pop()?, Source::Own))
    }

    #[inline]
    fn lifo(&mut self) -> Option<Self::Task> {
        Some((self.own.take_lifo()?, Source::Own))
    }

    #[inline]
    fn injector(&mut self) -> Option<Self::Task> {
        let (own, servers) = (&self.own.queue, self.queues.servers.len());
        let task = self
            .queues
            .injector
            .pop_share(own, servers, BATCH, &self.history.batch)?;
        Some((task, Source::Injector))
    }

    #[inline]
    fn others(&mut self) -> Option<Self::Task> {
        let count = self.queues.servers.len();
        (1..count)
            .map(|step| (self.server + step) % count)
            .find_map(|other| {
                let theirs = &self.queues.servers[other];
                theirs
                    .queue
                    .pop_share(&self.own.queue, 2, BATCH, &self.history.batch)
                    .or_else(|| {
                        theirs
                            .lifo_is_open(self.idle_servers.is_awake(other))
                            .then(|| theirs.take_lifo())
                            .flatten()
                    })
            })
            .map(|task| (task, Source::Stolen))
    }
}
