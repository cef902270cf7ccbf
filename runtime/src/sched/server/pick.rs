//! Which worker gets a free slot: from the server's own lists, else from another server's.
//!
//! `policy.rs` decides; this file knows the lists. The server owns the worker that it has picked,
//! because it took the worker off its list under that list's lock (the README of the directory
//! above, section 2).

use super::{Lists, Server, run::ServerThread};
use crate::sched::{
    policy::{self, PickFrom, PickView, Steal},
    worker::WorkerState,
};

impl ServerThread<'_> {
    /// The worker that runs next, by index, and where it came from. The slot is the server's, and
    /// the caller owns the worker.
    pub(super) fn pick(&mut self) -> Option<(u32, PickFrom)> {
        let stopping = self.shared.lifecycle.is_stopping();
        let tasks = self.has_tasks();
        {
            let mut lists = self.me.lists();
            self.retire_surplus(&mut lists);
            let pick = self.pick_own(&mut lists, tasks, stopping);
            self.watch_surplus(&lists);
            self.me.store_lengths(&lists, &self.shared.run_queues);
            if pick.is_some() {
                return pick;
            }
        }
        policy::steal_order(tasks, stopping)
            .iter()
            .find_map(|what| match what {
                Steal::Waiting => Some((self.steal_waiting()?, PickFrom::Ready)),
                Steal::Idle => Some((self.steal_idle()?, PickFrom::Idle)),
            })
    }

    /// A worker from this server's own lists.
    fn pick_own(
        &mut self,
        lists: &mut Lists,
        tasks: bool,
        stopping: bool,
    ) -> Option<(u32, PickFrom)> {
        let queues = &self.shared.run_queues.servers[self.me.index()];
        let view = PickView {
            ready: lists.ready.len() > 0 || !queues.returned.is_empty(),
            yielded: lists.yielded.len() > 0,
            idle: lists.idle.len() > 0,
            tasks,
            task_is_due: tasks && queues.is_task_due(),
            stopping,
        };
        if self.turns.task_needs_worker(&view) {
            self.shared.spawner.request(self.me);
            queues.reset_handoffs();
        }
        let from = self.turns.next_worker(&view)?;
        let links = &self.shared.arena;
        let worker = match from {
            PickFrom::Ready => {
                let returned = &queues.returned;
                let first = lists.ready.len() > 0 || returned.len_woken() > 0;
                let mut pop_first = || {
                    if queues.woken_is_next(lists.ready.len() > 0) {
                        returned.pop_woken().or_else(|| lists.ready.pop(links))
                    } else {
                        lists.ready.pop(links).or_else(|| returned.pop_woken())
                    }
                };
                if queues.io_is_next(first) {
                    returned.pop_io().or_else(pop_first)
                } else {
                    pop_first().or_else(|| returned.pop_io())
                }
            }
            PickFrom::Yielded => lists.yielded.pop(links),
            PickFrom::Idle => lists.idle.pop(links),
        }?;
        if links.get(worker).state() == WorkerState::Starting {
            self.turns.worker_has_come();
        }
        if from == PickFrom::Yielded
            && tasks
            && !view.idle
            && self
                .yield_rounds
                .tasks_need_worker(self.me.counters.takes())
        {
            self.shared.spawner.request(self.me);
        }
        Some((worker, from))
    }

    /// A worker that waits behind the running one of another server.
    fn steal_waiting(&self) -> Option<u32> {
        self.others()
            .filter(|other| self.may_steal_waiting(other))
            .find_map(|other| {
                let mut lists = other.lists();
                let links = &self.shared.arena;
                let returned = &self.shared.run_queues.servers[other.index()].returned;
                let worker = lists
                    .ready
                    .pop(links)
                    .or_else(|| lists.yielded.pop(links))
                    .or_else(|| returned.pop_woken())
                    .or_else(|| returned.pop_io())?;
                other.store_lengths(&lists, &self.shared.run_queues);
                self.adopt(other, worker);
                self.me.counters.count_worker_steal();
                Some(worker)
            })
    }

    /// Whether `other` has a waiting worker that it is not about to pick itself.
    pub(super) fn may_steal_waiting(&self, other: &Server) -> bool {
        let waiting = self.shared.run_queues.servers[other.index()].waiting();
        policy::may_steal_waiting(waiting, || {
            self.shared.provider.current(other.tid()).is_some()
        })
    }

    /// An idle worker of another server, which is cheaper than a new one.
    fn steal_idle(&self) -> Option<u32> {
        self.others()
            .filter(|other| other.idle_listed() > 0)
            .find_map(|other| {
                let mut lists = other.lists();
                let worker = lists.idle.pop(&self.shared.arena)?;
                other.store_lengths(&lists, &self.shared.run_queues);
                self.adopt(other, worker);
                Some(worker)
            })
    }

    /// The other servers, the next one first.
    pub(super) fn others(&self) -> impl Iterator<Item = &Server> {
        let count = self.shared.servers.len();
        let own = self.me.index();
        (1..count).map(move |step| &self.shared.servers[(own + step) % count])
    }

    /// Makes a worker that was taken from `other` one of this server's. The caller owns the worker
    /// and holds the lock of the lists of `other`.
    fn adopt(&self, other: &Server, worker: u32) {
        self.shared.arena.get(worker).set_server(self.me);
        self.me.gain_worker();
        other.lose_worker();
    }
}
