//! How a worker gives its slot up: to its server, or directly to another worker.
//!
//! A worker does so when it has no task (it becomes idle), when its task yields, and when its task
//! waits in one of the runtime's own waits (it parks). This directory's README has the argument:
//! section 2 for the way over the server, section 7 for the hand-off from worker to worker.
//!
//! Every way has the same shape. Whatever allocates, takes a lock, or may touch memory for the
//! first time comes first. Then the worker leaves RUNNING (`UmcgTask::leave`); if that fails, it
//! was judged, and a checkpoint comes first (trace A8). Between `leave` and `wait` it only writes
//! to memory that it has touched before (trace B10): a worker that blocked there would be on two
//! lists at once. Then `wait`.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Instant,
};

use umcg_sys::{Error, state};

use super::{Worker, WorkerState, current, run::WorkerThread};
use crate::{
    sched::{
        Shared,
        clock::now_ns,
        policy::{self, Successor},
        server::Server,
    },
    wait::{Alarm, Parker, Resume, Sleeper},
};

/// To the server.
impl WorkerThread {
    /// Gives the slot up and joins the idle workers of the server. False: an ordinary thread from
    /// here on.
    pub(super) fn become_idle(&self) -> bool {
        self.release_slot(WorkerState::Idle)
    }

    /// Joins the idle workers of the server as a judged worker, which has no slot to give up.
    /// False: an ordinary thread from here on.
    pub(super) fn become_idle_judged(&self) -> bool {
        self.disarm();
        self.record().set_idle_since(now_ns());
        self.record().task().leave_judged();
        self.enqueue_self_and_wait(WorkerState::Idle)
    }

    /// Gives the slot up as an idle or a yielded worker. True: the worker was picked again, or it
    /// kept its slot because it was judged just then; in both cases a checkpoint follows. False: an
    /// ordinary thread from here on.
    pub(super) fn release_slot(&self, state: WorkerState) -> bool {
        let idle = state == WorkerState::Idle;
        if idle {
            // Before `leave`, since it reads the clock.
            self.record().set_idle_since(now_ns());
        }
        // A worker that yields lets its server choose, which gives queued tasks their turns.
        let next = idle.then(|| self.pick_resumed()).flatten();
        // After the look for a resumed worker: a spare that is returned to the inbox would hide it.
        self.disarm();
        if !self.record().task().leave() {
            // Judged: the checkpoint comes first (trace A8).
            self.undo_choice(next);
            return true;
        }
        match next {
            Some(next) => self.hand_off_to(next, state),
            None => {
                self.disarm_after_leave();
                self.enqueue_self_and_wait(state)
            }
        }
    }

    /// Where the kernel stops workers, this worker may have been preempted since it disarmed, and
    /// picked and armed once more. After `leave` nobody arms it.
    fn disarm_after_leave(&self) {
        if self.record().task().next_tid() != 0 {
            self.disarm();
        }
    }

    /// The second half of giving the slot to the server; the worker is RUNNABLE already. False: an
    /// ordinary thread from here on.
    fn enqueue_self_and_wait(&self, state: WorkerState) -> bool {
        let record = self.record();
        let server = self.server();
        record.counts().flush_takes(&server.counters);
        record.set_state(state);
        if state == WorkerState::Idle {
            server.count_idle_into_inbox();
        }
        // From here on the server owns this worker.
        server.inbox().push(&self.shared.arena, record.index());
        match self.wait_until_picked() {
            Ok(()) => true,
            Err(error) => self.detach(&error),
        }
    }

    /// `Provider::wait`, and what a worker does first when it runs again.
    pub(super) fn wait_until_picked(&self) -> Result<(), Error> {
        let outcome = self.shared.provider.wait(0, 0);
        let record = self.record();
        if outcome.is_ok() {
            record.next_tid_owner.give_back();
            if record.task().state() == state::BLOCKED {
                // This worker was judged before it got here. Its server took `next_tid` for a
                // choice that still stood, and did not disarm it.
                self.disarm();
            }
        }
        if let Some(predecessor) = record.take_predecessor() {
            self.publish(self.shared.arena.get(predecessor));
        }
        record.set_state(WorkerState::Busy);
        outcome
    }

    /// A `wait` failed because the server has gone: this is an ordinary thread from here on. False.
    pub(super) fn detach(&self, error: &Error) -> bool {
        assert!(error.is_gone(), "a worker could not wait: {error}");
        self.detached.set(true);
        self.record().publication.retract(std::thread::yield_now);
        false
    }

    /// Takes the spare back that is armed in this worker, and returns it to the idle workers.
    /// Called even if `next_tid` says that there is none: see the contract of `Provider::disarm`.
    pub(super) fn disarm(&self) {
        if let Some(spare) = self.shared.disarm(self.record()) {
            self.return_to_server(spare);
        }
    }

    /// Gives an idle or a resumed worker that this worker owns to its server. This worker looks at
    /// its own server's inbox before it looks for another worker and before it ends.
    pub(super) fn return_to_server(&self, worker: &Worker) {
        let server = &self.shared.servers[worker.server()];
        if worker.state() == WorkerState::Resumed {
            self.shared.run_queues.servers[server.index()].count_resumed_into_inbox();
        } else {
            server.count_idle_into_inbox();
        }
        server.inbox().push(&self.shared.arena, worker.index());
        if worker.server() != self.record().server() {
            // The other server may sleep, and this worker does not look at its inbox.
            self.shared.notify_inbox(server);
        }
    }
}

/// To another worker.
impl WorkerThread {
    /// Sleeps without a slot until the wait in `parker`, which is PARKED, is over. Also returns,
    /// with `parker` PARKED, when this is an ordinary thread from here on.
    pub(super) fn sleep_in(&self, parker: &Parker) {
        let record = self.record();
        // Relaxed: the successor reads it after it was dispatched.
        record
            .parker
            .store(ptr::from_ref(parker).cast_mut(), Relaxed);
        while self.checkpoint_in_task() && !parker.is_over() {
            let sleeper = Sleeper {
                runtime: Arc::clone(&self.shared) as Arc<dyn Resume>,
                worker: record.index(),
            };
            let next = self.choose_successor();
            if !record.task().leave() {
                // Judged: the checkpoint comes first (trace A8).
                self.undo_choice(next);
                continue;
            }
            if let Some(next) = next {
                // The successor makes a `Sleeper` of its own.
                self.hand_off_to(next, WorkerState::Parked);
                continue;
            }
            self.disarm_after_leave();
            record.set_state(WorkerState::Parked);
            if !parker.hold(sleeper) {
                // The wait is over already. This worker has left RUNNING, so it comes back by way
                // of its server.
                record.set_state(WorkerState::Resumed);
                let server = self.server();
                self.shared.run_queues.servers[server.index()].count_resumed_into_inbox();
                server.inbox().push(&self.shared.arena, record.index());
            }
            record.counts().flush_takes(&self.server().counters);
            if let Err(error) = self.wait_until_picked() {
                self.detach(&error);
            }
        }
        // If this worker lost its server, the parker may hold it still. Else the wait is over.
        parker.release();
    }

    /// [`sleep_in`](Self::sleep_in) until `deadline` at most. Returns at once if no timer can be
    /// made for it.
    pub(super) fn sleep_until(&self, parker: &Parker, deadline: Instant) {
        let alarm = Alarm::arm(parker);
        if let Ok(timer) = self.shared.driver.arm(deadline, alarm.waker()) {
            self.sleep_in(parker);
            drop(timer);
        }
    }

    /// Looks whether workers that wait for a descriptor may go on.
    pub(super) fn poll_events(&self) {
        if let Some(reactor) = self.shared.busy_reactor() {
            let queues = &self.shared.run_queues.servers[self.record().server()];
            reactor.poll(&self.shared, !queues.has_resumed());
        }
    }

    /// The worker to which this one, which is about to sleep in the middle of a task, hands its
    /// slot. `None`: the slot goes to the server. `Some`: this worker owns the other one, and
    /// `next_tid`. Disarms this worker.
    fn choose_successor(&self) -> Option<&Worker> {
        self.poll_events();
        let server = self.server();
        let run_queues = &self.shared.run_queues;
        let waiting = &run_queues.servers[server.index()];
        let choice = policy::successor(
            waiting.has_resumed(),
            run_queues.has_task_for(server.index(), &self.shared.idle_servers),
            || waiting.is_task_due(),
            || server.server_must_pick(run_queues),
        );
        match choice {
            Successor::Idle if self.record().next_tid_owner.claim() => self.take_idle(server),
            // Idle: the claim failed, since the server is disarming this worker. It gets the slot.
            Successor::Idle | Successor::Server => {
                self.disarm();
                None
            }
            Successor::Resumed => {
                let next = self.claim_resumed(server);
                if next.is_some() {
                    waiting.count_handoff();
                }
                self.disarm();
                next
            }
        }
    }

    /// An idle worker of `server`, this worker's own, to hand the slot to. This worker has claimed
    /// `next_tid`, and gives it back if there is none. Disarms this worker.
    fn take_idle(&self, server: &Server) -> Option<&Worker> {
        let next = match self.shared.disarm(self.record()) {
            Some(spare) if spare.server() == server.index() => Some(spare),
            spare => {
                // The spare belongs to another server by now.
                if let Some(spare) = spare {
                    self.return_to_server(spare);
                }
                self.pop_from_inbox(server, WorkerState::Idle)
            }
        };
        if next.is_none() {
            self.record().next_tid_owner.give_back();
        }
        next
    }

    /// The resumed worker to which this one, which has no task and becomes idle, hands its slot.
    /// `None`: the slot goes to the server. `Some`: this worker owns the other one, and `next_tid`.
    fn pick_resumed(&self) -> Option<&Worker> {
        self.poll_events();
        let server = self.server();
        let run_queues = &self.shared.run_queues;
        let choice = policy::successor(
            run_queues.servers[server.index()].has_resumed(),
            false,
            || false,
            || server.server_must_pick(run_queues),
        );
        match choice {
            Successor::Resumed => self.claim_resumed(server),
            Successor::Idle | Successor::Server => None,
        }
    }

    /// Claims `next_tid` and takes the newest resumed worker of `server`, this worker's own.
    /// `None`: the server is disarming this worker, or somebody else took the resumed worker.
    /// `Some`: this worker owns the other one, and `next_tid`.
    fn claim_resumed(&self, server: &Server) -> Option<&Worker> {
        if !self.record().next_tid_owner.claim() {
            return None;
        }
        let next = self.pop_resumed(server);
        if next.is_none() {
            self.record().next_tid_owner.give_back();
        }
        next
    }

    /// Pops a resumed worker of `server`, or one that came back from a managed call. A resumed
    /// worker comes first, because it was woken by another thread, which may wait for it in turn.
    /// But workers that wake each other do not hold up those that came back.
    pub(super) fn pop_resumed(&self, server: &Server) -> Option<&Worker> {
        let waiting = &self.shared.run_queues.servers[server.index()];
        let returned = &waiting.returned;
        let io = || Some(self.shared.arena.get(returned.pop_io()?));
        let woken = || {
            let resumed = || self.pop_from_inbox(server, WorkerState::Resumed);
            let woken = || Some(self.shared.arena.get(returned.pop_woken()?));
            if waiting.woken_is_next(waiting.has_resumed_in_inbox()) {
                woken().or_else(resumed)
            } else {
                resumed().or_else(woken)
            }
        };
        if waiting.io_is_next(waiting.has_resumed_in_inbox() || returned.len_woken() > 0) {
            io().or_else(woken)
        } else {
            woken().or_else(io)
        }
    }

    /// Undoes [`choose_successor`](Self::choose_successor) or [`pick_resumed`](Self::pick_resumed)
    /// when there is no switch.
    fn undo_choice(&self, next: Option<&Worker>) {
        self.record().next_tid_owner.give_back();
        if let Some(next) = next {
            self.return_to_server(next);
            // Even if that server is this worker's own: a judged worker has no slot, and may not
            // look at the inbox next.
            self.shared
                .notify_inbox(&self.shared.servers[next.server()]);
        }
    }

    /// Pops the newest worker from the inbox of `server`, if it is in this state.
    fn pop_from_inbox(&self, server: &Server, state: WorkerState) -> Option<&Worker> {
        let links = &self.shared.arena;
        // Only a hint: the newest worker may be popped, and be in another state, by the next line.
        server
            .inbox()
            .peek()
            .filter(|&newest| links.get(newest).state() == state)?;
        let worker = links.get(server.inbox().pop(links)?);
        // The worker is ours, so nobody changes its state.
        if worker.state() != state {
            server.inbox().push(links, worker.index());
            // The server may have drained the inbox in between, and sleep.
            let _ = self.shared.provider.wake(server.tid());
            return None;
        }
        match state {
            WorkerState::Resumed => {
                self.shared.run_queues.servers[server.index()].count_resumed_out_of_inbox(1);
            }
            _ => server.count_idle_out_of_inbox(1),
        }
        Some(worker)
    }

    /// The second half of handing the slot to `next`, which this worker owns; this worker is
    /// RUNNABLE already. False: an ordinary thread from here on.
    fn hand_off_to(&self, next: &Worker, state: WorkerState) -> bool {
        let record = self.record();
        record.counts().flush_takes(&self.server().counters);
        record.set_state(state);
        record.publication.request();
        self.disarm_after_leave();
        next.set_predecessor(record);
        record.task().set_next_tid(next.task().tid());
        // If this worker is judged before it gets to `wait`, the provider makes `next` a runnable
        // event of the server: `next` runs later, and publishes this worker all the same.
        match self.wait_until_picked() {
            Ok(()) => true,
            Err(error) if error.is_busy() => {
                // `next` could not be dispatched, and nothing has happened: this worker runs, and
                // owns `next`.
                next.clear_predecessor();
                record.publication.withdraw();
                record.task().clear_next_tid(next.task().tid());
                self.undo_choice(Some(next));
                true
            }
            Err(error) => self.detach(&error),
        }
    }

    /// Publishes the worker that handed its slot to this one.
    fn publish(&self, predecessor: &Worker) {
        let Some(publishing) = predecessor.publication.begin() else {
            return;
        };
        if predecessor.state() == WorkerState::Parked {
            let sleeper = Sleeper {
                runtime: Arc::clone(&self.shared) as Arc<dyn Resume>,
                worker: predecessor.index(),
            };
            // SAFETY: the predecessor stored the parker's address, and sleeps in the parker until
            // it is resumed. If it lost its server, it waits until the publication is over.
            let parker = unsafe { &*predecessor.parker.load(Relaxed) };
            if !parker.hold(sleeper) {
                // The wait is over already, so the predecessor is ours.
                self.shared.resume(predecessor.index());
            }
        } else {
            let server = &self.shared.servers[predecessor.server()];
            server.count_idle_into_inbox();
            server.inbox().push(&self.shared.arena, predecessor.index());
            self.shared.notify_inbox(server);
        }
        predecessor.publication.end(publishing);
    }
}

impl Shared {
    /// After a push on the queue of workers that came back to `server`. Its workers look there when
    /// they give their slot up, and the server by its deadline. If the worker in its slot sleeps,
    /// the slot is retaken. If the server idles, it is woken: a worker may have taken its slot
    /// meanwhile, and then the server begins to count that worker's slice.
    pub(super) fn notify_returned(&self, server: &Server) {
        // Between the push and the looks; pairs with the fence of the provider's watcher, with that
        // in `IdleServers::enter_idle`, and with that in `Sleepers::enter`.
        fence(SeqCst);
        self.provider.work_waiting(server.tid());
        if !self.retake_slot(server.index()) && self.idle_servers.is_asleep(server.index()) {
            // ESRCH: the server has left, and its workers are ordinary threads.
            let _ = self.provider.wake(server.tid());
        }
    }

    /// After a push on the inbox of `server`: makes sure that somebody looks at the inbox.
    pub(super) fn notify_inbox(&self, server: &Server) {
        // Between the push and the looks; pairs with the fence of the provider's watcher, and with
        // the one in the server's `drain`, between RUNNABLE and its look at the inbox.
        fence(SeqCst);
        self.provider.work_waiting(server.tid());
        // The worker in that server's slot looks at the inbox between two tasks, and the watcher
        // wakes the server if that takes long. If the caller is not that worker, or nobody watches,
        // the server is woken.
        let caller_looks = self.watched
            && current::with_worker(self, |caller| {
                self.provider.current(server.tid()) == Some(caller.record().task().tid())
            })
            .unwrap_or(false);
        if !caller_looks && !self.retake_slot(server.index()) {
            // ESRCH: the server has left, and its workers are ordinary threads.
            let _ = self.provider.wake(server.tid());
        }
    }
}

impl Resume for Shared {
    fn resume(&self, index: u32) {
        let worker = self.arena.get(index);
        // The worker sleeps, and the caller owns it, so nobody moves it to another server.
        let server = &self.servers[worker.server()];
        worker.set_state(WorkerState::Resumed);
        let queues = &self.run_queues.servers[server.index()];
        if worker.waits_for_io() && queues.returned.push_io(index, worker.take_precedence()) {
            self.notify_returned(server);
            return;
        }
        queues.count_resumed_into_inbox();
        server.inbox().push(&self.arena, index);
        self.notify_inbox(server);
    }
}
