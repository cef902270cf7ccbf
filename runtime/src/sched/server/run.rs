//! The loop of a server's thread: drain, pick, wait. Runs no code of the user's.
//!
//! The steps and their order are the mail's, as corrected by traces A2, A7, A9 and A13; this
//! directory's README, sections 2 to 5, says why each is where it is.

use std::sync::{
    Arc,
    atomic::{
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

use umcg_sys::{Error, List, Placement, Register, WAIT_TAKE_OVER};

use super::{Lists, Server};
use crate::panic::AbortIfPanic;
use crate::sched::{
    Shared,
    clock::now_ns,
    idle::OwedAnswer,
    worker::{Worker, seat},
    worker_list::Lifo,
};

/// While a worker waits behind the one in the slot, that one has this long (trace A13). Also how
/// late a worker that unblocked behind a running one may be noticed.
const SLICE_NS: u64 = 10_000_000;

/// A worker in the slot hands over by itself soon after somebody begins to wait, if it runs
/// short tasks. So long it gets for that before it is preempted, however long it has run.
const GRACE_NS: u64 = 1_000_000;

/// After so many picks of yielders in a row, with tasks queued and none begun, the yielders may
/// be waiting for one of those tasks: a worker is made for it.
const YIELDS_WITHOUT_PROGRESS: u32 = 64;

/// Which list a pick came from, for putting it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PickedFrom {
    Ready,
    Yielded,
    Idle,
}

/// The turn of the worker in the slot, as far as the server knows.
#[derive(Debug, Default)]
struct Slice {
    /// Its tid; 0: none seen.
    holder: u32,
    /// When it was dispatched, or first seen.
    since: u64,
    /// Somebody has been seen to wait behind it; it is not preempted before this time.
    not_before: Option<u64>,
    /// An idle server was woken to take the waiting workers over.
    offered: bool,
}

/// More workers are idle than are to stay, the one that is idle longest at most since then.
#[derive(Debug)]
struct IdleWindow {
    since: u64,
}

struct ServerThread<'a> {
    shared: &'a Shared,
    me: &'a Server,
    /// This server was claimed and has not yet answered.
    owed: Option<OwedAnswer>,
    slice: Slice,
    window: Option<IdleWindow>,
    /// A task's turn, when yielders and tasks both wait.
    task_before_yielded: bool,
    /// Theirs, when an unblocked or preempted worker ran last. Without it a spinner that is
    /// preempted and ready again at once (device) would keep them out for ever.
    yielded_before_ready: bool,
    yields: u32,
    takes_seen: u64,
}

/// The thread of server `index`. `registered` is told how that went, before anything else.
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
            Arc::new(move || {
                if run_queues.note_overdue_resumed(index) {
                    return Some(run_queues.tid(index));
                }
                if !run_queues.open_overdue_lifo(index) {
                    return None;
                }
                // The slot is open, then who sleeps: see `IdleServers::claim`.
                fence(SeqCst);
                let idle = idle_servers
                    .claim(|| run_queues.any_queued() || run_queues.has_open_lifo(index))?;
                Some(run_queues.tid(idle))
            })
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
            window: None,
            task_before_yielded: true,
            yielded_before_ready: false,
            yields: 0,
            takes_seen: 0,
        }
        .run();
        me.save_counters(shared.provider.counters(me.tid()));
        if let Err(error) = shared.provider.unregister(me.task_ptr()) {
            unreachable!("a server could not unregister: {error}");
        }
    }
    guard.disarm();
    shared.lifecycle.remove_thread();
}

impl ServerThread<'_> {
    fn run(mut self) {
        loop {
            self.drain();
            // Not before it: see `Lifecycle`.
            if self.shared.lifecycle.is_abandoned() {
                break;
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
        // `unregister` wants RUNNING.
        let _ = self
            .me
            .task()
            .transition(umcg_sys::state::RUNNABLE, umcg_sys::state::RUNNING);
    }

    /// Says that the next `wait` is to return at once if anything happens from here on, and
    /// takes in what has happened so far.
    fn drain(&mut self) {
        let (me, shared) = (self.me, self.shared);
        me.task().begin_drain();
        me.task().set_next_tid(0);
        // Taken in this order, processed in the other (trace A2).
        let runnable = me.task().take(List::Runnable);
        let blocked = me.task().take(List::Blocked);
        // RUNNABLE, then the inbox; pairs with the fence in `look_at_inbox`. Then the phase and the
        // number of workers, too; pairs with those in `Lifecycle::stop` and `lose_worker`.
        fence(SeqCst);

        let mut lists = me.lists();
        for task in blocked {
            // SAFETY: a worker of this runtime, whose arena outlives this loop.
            let worker = unsafe { Worker::of_task(task) };
            // Information only, and it may be old. What matters here: a worker that blocked
            // without switching to its armed one must not keep it for as long as it sleeps. If
            // the event is so old that the worker has moved on, its arming is another server's
            // business; under this lock nobody can move it away.
            if worker.server() == me.index() {
                worker
                    .choice
                    .while_armed(|| self.take_back(worker, &mut lists.idle));
            }
        }
        let mut unblocked = Lifo::new();
        for task in runnable {
            // SAFETY: as above; the event is the token of ownership.
            let worker = unsafe { Worker::of_task(task) };
            self.take_back(worker, &mut lists.idle);
            unblocked.push(&shared.arena, worker.index());
        }
        lists.ready.append(&shared.arena, unblocked);
        let (mut resumed, mut yielded, mut idle) = (Lifo::new(), Lifo::new(), Lifo::new());
        let mut inbox = me.inbox().take();
        while let Some(index) = inbox.pop(&shared.arena) {
            match shared.arena.get(index).seat() {
                seat::RESUMED => resumed.push(&shared.arena, index),
                seat::YIELDED => yielded.push(&shared.arena, index),
                seat => {
                    debug_assert_eq!(
                        seat,
                        seat::IDLE,
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
        self.watch_idle(&lists);
        me.store_lengths(&lists, &shared.run_queues);
    }

    /// Takes the worker back that is armed in `worker`, one of this server's, if one is.
    fn take_back(&self, worker: &Worker, idle: &mut Lifo) {
        if worker.task().next_tid() != 0 {
            if let Some(armed) = self.shared.disarm(worker) {
                idle.push(&self.shared.arena, armed.index());
            }
        }
    }

    /// Whether a worker of this server would find a task.
    fn has_tasks(&self) -> bool {
        !self.shared.lifecycle.is_stopping()
            && self
                .shared
                .run_queues
                .has_task_for(self.me.index(), &self.shared.idle_servers)
    }

    /// Who runs next; the slot is the server's. The caller owns the pick.
    fn pick(&mut self) -> Option<(u32, PickedFrom)> {
        let stopping = self.shared.lifecycle.is_stopping();
        let tasks = self.has_tasks();
        {
            let mut lists = self.me.lists();
            self.retire(&mut lists);
            let pick = self.pick_own(&mut lists, tasks, stopping);
            self.watch_idle(&lists);
            self.me.store_lengths(&lists, &self.shared.run_queues);
            if pick.is_some() {
                return pick;
            }
        }
        if stopping {
            return None;
        }
        if let Some(worker) = self.steal_waiting() {
            return Some((worker, PickedFrom::Ready));
        }
        if tasks {
            return self.steal_idle().map(|worker| (worker, PickedFrom::Idle));
        }
        None
    }

    fn pick_own(
        &mut self,
        lists: &mut Lists,
        tasks: bool,
        stopping: bool,
    ) -> Option<(u32, PickedFrom)> {
        let links = &self.shared.arena;
        let waiting = &self.shared.run_queues.servers[self.me.index()];
        if tasks && waiting.is_task_due() {
            // Workers that wake each other are always ready: they would keep the tasks out.
            if let Some(worker) = lists.idle.pop(links) {
                return Some((worker, PickedFrom::Idle));
            }
            self.shared.spawner.request(self.me);
            waiting.reset_handoffs();
        }
        if !self.yielded_before_ready || lists.yielded.len() == 0 {
            if let Some(worker) = lists.ready.pop(links) {
                self.yielded_before_ready = true;
                return Some((worker, PickedFrom::Ready));
            }
        }
        let fresh = tasks && (self.task_before_yielded || lists.yielded.len() == 0);
        if fresh || (stopping && lists.yielded.len() == 0) {
            if let Some(worker) = lists.idle.pop(links) {
                self.task_before_yielded = false;
                return Some((worker, PickedFrom::Idle));
            }
        }
        let worker = lists.yielded.pop(links)?;
        self.task_before_yielded = true;
        self.yielded_before_ready = false;
        if tasks && lists.idle.len() == 0 {
            self.watch_yields();
        }
        Some((worker, PickedFrom::Yielded))
    }

    /// Yielders go round and round while tasks wait and there is no worker to run them.
    fn watch_yields(&mut self) {
        let takes = self.me.counters.takes();
        if takes != self.takes_seen {
            self.takes_seen = takes;
            self.yields = 0;
        }
        self.yields += 1;
        if self.yields > YIELDS_WITHOUT_PROGRESS {
            self.yields = 0;
            self.shared.spawner.request(self.me);
        }
    }

    /// A worker that waits behind the running one of another server.
    fn steal_waiting(&self) -> Option<u32> {
        self.others()
            .filter(|other| self.may_steal_waiting(other))
            .find_map(|other| {
                let mut lists = other.lists();
                let links = &self.shared.arena;
                let worker = lists
                    .ready
                    .pop(links)
                    .or_else(|| lists.yielded.pop(links))?;
                other.store_lengths(&lists, &self.shared.run_queues);
                self.adopt(other, worker);
                self.me.counters.count_worker_steal();
                Some(worker)
            })
    }

    /// Not the one that a server is about to pick itself.
    fn may_steal_waiting(&self, other: &Server) -> bool {
        let waiting = self.shared.run_queues.servers[other.index()]
            .workers
            .load(Relaxed);
        waiting > 1 || waiting == 1 && self.shared.provider.current(other.tid()).is_some()
    }

    /// An idle worker of another server, rather than a new one.
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

    fn others(&self) -> impl Iterator<Item = &Server> {
        let count = self.shared.servers.len();
        let own = self.me.index();
        (1..count).map(move |step| &self.shared.servers[(own + step) % count])
    }

    /// Makes a worker that was taken from `other`, and that we own, one of ours. Under the lock
    /// of `other`'s lists.
    fn adopt(&self, other: &Server, worker: u32) {
        self.shared.arena.get(worker).set_server(self.me);
        self.me.gain_worker();
        other.lose_worker();
    }

    /// Gives the slot to `worker`, and sleeps until there is something to do.
    fn dispatch(&mut self, worker: &Worker, from: PickedFrom) {
        let shared = self.shared;
        // The task that an idle worker is dispatched for does not count as more.
        let more = self.answer(usize::from(from == PickedFrom::Idle));
        if more {
            self.arm(worker);
            // The tasks were queued by others, who told; `answer` has passed a fence.
            shared.provider.work_waiting(self.me.tid());
        }
        let tid = worker.task().tid();
        let now = now_ns();
        self.slice = Slice {
            holder: tid,
            since: now,
            ..Slice::default()
        };
        self.me.task().set_next_tid(tid);
        let outcome = self.wait(self.deadline(now + SLICE_NS));
        // Still there: not switched to, so still ours (an event came first, or an error).
        if self.me.task().next_tid() != tid {
            return;
        }
        self.me.task().set_next_tid(0);
        let mut lists = self.me.lists();
        self.take_back(worker, &mut lists.idle);
        match (outcome, from) {
            // Its thread is no worker any more. It knows, and does its own accounts.
            (Err(error), _) if error.is_gone() => {}
            (_, PickedFrom::Ready) => lists.ready.push_front(&shared.arena, worker.index()),
            (_, PickedFrom::Yielded) => lists.yielded.push_front(&shared.arena, worker.index()),
            (_, PickedFrom::Idle) => lists.idle.push(&shared.arena, worker.index()),
        }
        self.me.store_lengths(&lists, &shared.run_queues);
    }

    /// Arms an idle worker in the one that is about to be dispatched: if that one blocks, the
    /// other runs without a detour over this thread. It belongs to that one from here on
    /// (trace A9).
    fn arm(&self, worker: &Worker) {
        let mut lists = self.me.lists();
        if let Some(spare) = lists.idle.pop(&self.shared.arena) {
            self.me.store_lengths(&lists, &self.shared.run_queues);
            drop(lists);
            worker.set_armed(self.shared.arena.get(spare));
        }
    }

    /// A worker holds the slot: after a deadline, a wake-up that crossed a dispatch, or because
    /// it unblocked while this server idled and took the slot itself.
    fn sleep_behind(&mut self, holder: u32) {
        let shared = self.shared;
        self.answer(0);
        let now = now_ns();
        if self.slice.holder != holder {
            self.slice = Slice {
                holder,
                since: now,
                ..Slice::default()
            };
        }
        let waiting = shared.run_queues.servers[self.me.index()]
            .workers
            .load(Relaxed)
            > 0;
        let mut end = now + SLICE_NS;
        if waiting {
            end = *self
                .slice
                .not_before
                .get_or_insert((self.slice.since + SLICE_NS).max(now + GRACE_NS));
            if now >= end {
                if self.slice.offered || !shared.wake_one() {
                    self.preempt(holder);
                    return;
                }
                // An idle CPU is the better place for whoever waits here.
                self.slice.offered = true;
                end = now + SLICE_NS;
                self.slice.not_before = Some(end);
            }
        } else {
            self.slice.not_before = None;
            self.slice.offered = false;
        }
        if self
            .window
            .as_ref()
            .is_some_and(|window| now >= self.window_end(window))
        {
            // Its workers can only be let go from a slot that is free.
            self.me.set_retirement_due(true);
        }
        let _ = self.wait(self.deadline(end));
    }

    /// Takes the worker out of the slot. Harmless if it has left it meanwhile.
    fn preempt(&mut self, holder: u32) {
        let shared = self.shared;
        // What is armed in it is not meant to run now: somebody else waits.
        if let Some(worker) = shared.worker_by_tid(holder) {
            let mut lists = self.me.lists();
            if worker.server() == self.me.index() {
                worker
                    .choice
                    .while_armed(|| self.take_back(worker, &mut lists.idle));
            }
            self.me.store_lengths(&lists, &shared.run_queues);
        }
        self.slice = Slice::default();
        // ESRCH: it ended meanwhile.
        let _ = shared.provider.preempt(holder);
    }

    /// Until when to sleep behind a worker: 0 = for good, if nothing can happen that this
    /// thread is not woken for.
    fn deadline(&self, slice_end: u64) -> u64 {
        let mut deadline = u64::MAX;
        // Somebody waits, or may unblock behind the worker in the slot (its server is not woken
        // then), or be switched to by a block that this server is not told of.
        if self.shared.run_queues.servers[self.me.index()]
            .workers
            .load(Relaxed)
            > 0
            || self.me.unlisted(&self.shared.run_queues) > 1
        {
            deadline = slice_end;
        }
        if let Some(window) = &self.window {
            if !self.me.is_retirement_due() {
                deadline = deadline.min(self.window_end(window));
            }
        }
        if deadline == u64::MAX { 0 } else { deadline }
    }

    /// Nothing to run: sleeps until told of something.
    fn idle(&mut self) {
        let (shared, me) = (self.shared, self.me.index());
        shared.idle_servers.enter_idle(me, self.owed.take());
        // The last look; `idle` ends with the fence that it needs.
        if !self.has_tasks() && !self.others().any(|other| self.may_steal_waiting(other)) {
            let deadline = self.window.as_ref().map_or(0, |w| self.window_end(w));
            let _ = self.wait(deadline);
        }
        self.owed = shared.idle_servers.wake_up(me);
    }

    /// Tasks are queued and there is no worker to run them: sleeps until there is one.
    fn starve(&mut self) {
        let (shared, me) = (self.shared, self.me.index());
        let woken = self.owed.is_some();
        shared.idle_servers.enter_starved(me, self.owed.take());
        if woken {
            shared.wake_one();
        }
        // The last look: a worker that came to rest elsewhere meanwhile.
        if self.has_tasks() && !self.others().any(|other| other.idle_listed() > 0) {
            shared.spawner.request(self.me);
            let _ = self.wait(0);
        }
        self.owed = shared.idle_servers.wake_up(me);
    }

    /// The slot is about to be in use: answers whoever woke this server, and wakes another one
    /// if more than `spoken_for` tasks are queued. True: they are.
    fn answer(&mut self, spoken_for: usize) -> bool {
        // The answer first, then the look: a pusher that trusted us is seen by it.
        self.shared.idle_servers.answer(self.owed.take());
        let run_queues = &self.shared.run_queues;
        if run_queues.has_more_for_others(self.me.index(), spoken_for) {
            self.shared.wake_one();
        }
        run_queues.len_exceeds(spoken_for)
    }

    fn wait(&self, deadline: u64) -> Result<(), Error> {
        // Nobody waits who has a turn before those that unblock: they may follow one another.
        let waiting = self.shared.run_queues.servers[self.me.index()]
            .workers
            .load(Relaxed);
        let flags = if waiting == 0 { WAIT_TAKE_OVER } else { 0 };
        let outcome = self.shared.provider.wait(deadline, flags);
        match outcome {
            Err(error) if !(error.is_timeout() || error.is_busy() || error.is_gone()) => {
                unreachable!("a server could not wait: {error}")
            }
            _ => outcome,
        }
    }

    fn window_end(&self, window: &IdleWindow) -> u64 {
        window
            .since
            .saturating_add(self.shared.config.keep_alive_ns())
    }

    /// Knows when the first of the idle workers is to leave, while there are more than are to
    /// stay.
    fn watch_idle(&mut self, lists: &Lists) {
        if lists.idle.len() <= self.shared.config.min_idle {
            self.window = None;
            // Others took them: nobody is to leave the slot for that.
            if self.me.is_retirement_due() {
                self.me.set_retirement_due(false);
            }
        } else if self.window.is_none() {
            self.window = Some(IdleWindow { since: now_ns() });
        }
    }

    /// Lets the workers go that have been idle for `keep_alive`: marks them and has them picked,
    /// one after the other. One walk over the idle ones each time that the oldest may be due.
    fn retire(&mut self, lists: &mut Lists) {
        let Some(window) = &self.window else { return };
        let now = now_ns();
        if now < self.window_end(window) {
            self.me.set_retirement_due(false);
            return;
        }
        let links = &self.shared.arena;
        let due = now - self.shared.config.keep_alive_ns();
        let mut surplus = lists.idle.len().saturating_sub(self.shared.config.min_idle);
        let mut oldest = now;
        let mut stay = Lifo::new();
        while let Some(index) = lists.idle.pop(links) {
            let worker = self.shared.arena.get(index);
            if surplus > 0 && worker.idle_since() <= due {
                surplus -= 1;
                worker.retire();
                lists.ready.push(links, index);
            } else {
                oldest = oldest.min(worker.idle_since());
                stay.push(links, index);
            }
        }
        while let Some(index) = stay.pop(links) {
            lists.idle.push(links, index);
        }
        self.window = (lists.idle.len() > self.shared.config.min_idle)
            .then_some(IdleWindow { since: oldest });
        self.me.set_retirement_due(false);
    }
}
