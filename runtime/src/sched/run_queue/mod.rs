//! All that waits to run: the queues of the servers, the injector, the LIFO slots.
//!
//! Apart from the rest of the scheduler so that a provider's `has_work` can hold it without
//! keeping the runtime alive.

mod lifo_slot;
mod queue;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use crossbeam_utils::CachePadded;

use self::{
    lifo_slot::LifoSlot,
    queue::{Batch, InjectorQueue, ServerQueue},
};
use super::{
    clock::now_ns,
    idle::IdleServers,
    policy::{self, BATCH},
};
use crate::{
    sync::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
    task::Runnable,
};

/// What a server has to run.
#[derive(Debug)]
pub(in crate::sched) struct ServerQueues {
    /// Tasks that were spawned or woken by workers of this server.
    pub(in crate::sched) queue: ServerQueue<Runnable>,
    /// The task that was woken last by a worker of this server.
    pub(in crate::sched) lifo: LifoSlot<Runnable>,
    /// How many *workers* wait to be picked: unblocked, preempted or yielded, in the server's
    /// lists. Written under the lock of these lists.
    pub(in crate::sched) workers: AtomicU32,
    /// Workers that were resumed and are in the server's inbox. Raised before the push, lowered
    /// after the removal.
    resumed: AtomicU32,
    /// How often in a row workers that sleep in the middle of a task have handed the slot to
    /// resumed ones, without a task having been taken. Relaxed everywhere: a count for fairness.
    handoffs: AtomicU32,
    /// Some were there when the provider last said that this server's work does not move on.
    /// Written by the provider's thread.
    resumed_seen: AtomicBool,
    /// What was in `lifo` when the provider last said that this server's work does not move on;
    /// only ever compared. Written by the provider's thread.
    lifo_seen: AtomicUsize,
    /// The task in `lifo` has waited for too long: any server may take it. Set by the provider's
    /// thread, cleared by whoever takes the task. May outlast it for a moment, which opens the
    /// slot to one task more.
    lifo_overdue: AtomicBool,
    /// The server's thread id, for whoever has to wake it and has nothing but this.
    tid: AtomicU32,
    /// When a worker of this server last gave the injector its turn, CLOCK_MONOTONIC ns. Relaxed
    /// everywhere: two who come at once may both give it.
    injector_served: AtomicU64,
}

impl ServerQueues {
    /// The slot goes to a resumed worker from one that sleeps.
    pub(in crate::sched) fn count_handoff(&self) {
        self.handoffs.fetch_add(1, Relaxed);
    }

    /// A worker for the tasks has been asked for.
    pub(in crate::sched) fn reset_handoffs(&self) {
        self.handoffs.store(0, Relaxed);
    }

    /// Workers that wake each other have kept the slot to themselves for long enough: a task is
    /// next, if there is one.
    pub(in crate::sched) fn is_task_due(&self) -> bool {
        policy::task_is_due(self.handoffs.load(Relaxed))
    }

    /// A worker that was resumed is about to come into the inbox.
    pub(in crate::sched) fn count_resumed_into_inbox(&self) {
        self.resumed.fetch_add(1, SeqCst);
    }

    /// So many have been taken out of it.
    pub(in crate::sched) fn count_resumed_out_of_inbox(&self, count: u32) {
        self.resumed.fetch_sub(count, SeqCst);
    }

    /// Whether workers that were resumed are in the inbox.
    pub(in crate::sched) fn has_resumed(&self) -> bool {
        self.resumed.load(SeqCst) > 0
    }

    /// The task in the LIFO slot.
    fn take_lifo(&self) -> Option<Runnable> {
        let task = self.lifo.take()?;
        // Relaxed: seldom set, and late is harmless.
        if self.lifo_overdue.load(Relaxed) {
            self.lifo_overdue.store(false, Relaxed);
        }
        Some(task)
    }
}

/// What one worker remembers from take to take.
#[derive(Debug, Default)]
pub(in crate::sched) struct TakeHistory {
    takes: u32,
    lifo_in_a_row: u32,
    batch: Batch<Runnable>,
}

/// Where a task came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sched) enum Source {
    /// The server's own queue or LIFO slot.
    Own,
    /// The injector.
    Injector,
    /// Another server's.
    Stolen,
}

/// See the module page.
#[derive(Debug)]
pub(in crate::sched) struct RunQueues {
    /// Tasks from threads that are no workers of this runtime.
    pub(in crate::sched) injector: CachePadded<InjectorQueue<Runnable>>,
    /// One a server.
    pub(in crate::sched) servers: Box<[CachePadded<ServerQueues>]>,
}

impl RunQueues {
    pub(in crate::sched) fn new(servers: usize) -> Self {
        Self {
            injector: CachePadded::new(InjectorQueue::new()),
            servers: (0..servers)
                .map(|_| {
                    CachePadded::new(ServerQueues {
                        queue: ServerQueue::new(),
                        lifo: LifoSlot::new(),
                        workers: AtomicU32::new(0),
                        resumed: AtomicU32::new(0),
                        handoffs: AtomicU32::new(0),
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

    /// Whether the server would have something to run if its worker blocked now. For the
    /// provider, from its own threads: loads only.
    pub(in crate::sched) fn has_work(&self, server: usize) -> bool {
        let own = &self.servers[server];
        own.workers.load(SeqCst) > 0
            || own.resumed.load(SeqCst) > 0
            || !own.lifo.is_empty()
            || self.any_queued()
    }

    /// Whether a task is in a queue that every server takes from.
    pub(in crate::sched) fn any_queued(&self) -> bool {
        !self.injector.is_empty() || self.servers.iter().any(|other| !other.queue.is_empty())
    }

    /// Whether a worker of this server would find a task: exactly what [`take`](Self::take)
    /// looks at.
    pub(in crate::sched) fn has_task_for(&self, server: usize, idle_servers: &IdleServers) -> bool {
        self.any_queued()
            || self.servers.iter().enumerate().any(|(index, other)| {
                !other.lifo.is_empty() && self.lifo_is_open(index, server, idle_servers)
            })
    }

    /// How many tasks are queued, over all queues; LIFO slots count if filled.
    pub(in crate::sched) fn len(&self) -> usize {
        self.injector.len()
            + self
                .servers
                .iter()
                .map(|server| server.queue.len() + usize::from(!server.lifo.is_empty()))
                .sum::<usize>()
    }

    /// Whether more than `limit` tasks are queued: stops counting as soon as it knows.
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

    /// Whether other servers have something to take, beside `spoken_for` tasks that a worker of
    /// this one is about to: the one in its LIFO slot first.
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
            server,
            idle_servers,
            history,
        };
        policy::take(&mut places, injector_is_due, lifo_is_due)
    }

    /// Whether the injector comes before the server's own tasks. It reads the clock, so it is only
    /// called while the injector has a task.
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

    /// Whether a worker of `server` may take the task in the LIFO slot of `owner`.
    fn lifo_is_open(&self, owner: usize, server: usize, idle_servers: &IdleServers) -> bool {
        policy::lifo_is_open(
            owner == server,
            || idle_servers.is_awake(owner),
            || self.servers[owner].lifo_overdue.load(SeqCst),
        )
    }

    /// The provider says that this server's work has not moved on since it last said so, as far
    /// as it can see. True: a task is in the LIFO slot, was there then, and is open to all from
    /// here on.
    pub(in crate::sched) fn open_overdue_lifo(&self, server: usize) -> bool {
        let own = &self.servers[server];
        let task = own.lifo.address();
        // Relaxed: one thread.
        let seen = own.lifo_seen.swap(task, Relaxed);
        let overdue = task != 0 && task == seen;
        if overdue {
            // SeqCst: before the claim of an idle server, which looks at it.
            own.lifo_overdue.store(true, SeqCst);
        }
        overdue
    }

    /// The same for workers that were resumed by the one in the slot, which then did not come
    /// back to the scheduler. True: the server is to be woken.
    pub(in crate::sched) fn note_overdue_resumed(&self, server: usize) -> bool {
        let own = &self.servers[server];
        let some = own.resumed.load(SeqCst) > 0;
        // Relaxed: one thread.
        own.resumed_seen.swap(some, Relaxed) && some
    }

    /// Whether a task is in a LIFO slot that is open to all.
    pub(in crate::sched) fn has_open_lifo(&self, server: usize) -> bool {
        let own = &self.servers[server];
        !own.lifo.is_empty() && own.lifo_overdue.load(SeqCst)
    }

    /// Notes under which thread id a server is to be woken.
    pub(in crate::sched) fn set_tid(&self, server: usize, tid: u32) {
        self.servers[server].tid.store(tid, SeqCst);
    }

    pub(in crate::sched) fn tid(&self, server: usize) -> u32 {
        self.servers[server].tid.load(SeqCst)
    }

    /// Drops all tasks, on this thread. Their destructors are contained by the task layer. See
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

    /// How many tasks and workers wait at one server, for metrics.
    pub(in crate::sched) fn depth(&self, server: usize) -> (usize, usize) {
        let own = &self.servers[server];
        (
            own.queue.len() + usize::from(!own.lifo.is_empty()),
            own.workers.load(Relaxed) as usize,
        )
    }
}

/// Where a worker of one server finds tasks.
struct PlacesOf<'a> {
    queues: &'a RunQueues,
    /// The worker's server.
    server: usize,
    idle_servers: &'a IdleServers,
    /// The worker's.
    history: &'a mut TakeHistory,
}

impl PlacesOf<'_> {
    fn own(&self) -> &ServerQueues {
        &self.queues.servers[self.server]
    }
}

impl policy::Places for PlacesOf<'_> {
    type Task = (Runnable, Source);

    #[inline]
    fn injector_in_turn(&mut self) -> Option<Self::Task> {
        let task = self.queues.injector.pop()?;
        self.queues.move_injector_share(self.own());
        Some((task, Source::Injector))
    }

    #[inline]
    fn lifo_in_turn(&mut self) -> Option<Self::Task> {
        let task = self.own().take_lifo()?;
        self.history.lifo_in_a_row += 1;
        Some((task, Source::Own))
    }

    #[inline]
    fn queue(&mut self) -> Option<Self::Task> {
        self.history.lifo_in_a_row = 0;
        Some((self.own().queue.pop()?, Source::Own))
    }

    #[inline]
    fn lifo(&mut self) -> Option<Self::Task> {
        Some((self.own().take_lifo()?, Source::Own))
    }

    #[inline]
    fn injector(&mut self) -> Option<Self::Task> {
        let (own, servers) = (&self.own().queue, self.queues.servers.len());
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
                    .pop_share(&self.own().queue, 2, BATCH, &self.history.batch)
                    .or_else(|| {
                        self.queues
                            .lifo_is_open(other, self.server, self.idle_servers)
                            .then(|| theirs.take_lifo())
                            .flatten()
                    })
            })
            .map(|task| (task, Source::Stolen))
    }
}
