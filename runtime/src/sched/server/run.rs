//! The loop of a server's thread: drain, pick, `wait`. It never runs user code.
//!
//! The steps and their order are those of the mail, as corrected by traces A2, A7, A9 and A13. The
//! README of the directory above, sections 2 to 5, says why each step is where it is.

use std::sync::{
    Arc,
    atomic::{Ordering::SeqCst, fence},
};

use umcg_sys::{Error, List, Placement, Register, WAIT_TAKE_OVER};

use super::{
    Server,
    slices::{Leftovers, Slices},
};
use crate::panic::AbortIfPanic;
use crate::sched::{
    Shared,
    clock::now_ns,
    idle::{IdleServers, OwedAnswer},
    policy::{self, MAX_LEFTOVERS, PickFrom, PickTurns, Progress, Slice, SliceStep, YieldRounds},
    run_queue::RunQueues,
    worker::{Worker, WorkerState},
    worker_list::Lifo,
};

/// A server's thread, from inside.
pub(super) struct ServerThread<'a> {
    /// What all threads of the runtime share.
    pub(super) shared: &'a Shared,
    /// What other threads see of this server.
    pub(super) me: &'a Server,
    /// `Some`: this server was claimed and has not answered yet (README, section 3).
    owed: Option<OwedAnswer>,
    /// Of the worker in the slot, while this server sleeps behind it.
    slice: Slice,
    /// The record of the worker in the slot, if this server has looked it up.
    holder: Option<&'a Worker>,
    /// The workers that it has preempted and that may still run.
    leftovers: Leftovers,
    /// `Some`: more workers are idle than `min_idle`, and the longest-idle one has been idle no
    /// earlier than this (CLOCK_MONOTONIC ns). `None`: there is no surplus. See `surplus.rs`.
    pub(super) surplus_since: Option<u64>,
    /// Whose turn it is among those that wait for the slot.
    pub(super) turns: PickTurns,
    /// How long workers that yield have kept queued tasks waiting.
    pub(super) yield_rounds: YieldRounds,
}

/// The thread of server `index`. `registered` is told how the registration went, before anything
/// else happens.
pub(in crate::sched) fn main(
    shared: Arc<Shared>,
    index: usize,
    registered: impl FnOnce(Result<(), Error>),
) {
    let guard = AbortIfPanic("a server's loop");
    shared.begin_thread();
    let me = &shared.servers[index];
    me.task().prepare(0);
    let run_queues = Arc::clone(&shared.run_queues);
    let placement = if shared.config.pin {
        Placement::Auto
    } else {
        Placement::Unpinned
    };
    run_queues.set_tid(index, me.tid());
    let how = Register::server(placement)
        .has_work({
            let run_queues = Arc::clone(&run_queues);
            Arc::new(move || run_queues.has_work(index))
        })
        .overdue({
            let idle_servers = Arc::clone(&shared.idle_servers);
            let slices = Arc::clone(&shared.slices);
            Arc::new(move || wake_for_overdue(index, &run_queues, &idle_servers, &slices))
        });
    // SAFETY: the task is in `shared`, which this thread keeps until after `unregister`.
    let outcome = unsafe { shared.provider.register(me.task_ptr(), &how) };
    let works = outcome.is_ok();
    registered(outcome);
    if works {
        ServerThread {
            shared: &shared,
            me,
            owed: None,
            slice: Slice::default(),
            holder: None,
            leftovers: Leftovers::new(),
            surplus_since: None,
            turns: PickTurns::new(),
            yield_rounds: YieldRounds::default(),
        }
        .run();
        me.save_counters(shared.provider.counters(me.tid()));
        if let Err(error) = shared.provider.unregister(me.task_ptr()) {
            unreachable!("a server could not unregister: {error}");
        }
        shared.server_unregistered();
    }
    guard.disarm();
    shared.lifecycle.remove_thread();
}

/// The provider's watcher has seen that work of server `index` is overdue: it has waited for a
/// whole look of the watcher behind a worker that keeps running. Returns the tid of a server that
/// the watcher wakes for it.
///
/// A resumed worker waits for its own server, which then gives the worker in the slot its time
/// slice. A task in the LIFO slot is opened to all servers, and an idle one takes it. If no server
/// idles, each queued task waits behind a worker that computes: its server begins to count the time
/// slice, unless it does so already.
fn wake_for_overdue(
    index: usize,
    run_queues: &RunQueues,
    idle_servers: &IdleServers,
    slices: &Slices,
) -> Option<u32> {
    if run_queues.note_overdue_resumed(index) {
        return Some(run_queues.tid(index));
    }
    if run_queues.open_overdue_lifo(index) {
        // The slot is opened, then the idle servers are read: see `IdleServers::claim`.
        fence(SeqCst);
        let pending = || run_queues.any_queued() || run_queues.has_open_lifo(index);
        if let Some(idle) = idle_servers.claim(pending) {
            return Some(run_queues.tid(idle));
        }
    }
    let waits = run_queues.has_task_for(index, idle_servers) && !idle_servers.any_idle();
    (waits && slices.must_be_woken(index)).then(|| run_queues.tid(index))
}

impl<'a> ServerThread<'a> {
    fn run(mut self) {
        loop {
            self.drain();
            // Not before the drain: a wake-up is lost on a server that has not begun to drain.
            if self.shared.lifecycle.is_abandoned() {
                break;
            }
            if let Some(reactor) = self.shared.busy_reactor() {
                reactor.poll(self.shared, true);
            }
            if let Some(holder) = self.shared.provider.current(self.me.tid()) {
                self.sleep_behind(holder);
            } else if let Some((worker, from)) = self.pick() {
                self.dispatch(self.shared.arena.get(worker), from);
            } else if self.shared.lifecycle.is_stopping() && self.me.population() == 0 {
                break;
            } else if self.has_tasks() {
                self.starve();
            } else {
                self.idle();
            }
        }
        // `unregister` requires the state RUNNING.
        let _ = self
            .me
            .task()
            .transition(umcg_sys::state::RUNNABLE, umcg_sys::state::RUNNING);
    }

    /// Takes in what has happened so far: workers that blocked, unblocked, or came into the inbox.
    /// From its first line on, anything else that happens makes the next `wait` return at once.
    fn drain(&mut self) {
        let (me, shared) = (self.me, self.shared);
        me.task().begin_drain();
        me.task().set_next_tid(0);
        // The lists are taken in this order and processed in the other one (trace A2).
        let runnable = me.task().take(List::Runnable);
        let blocked = me.task().take(List::Blocked);
        // The state RUNNABLE comes before the look at the inbox; pairs with the fence in
        // `notify_inbox`. It also comes before the looks at the phase and the number of workers;
        // pairs with the fences in `Lifecycle::stop` and `lose_worker`.
        fence(SeqCst);

        let mut lists = me.lists();
        for task in blocked {
            // SAFETY: a worker of this runtime, whose arena outlives this loop.
            let worker = unsafe { Worker::of_task(task) };
            // The event is only information, and it may be old. One thing matters here: a worker
            // that blocked without switching to its spare must not keep the spare for as long as
            // it sleeps. If the event is so old that the worker belongs to another server by now,
            // its spare is that server's business. While this lock is held nobody can move the
            // worker to another server.
            if worker.server() == me.index() {
                worker
                    .next_tid_owner
                    .while_server_owns(|| self.take_back(worker, &mut lists.idle));
            }
        }
        let mut unblocked = Lifo::new();
        for task in runnable {
            // SAFETY: as above. The event also gives this server the ownership of the worker.
            let worker = unsafe { Worker::of_task(task) };
            self.take_back(worker, &mut lists.idle);
            unblocked.push(&shared.arena, worker.index());
        }
        lists.ready.append(&shared.arena, unblocked);
        // The inbox has the newest worker first. One stack for each kind restores the order of
        // arrival.
        let (mut resumed, mut yielded, mut idle) = (Lifo::new(), Lifo::new(), Lifo::new());
        let mut inbox = me.inbox().take();
        while let Some(index) = inbox.pop(&shared.arena) {
            match shared.arena.get(index).state() {
                WorkerState::Resumed => resumed.push(&shared.arena, index),
                WorkerState::Yielded => yielded.push(&shared.arena, index),
                state => {
                    debug_assert_eq!(
                        state,
                        WorkerState::Idle,
                        "in the inbox: {:?}",
                        shared.arena.get(index)
                    );
                    idle.push(&shared.arena, index);
                }
            }
        }
        shared.run_queues.servers[me.index()].count_resumed_out_of_inbox(resumed.len());
        lists.ready.append(&shared.arena, resumed);
        lists.yielded.append(&shared.arena, yielded);
        me.count_idle_out_of_inbox(idle.len());
        while let Some(index) = idle.pop(&shared.arena) {
            lists.idle.push(&shared.arena, index);
        }
        self.watch_surplus(&lists);
        me.store_lengths(&lists, &shared.run_queues);
    }

    /// Takes the spare back that is armed in `worker`, a worker of this server, if there is one.
    fn take_back(&self, worker: &Worker, idle: &mut Lifo) {
        if worker.task().next_tid() != 0 {
            if let Some(armed) = self.shared.disarm(worker) {
                idle.push(&self.shared.arena, armed.index());
            }
        }
    }

    /// Whether a worker of this server would find a task.
    pub(super) fn has_tasks(&self) -> bool {
        !self.shared.lifecycle.is_stopping()
            && self
                .shared
                .run_queues
                .has_task_for(self.me.index(), &self.shared.idle_servers)
    }

    /// How many workers wait to be picked by this server.
    fn waiting(&self) -> u32 {
        self.shared.run_queues.servers[self.me.index()].waiting()
    }

    /// Gives the slot to `worker`, and sleeps until there is something to do.
    fn dispatch(&mut self, worker: &'a Worker, from: PickFrom) {
        let shared = self.shared;
        // An idle worker is dispatched for one task, so that one does not count as more.
        let more = self.answer(usize::from(from == PickFrom::Idle));
        if more {
            self.arm(worker);
            // Whoever queued these tasks has told the servers; `answer` has passed a fence since.
            shared.provider.work_waiting(self.me.tid());
        }
        let tid = worker.task().tid();
        let now = now_ns();
        self.slice = Slice::begin(tid, now);
        self.holder = Some(worker);
        self.me.task().set_next_tid(tid);
        // Where the provider watches, it wakes this server if the tasks wait for long. To arm a
        // timer at each dispatch would cost every one.
        let outcome = self.sleep_in_slice(policy::slice_end(now), more && !shared.watched);
        // If the tid is still there, `wait` did not switch to the worker (an event came first, or
        // an error), and this server still owns it.
        if self.me.task().next_tid() != tid {
            return;
        }
        self.me.task().set_next_tid(0);
        let mut lists = self.me.lists();
        self.take_back(worker, &mut lists.idle);
        match (outcome, from) {
            // Its thread is no worker any more. It knows that, and accounts for itself.
            (Err(error), _) if error.is_gone() => {}
            (_, PickFrom::Ready) => lists.ready.push_front(&shared.arena, worker.index()),
            (_, PickFrom::Yielded) => lists.yielded.push_front(&shared.arena, worker.index()),
            (_, PickFrom::Idle) => lists.idle.push(&shared.arena, worker.index()),
        }
        self.me.store_lengths(&lists, &shared.run_queues);
    }

    /// Arms an idle worker in the one that is about to be dispatched: if that one blocks, the spare
    /// runs at once, without waking this server. From here on the spare belongs to that worker
    /// (trace A9).
    fn arm(&self, worker: &Worker) {
        let mut lists = self.me.lists();
        if let Some(spare) = lists.idle.pop(&self.shared.arena) {
            self.me.store_lengths(&lists, &self.shared.run_queues);
            drop(lists);
            worker.set_armed(self.shared.arena.get(spare));
        }
    }

    /// A worker holds the slot: the server's deadline passed, or a wake-up crossed a dispatch, or
    /// the worker unblocked while this server idled and took the slot by itself.
    fn sleep_behind(&mut self, holder: u32) {
        self.answer(0);
        let now = now_ns();
        if self.slice.holder() != holder {
            self.slice = Slice::begin(holder, now);
        }
        let tasks = self.has_tasks().then(|| self.progress_of(holder));
        let end = match self.slice.next_step(now, self.waiting(), tasks) {
            SliceStep::SleepUntil(end) => end,
            SliceStep::OfferOrPreempt if self.shared.wake_one() => self.slice.offered(now),
            SliceStep::OfferOrPreempt | SliceStep::Preempt => {
                let for_task = tasks.is_some()
                    && self.turns.task_is_next_after(self.waiting())
                    && self.may_preempt_for_task(now).is_ok();
                if for_task {
                    self.prefer_task();
                }
                self.preempt(holder);
                return;
            }
            SliceStep::PreemptForTask => match self.may_preempt_for_task(now) {
                Ok(()) => {
                    self.prefer_task();
                    self.preempt(holder);
                    return;
                }
                Err(next_look) => next_look,
            },
        };
        if self.surplus_end().is_some_and(|end| now >= end) {
            // Workers can only leave by way of a free slot.
            self.me.set_retirement_due(true);
        }
        let _ = self.sleep_in_slice(end, tasks.is_some());
    }

    /// The worker in the slot, whose tid is `holder`.
    fn holder(&mut self, holder: u32) -> Option<&'a Worker> {
        if self
            .holder
            .is_none_or(|worker| worker.task().tid() != holder)
        {
            // It took the slot by itself, or from another worker.
            self.holder = self.shared.worker_by_tid(holder);
        }
        self.holder
    }

    /// How far the worker in the slot has come with its tasks.
    fn progress_of(&mut self, holder: u32) -> Progress {
        self.holder(holder)
            .map_or_else(Progress::default, |worker| Progress {
                takes: worker.counts().takes(),
                task: worker.current_task(),
            })
    }

    /// The next preemption is for a queued task.
    fn prefer_task(&mut self) {
        self.turns.preempted_for_task();
        self.me.set_gave_way(true);
    }

    /// Whether this server gives its slot on for a queued task `now`. If not: when it looks again.
    ///
    /// The queued task needs a further thread, so those that compute without a slot are bounded.
    /// Where `preempt` stops the worker, those that compute are among the workers that wait.
    fn may_preempt_for_task(&mut self, now: u64) -> Result<(), u64> {
        let computing_wait = !self.shared.watched && self.waiting() as usize >= MAX_LEFTOVERS;
        if computing_wait
            || !self.could_get_worker()
            || self.leftovers.at_limit(&*self.shared.provider)
        {
            return Err(policy::slice_end(now));
        }
        let queued = self.shared.run_queues.len();
        self.shared.slices.give_way(now, queued)
    }

    /// Whether there would be a worker for a queued task if the slot were free. A preemption
    /// without one would win nothing, and look as if tasks waited for the worker limit.
    fn could_get_worker(&self) -> bool {
        self.me.idle_with_inbox() > 0
            || self.others().any(|other| other.idle_listed() > 0)
            || self.shared.spawner.limit.has_room()
    }

    /// Takes the slot from the worker in it. Harmless if the worker has left the slot meanwhile.
    fn preempt(&mut self, holder: u32) {
        let shared = self.shared;
        // Its spare is not meant to run now, because another worker waits.
        if let Some(worker) = self.holder(holder) {
            let mut lists = self.me.lists();
            if worker.server() == self.me.index() {
                worker
                    .next_tid_owner
                    .while_server_owns(|| self.take_back(worker, &mut lists.idle));
            }
            self.me.store_lengths(&lists, &shared.run_queues);
        }
        self.slice = Slice::default();
        self.leftovers.add(holder);
        // ESRCH: the worker ended meanwhile.
        let _ = shared.provider.preempt(holder);
        // After the verdict: the worker that sees this finds the verdict at its checkpoint.
        if let Some(worker) = self.holder(holder) {
            worker.set_preempted();
        }
    }

    /// Sleeps behind a worker whose slice ends at `slice_end`, and until then if `tasks` are known
    /// to be queued or somebody else may wait. Without a deadline if nothing can happen that this
    /// server is not woken for.
    fn sleep_in_slice(&self, slice_end: u64, tasks: bool) -> Result<(), Error> {
        let mut deadline = u64::MAX;
        let unlisted = self.me.unlisted(&self.shared.run_queues);
        let looks_again = policy::needs_slice_deadline(self.waiting(), unlisted, tasks);
        if looks_again {
            deadline = slice_end;
        }
        if let Some(end) = self.surplus_end() {
            if !self.me.is_retirement_due() {
                deadline = deadline.min(end);
            }
        }
        let slices = &self.shared.slices;
        slices.set_looks_again(self.me.index(), looks_again);
        let outcome = self.wait(if deadline == u64::MAX { 0 } else { deadline });
        if looks_again {
            // From here on another worker may take the slot while this server sleeps otherwise.
            slices.set_looks_again(self.me.index(), false);
        }
        outcome
    }

    /// There is nothing to run: sleeps until somebody wakes this server.
    fn idle(&mut self) {
        let (shared, me) = (self.shared, self.me.index());
        if self.me.gave_way() {
            self.me.set_gave_way(false);
        }
        shared.idle_servers.enter_idle(me, self.owed.take());
        // The last look; `enter_idle` ends with the fence that it needs.
        let queues = &shared.run_queues.servers[me];
        shared.leave_events_to_poller();
        if !self.has_tasks()
            && queues.returned.is_empty()
            && !self.others().any(|other| self.may_steal_waiting(other))
        {
            let _ = self.wait(self.surplus_end().unwrap_or(0));
        }
        self.owed = shared.idle_servers.wake_up(me);
    }

    /// Tasks are queued and there is no worker to run them: sleeps until there is one.
    fn starve(&mut self) {
        let (shared, me) = (self.shared, self.me.index());
        let claimed = self.owed.is_some();
        shared.idle_servers.enter_starved(me, self.owed.take());
        shared.leave_events_to_poller();
        if claimed {
            // Another server may have a worker for the tasks that this one was woken for.
            shared.wake_one();
        }
        // The last look: a worker may have become idle at another server meanwhile, or come back
        // from a managed call.
        let queues = &shared.run_queues.servers[me];
        if self.has_tasks()
            && queues.returned.is_empty()
            && !self.others().any(|other| other.idle_listed() > 0)
        {
            shared.spawner.request(self.me);
            let _ = self.wait(0);
        }
        self.owed = shared.idle_servers.wake_up(me);
    }

    /// The slot is about to be in use: answers the thread that woke this server, and wakes another
    /// server if more than `spoken_for` tasks are queued. True: they are.
    fn answer(&mut self, spoken_for: usize) -> bool {
        // The answer comes before the look at the queues, so that the look finds the task of a
        // pusher that relied on this server.
        self.shared.idle_servers.answer(self.owed.take());
        let run_queues = &self.shared.run_queues;
        if run_queues.has_more_for_others(self.me.index(), spoken_for) {
            self.shared.wake_one();
        }
        run_queues.len_exceeds(spoken_for)
    }

    fn wait(&self, deadline: u64) -> Result<(), Error> {
        let flags = if policy::may_take_over(self.waiting()) {
            WAIT_TAKE_OVER
        } else {
            0
        };
        let outcome = self.shared.provider.wait(deadline, flags);
        match outcome {
            Err(error) if !(error.is_timeout() || error.is_busy() || error.is_gone()) => {
                unreachable!("a server could not wait: {error}")
            }
            _ => outcome,
        }
    }
}
