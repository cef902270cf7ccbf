//! Every decision that a scheduling policy takes, as functions of plain data.
//!
//! The policy decides; the rest of the scheduler carries the decision out. No function here
//! touches a queue, a list or a thread, reads a clock, allocates or calls user code. ([`take`] only
//! says in which order its caller's functions are tried.) What a decision has to remember from one
//! call to the next is in a small struct that its caller keeps. So each decision is tested by a
//! table, in `policy/tests.rs`.
//!
//! - Which worker gets a free slot: [`PickTurns`], [`io_is_next`], [`YieldRounds`], [`steal_order`]
//!   and [`may_steal_waiting`], carried out by `server/pick.rs`.
//! - Which task a worker runs next: [`take`], with [`injector_is_due`], [`lifo_is_due`],
//!   [`lifo_is_open`] and [`injector_share`], carried out by `run_queue/mod.rs`.
//! - Into which queue a task goes: [`place_task`], carried out by `enqueue` in `mod.rs`.
//! - When a worker gives its slot up between two tasks: [`turn_is_over`], carried out by
//!   `run_tasks` in `worker/run.rs`.
//! - Who gets the slot of a worker that is about to sleep in a managed call: [`block_successor`],
//!   carried out by `worker/managed.rs`.
//! - To whom a worker that gives its slot up hands it: [`successor`], carried out by
//!   `worker/park.rs`.
//! - When a queued task comes before workers that hand the slot off to each other:
//!   [`task_is_due`], asked by `worker/park.rs` and `server/pick.rs`.
//! - When a server takes the slot from its worker: [`Slice`], [`next_to_give_way`],
//!   [`MAX_LEFTOVERS`], [`needs_slice_deadline`] and [`may_take_over`], carried out by
//!   `server/run.rs` and `server/slices.rs`.
//!
//! # Another policy
//!
//! A later `Policy` trait would replace this file. Such a policy gives each queued item, a task
//! or a worker in the middle of one, a *rank*: an integer, smaller first. The thread that queues
//! the item asks for its rank, and servers only compare ranks. The four functions of the trait
//! would replace these:
//!
//! | function | replaces |
//! |---|---|
//! | `rank(item)` | [`PickTurns`], [`io_is_next`], [`take`], [`place_task`], the counts of fairness |
//! | `ran(item, cpu_time)` | what [`PickTurns`] and `TakeHistory` remember |
//! | `slice(item)` | the time slice, and the length of a turn |
//! | `preempts(waiting, running)` | [`Slice::next_step`], [`turn_is_over`], [`successor`] |
//!
//! Whatever replaces this file owes the scheduler three things:
//!
//! 1. `RunQueues::has_task_for` sees a task exactly if `RunQueues::take` would take it. A server
//!    relies on that for its last look before it sleeps (the README beside this file, section 3).
//! 2. A worker that is picked has been taken off its list under that list's lock, so that it has
//!    one owner (section 2).
//! 3. A decision of a server neither allocates nor runs user code, nor waits for a lock that a
//!    worker can hold (section 1).

use crate::task::Origin;

// ---------------------------------------------------------------------------------------------
// Which worker gets a free slot.

/// The list of its server from which a worker is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PickFrom {
    /// Unblocked, preempted, resumed and new workers, and those that are to retire.
    Ready,
    /// Workers that yielded in the middle of a task.
    Yielded,
    /// Workers without a task: to run one that is queued, or to leave when the runtime stops.
    Idle,
}

/// What a server knows when its slot is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct PickView {
    /// Its ready list has a worker.
    pub(super) ready: bool,
    /// Its list of yielded workers has one.
    pub(super) yielded: bool,
    /// Its idle list has a worker.
    pub(super) idle: bool,
    /// A worker of this server would find a queued task.
    pub(super) tasks: bool,
    /// [`task_is_due`] says so, and `tasks`.
    pub(super) task_is_due: bool,
    /// The runtime is stopping, so idle workers are dispatched to leave.
    pub(super) stopping: bool,
}

/// This many workers in the middle of a task are enough for one server. Further tasks begin late
/// then, if these workers do not block. Not measured: a bound on threads that a service with a few
/// hundred busy connections does not reach.
const CROWD: u32 = 512;

/// Whose turn it is at a server. Ready workers come first, in order of arrival; yielded workers
/// and queued tasks alternate.
#[derive(Debug)]
pub(super) struct PickTurns {
    /// When both wait, a queued task comes before a yielded worker.
    task_before_yielded: bool,
    /// When both wait, a yielded worker comes before a ready one: a ready one ran last. Without
    /// this, a worker that spins, is preempted and is ready again at once (device provider) would
    /// keep the yielded workers out forever.
    yielded_before_ready: bool,
    /// The slot was taken from a worker for the sake of a queued task.
    task_before_all: bool,
    /// How often the slot has been taken from a worker for one that waits while tasks were queued,
    /// since the last such task had its turn.
    preemptions: u32,
}

impl PickTurns {
    pub(super) const fn new() -> Self {
        Self {
            task_before_yielded: true,
            yielded_before_ready: false,
            task_before_all: false,
            preemptions: 0,
        }
    }

    /// The server is about to preempt its worker because `waiting` others wait, while tasks are
    /// queued. Whether the slot goes to a task this time. Tasks and workers take turns; among a
    /// [`CROWD`] of workers the tasks have one turn in each round, because each task that begins
    /// brings in a further thread.
    pub(super) const fn task_is_next_after(&mut self, waiting: u32) -> bool {
        let next = self.preemptions >= if waiting < CROWD { 1 } else { waiting };
        if !next {
            self.preemptions += 1;
        }
        next
    }

    /// The server preempts its worker for a queued task, which comes next. On the device provider
    /// the preempted worker waits to be picked, and would come first otherwise.
    pub(super) const fn preempted_for_task(&mut self) {
        self.task_before_all = true;
        self.preemptions = 0;
    }

    /// A worker that was made is about to run for the first time, and takes a task.
    pub(super) const fn worker_has_come(&mut self) {
        self.task_before_all = false;
    }

    /// Whether a task is next although workers wait, and no worker is idle to run it, so that one
    /// has to be made. That one queues behind those that wait.
    pub(super) const fn task_needs_worker(&self, view: &PickView) -> bool {
        view.tasks && !view.idle && (view.task_is_due || self.task_before_all)
    }

    /// From which list the next worker comes. The list that is named has one. `None`: the server
    /// has no worker that it should run.
    pub(super) fn next_worker(&mut self, view: &PickView) -> Option<PickFrom> {
        // Workers that wake each other are always ready: they would keep the tasks out.
        self.task_before_all &= view.tasks;
        if (view.task_is_due || self.task_before_all) && view.idle {
            self.task_before_all = false;
            return Some(PickFrom::Idle);
        }
        if view.ready && !(view.yielded && self.yielded_before_ready) {
            self.yielded_before_ready = true;
            return Some(PickFrom::Ready);
        }
        let task_begins = view.tasks && (self.task_before_yielded || !view.yielded);
        let worker_leaves = view.stopping && !view.yielded;
        if view.idle && (task_begins || worker_leaves) {
            self.task_before_yielded = false;
            return Some(PickFrom::Idle);
        }
        if view.yielded {
            self.task_before_yielded = true;
            self.yielded_before_ready = false;
            return Some(PickFrom::Yielded);
        }
        None
    }
}

/// Whose turn it is among the ready workers of a server: those that were woken by another thread,
/// unblocked or preempted, or those that came back from I/O in a managed call. The former come
/// first: what they were woken for is often a lock that others wait for, too.
/// Whether the next one is one that came back from I/O. `woken`, `io`: whether there are workers of
/// either kind. `in_a_row`: how many of the former have been picked in a row while others had come
/// back from I/O; the caller keeps it.
#[inline]
pub(super) const fn io_is_next(in_a_row: &mut u32, woken: bool, io: bool) -> bool {
    if woken && io && *in_a_row < MAX_WOKEN_IN_A_ROW {
        *in_a_row += 1;
        return false;
    }
    *in_a_row = 0;
    io
}

/// As many as for [`task_is_due`]; see [`io_is_next`].
const MAX_WOKEN_IN_A_ROW: u32 = 8;

/// How often workers that yield have been picked in a row while tasks were queued, no task began
/// and no idle worker was left to begin one.
#[derive(Debug, Default)]
pub(super) struct YieldRounds {
    rounds: u32,
    /// How many tasks had begun in this slot at the last call.
    takes_seen: u64,
}

/// After this many picks of yielders without progress, the yielders may be waiting for one of the
/// queued tasks, and a worker is made for it.
const YIELDS_WITHOUT_PROGRESS: u32 = 64;

impl YieldRounds {
    /// A yielder was picked; `takes` is how many tasks have begun in this slot. True: the tasks
    /// need a worker of their own.
    pub(super) fn tasks_need_worker(&mut self, takes: u64) -> bool {
        if takes != self.takes_seen {
            self.takes_seen = takes;
            self.rounds = 0;
        }
        self.rounds += 1;
        let stuck = self.rounds > YIELDS_WITHOUT_PROGRESS;
        if stuck {
            self.rounds = 0;
        }
        stuck
    }
}

/// What a server takes from the other servers when it has no worker of its own to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steal {
    /// A worker that waits to be picked there: it is in the middle of a task.
    Waiting,
    /// An idle worker, to run a queued task: cheaper than a new thread.
    Idle,
}

/// What a server tries to take from the others, in this order. `tasks`: as in [`PickView`].
///
/// A server that stops takes nothing: the others let their own workers leave.
pub(super) const fn steal_order(tasks: bool, stopping: bool) -> &'static [Steal] {
    match (stopping, tasks) {
        (true, _) => &[],
        (false, true) => &[Steal::Waiting, Steal::Idle],
        (false, false) => &[Steal::Waiting],
    }
}

/// Whether a server may steal from another one, at which `waiting` workers wait to be picked.
/// `slot_in_use`: whether a worker runs there. The one that the other server is about to pick
/// itself is left to it.
pub(super) fn may_steal_waiting(waiting: u32, slot_in_use: impl FnOnce() -> bool) -> bool {
    waiting > 1 || waiting == 1 && slot_in_use()
}

// ---------------------------------------------------------------------------------------------
// Which task a worker runs next.

/// The places where a worker finds a task. Each function takes one, if there is one.
///
/// A trait, so that the order below is compiled into the caller: a table of places, walked at each
/// take, cost 40 instructions a task.
pub(super) trait Places {
    type Task;

    /// From the injector, in its turn: [`injector_share`] more tasks move to the server's run
    /// queue.
    fn injector_in_turn(&mut self) -> Option<Self::Task>;

    /// From the LIFO slot, in its turn.
    fn lifo_in_turn(&mut self) -> Option<Self::Task>;

    /// From the server's run queue.
    fn queue(&mut self) -> Option<Self::Task>;

    /// From the LIFO slot, because nothing else is queued at this server.
    fn lifo(&mut self) -> Option<Self::Task>;

    /// From the injector, because nothing is queued at this server. A share of its tasks comes
    /// along, up to [`BATCH`].
    fn injector(&mut self) -> Option<Self::Task>;

    /// From another server: from its run queue, half of which comes along, up to [`BATCH`]; or
    /// from its LIFO slot, if [`lifo_is_open`].
    fn others(&mut self) -> Option<Self::Task>;
}

/// The task that a worker runs next.
#[inline]
pub(super) fn take<P: Places>(
    places: &mut P,
    injector_is_due: bool,
    lifo_is_due: bool,
) -> Option<P::Task> {
    if injector_is_due {
        if let Some(task) = places.injector_in_turn() {
            return Some(task);
        }
    }
    if lifo_is_due {
        if let Some(task) = places.lifo_in_turn() {
            return Some(task);
        }
    }
    places
        .queue()
        .or_else(|| places.lifo())
        .or_else(|| places.injector())
        .or_else(|| places.others())
}

/// Every so many takes the injector comes first, so that a server whose own run queue never runs
/// empty does not starve the threads outside. A prime, as in Go and tokio, so that it does not
/// fall into step with a periodic workload.
const INJECTOR_INTERVAL: u32 = 61;

/// The injector comes first, too, when a server has not served it for this long: 61 takes of
/// tasks that compute for 100 ms each would be 6 s.
const INJECTOR_PATIENCE_NS: u64 = 1_000_000;

/// Whether the injector, which has a task, comes before the server's own tasks. `takes`: how many
/// tasks the worker has looked for; `waited_ns`: how long ago a worker of this server last gave
/// the injector its turn.
#[inline]
pub(super) const fn injector_is_due(takes: u32, waited_ns: u64) -> bool {
    takes % INJECTOR_INTERVAL == 0 || waited_ns >= INJECTOR_PATIENCE_NS
}

/// In its turn, at most this many tasks of the injector move to the server's run queue. One at a
/// time would let a few tasks that keep yielding hold up the outside for 61 of their turns each.
const INJECTOR_BATCH: usize = 128;

/// How many of the `len` tasks in the injector move to the run queue of one of `servers` servers
/// in the injector's turn: its share of them, up to a limit.
#[inline]
pub(super) const fn injector_share(len: usize, servers: usize) -> usize {
    let share = len / servers;
    if share < INJECTOR_BATCH {
        share
    } else {
        INJECTOR_BATCH
    }
}

/// A worker that fetches a task from the injector or from another server brings at most this many
/// others along, or a share of those that are there. Bringing none would cost a transfer of the
/// queue's cache lines from another CPU for each task (tokio and Go steal half).
pub(super) const BATCH: usize = 32;

/// The LIFO slot is served at most this many times in a row (tokio's number): two tasks that wake
/// each other must not starve the run queue.
const MAX_LIFO_IN_A_ROW: u32 = 3;

/// Whether the LIFO slot comes before the run queue. `in_a_row`: how often it has been served in
/// a row by this worker.
#[inline]
pub(super) const fn lifo_is_due(in_a_row: u32) -> bool {
    in_a_row < MAX_LIFO_IN_A_ROW
}

/// Whether a worker may take the task in the LIFO slot of another server.
///
/// The slot is left to its own server while that server is awake or has a worker in its slot: that
/// worker wants the task next, and stealing it cost tokio's users more than it gained (tokio#8065).
/// A server that sleeps without running anything (not `owner_is_awake`) does not come for the task,
/// and one whose worker goes on computing (`overdue`) comes too late.
#[inline]
pub(super) const fn lifo_is_open(owner_is_awake: bool, overdue: bool) -> bool {
    !owner_is_awake || overdue
}

// ---------------------------------------------------------------------------------------------
// Into which queue a task goes.

/// Where a worker puts a task, at its own server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceTask {
    /// Into the LIFO slot. A task that was there moves to the run queue, and then other servers
    /// are told of that one. Otherwise the task is left to this server.
    LifoSlot,
    /// Into the run queue.
    Queue {
        /// The task is left to this server: no other one is told of it.
        left_to_own: bool,
    },
}

/// Where a worker puts a task that it spawns, wakes or has polled. `watched`: the provider notices
/// work that waits behind a worker which goes on computing. `nothing_queued`: whether the LIFO slot
/// and the run queue of the worker's server are empty.
///
/// A task that is woken goes into the LIFO slot: its data is in the cache, and its waker is often
/// about to wait for its answer. The first task that a worker spawns is treated in the same way:
/// mostly the worker waits for it and then runs it here, and waking another CPU for it costs this
/// one 15 us. The second one is for another CPU. This holds only where the provider watches:
/// nobody else would see that the spawner goes on computing. A *fork*, one half of a `join`, is
/// always for another CPU, because its spawner computes meanwhile. A lone task that yields is left
/// to this server, because the worker that polled it comes back for it at once.
#[inline]
pub(super) fn place_task(
    origin: Origin,
    watched: bool,
    nothing_queued: impl Fn() -> bool,
) -> PlaceTask {
    match origin {
        Origin::Wake => PlaceTask::LifoSlot,
        Origin::Spawn if watched && nothing_queued() => PlaceTask::LifoSlot,
        Origin::Spawn | Origin::Fork => PlaceTask::Queue { left_to_own: false },
        Origin::Yield => PlaceTask::Queue {
            left_to_own: nothing_queued(),
        },
    }
}

// ---------------------------------------------------------------------------------------------
// When a worker gives way.

/// A turn ends after this many tasks ...
const TASKS_A_TURN: u32 = 8;
/// ... or after this long.
const TURN_NS: u64 = 100_000;

/// Whether a worker gives its slot up between two tasks: somebody has been waiting for the slot
/// while it ran `ran` tasks, for `waited_ns`. A turn of one task would cost a context switch for
/// each task (trace B1).
#[inline]
pub(super) fn turn_is_over(ran: u32, waited_ns: impl FnOnce() -> u64) -> bool {
    ran >= TASKS_A_TURN || waited_ns() >= TURN_NS
}

/// To whom a worker that gives its slot up hands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Successor {
    /// The server, which picks.
    Server,
    /// A resumed worker: it was unparked, and is in the middle of a task.
    Resumed,
    /// A worker without a task, for a task that is queued: the spare that is armed in the worker
    /// which gives the slot up, or an idle one.
    Idle,
}

/// To whom a worker that gives its slot up hands it. `has_resumed`: a resumed worker waits at its
/// server. `has_task`: a worker of its server would find a queued task; false if the worker has
/// just looked for one and becomes idle. `task_is_due`: what [`task_is_due`] says.
/// `server_must_pick`: whether a worker waits that only the server can pick; asked last, since it
/// reads words that other threads write.
#[inline]
pub(super) fn successor(
    has_resumed: bool,
    has_task: bool,
    task_is_due: impl FnOnce() -> bool,
    server_must_pick: impl FnOnce() -> bool,
) -> Successor {
    let choice = match (has_resumed, has_task) {
        (false, false) => return Successor::Server,
        (false, true) => Successor::Idle,
        (true, true) if task_is_due() => Successor::Idle,
        (true, _) => Successor::Resumed,
    };
    if server_must_pick() {
        Successor::Server
    } else {
        choice
    }
}

/// Workers that wake each other hand the slot off directly, past the queues, at most this many
/// times in a row while tasks are queued.
const MAX_HANDOFFS_IN_A_ROW: u32 = 8;

/// Whether a queued task comes before workers that wake each other. `handoffs`: how often in a row
/// they have handed the slot off to each other without a task having been taken.
#[inline]
pub(super) const fn task_is_due(handoffs: u32) -> bool {
    handoffs >= MAX_HANDOFFS_IN_A_ROW
}

/// Who gets the slot of a worker that announces that it is about to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockSuccessor {
    /// Nothing would run: the worker keeps its slot, and whoever queues work next retakes it
    /// (`sleepers.rs`).
    Nobody,
    /// The spare, if one is armed and nobody came earlier; else the server picks.
    Server,
    /// A worker that waits, directly.
    Resumed,
}

/// Who gets the slot of a worker that announces that it is about to sleep in a call. `owner`: the
/// worker may come back with a lock, and then goes on at once; it cannot be handed off for that.
/// `server_must_pick`: a worker waits that only the server can pick. `resumed`: a worker waits that
/// may be handed the slot. `has_task`: a task is queued. `task_is_due`: see [`task_is_due`].
#[inline]
pub(super) fn block_successor(
    owner: bool,
    server_must_pick: bool,
    resumed: bool,
    has_task: bool,
    task_is_due: impl FnOnce() -> bool,
) -> BlockSuccessor {
    if !has_task && !server_must_pick && !resumed {
        BlockSuccessor::Nobody
    } else if owner || server_must_pick || !resumed || (has_task && task_is_due()) {
        BlockSuccessor::Server
    } else {
        BlockSuccessor::Resumed
    }
}

/// A worker that was woken by another thread may hold the lock that it was woken for, and others
/// wait for it. So this many of its next returns from I/O come before those of others, unless it
/// has woken somebody in turn before that, as it does when it releases such a lock.
pub(super) const PRECEDENCE: u32 = 4;

/// The upper end of [`saturation`]. Of the thresholds that were tried with the service in
/// `examples/notes`, this one and the two below did best with 32 connections on shared CPUs, and no
/// worse with 256.
const MAX_SATURATION: u32 = 32;

/// What one block at which nobody waited for the slot costs.
const UNSATURATED: u32 = 8;

/// This many workers that wait are enough to keep the slot busy for as long as a worker waits for
/// its event.
const DEEP_QUEUE: u32 = 8;

/// How busy a slot has been of late, from 0 to 32, after one more block; `somebody_waits`: for the
/// slot, at that block.
#[inline]
pub(super) const fn saturation(before: u32, somebody_waits: bool) -> u32 {
    if !somebody_waits {
        before.saturating_sub(UNSATURATED)
    } else if before < MAX_SATURATION {
        before + 1
    } else {
        before
    }
}

/// Whether a worker parks that waits for an event, rather than sleeping in its call. `saturation`:
/// see [`saturation`]; `waiting`: how many workers wait for the slot.
///
/// When its event comes and the slot is busy, a parked worker costs one switch less: it is woken
/// when it is its turn. When the slot is free, it costs two more, because the poller and the server
/// have to find it, and the kernel would have woken a worker that sleeps in its call.
#[inline]
pub(super) const fn parks(saturation: u32, waiting: u32) -> bool {
    saturation >= MAX_SATURATION / 2 || waiting >= DEEP_QUEUE
}

/// While a worker waits behind the one in the slot, that one has this long (trace A13). While a
/// queued task waits, the task that runs has this long. It is also how late the server may notice a
/// worker that unblocked behind a running one.
const SLICE_NS: u64 = 5_000_000;

/// For queued tasks a server brings in further workers beside at most this many *leftovers*,
/// workers that it has preempted and that still run without a slot. A worker that is preempted for
/// a queued task is in the middle of a task, so the queued task needs another thread. This bounds
/// the number of threads that compute: without it a queue of tasks which only compute would get a
/// thread each.
pub(super) const MAX_LEFTOVERS: usize = 32;

/// A worker that runs short tasks gives the slot up by itself soon after somebody begins to wait
/// ([`turn_is_over`]). It gets this long for that before it is preempted, however long it has held
/// the slot already.
const GRACE_NS: u64 = 1_000_000;

/// Until when a server sleeps behind a worker that it dispatches `now`, if it sleeps with a
/// deadline.
pub(super) const fn slice_end(now: u64) -> u64 {
    now + SLICE_NS
}

/// What a server does about the worker in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SliceStep {
    /// It sleeps behind the worker. With a deadline (see [`needs_slice_deadline`]), it is this one.
    SleepUntil(u64),
    /// The slice is over. An idle CPU is the better place for a worker that waits here: the server
    /// wakes an idle server to take it over, and calls [`Slice::offered`]. If no server idles it
    /// preempts.
    OfferOrPreempt,
    /// The slice is over, and no idle server came for the workers that wait.
    Preempt,
    /// A task has run for its slice while another one is queued, and no worker waits. If it is this
    /// server that gives way ([`next_to_give_way`]), it preempts, and runs an idle or a new worker
    /// for the queued task.
    PreemptForTask,
}

/// How far the worker in a slot has come: how many tasks it has taken, and the id of the one that
/// it runs. A worker whose progress has not changed is still in the same poll or call of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Tasks that it took since it last gave a slot up.
    pub(super) takes: u64,
    /// The task that it runs. `None`: none.
    pub(super) task: Option<u64>,
}

/// The time slice of the worker in a slot, as far as the server knows.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// The worker's tid; 0: none seen.
    holder: u32,
    /// When it was dispatched, or first seen in the slot. CLOCK_MONOTONIC ns, here and below.
    since: u64,
    /// What it had done when the server last looked while tasks were queued.
    progress: Progress,
    /// When the server saw that `progress` had changed: the running task began before this time.
    task_since: u64,
    /// Somebody has been seen to wait behind it, and it is not preempted before this time.
    not_before: Option<u64>,
    /// An idle server was woken to take the waiting workers over.
    offered: bool,
}

impl Slice {
    /// The slice of a worker that was dispatched, or seen for the first time, `now`.
    pub(super) const fn begin(holder: u32, now: u64) -> Self {
        Self {
            holder,
            since: now,
            progress: Progress {
                takes: 0,
                task: None,
            },
            task_since: now,
            not_before: None,
            offered: false,
        }
    }

    /// The worker whose slice this is, by its tid; 0: none.
    pub(super) const fn holder(&self) -> u32 {
        self.holder
    }

    /// What the server does `now`. `waiting`: how many workers wait to be picked behind this one.
    /// `tasks`: if tasks are queued, how far this worker has come; `None`: no task is queued that
    /// this server could run.
    pub(super) fn next_step(
        &mut self,
        now: u64,
        waiting: u32,
        tasks: Option<Progress>,
    ) -> SliceStep {
        if waiting == 0 {
            self.not_before = None;
            self.offered = false;
            return match tasks {
                None => SliceStep::SleepUntil(slice_end(now)),
                Some(progress) => self.next_step_for_tasks(now, progress),
            };
        }
        let end = *self
            .not_before
            .get_or_insert(slice_end(self.since).max(now + GRACE_NS));
        if now < end {
            SliceStep::SleepUntil(end)
        } else if self.offered {
            SliceStep::Preempt
        } else {
            SliceStep::OfferOrPreempt
        }
    }

    /// A worker that runs short tasks takes the queued ones itself, so the slot is not given on
    /// while it makes progress.
    fn next_step_for_tasks(&mut self, now: u64, progress: Progress) -> SliceStep {
        if progress != self.progress {
            self.progress = progress;
            self.task_since = now;
        }
        let end = slice_end(self.task_since);
        if now < end {
            SliceStep::SleepUntil(end)
        } else {
            SliceStep::PreemptForTask
        }
    }

    /// An idle server was woken `now` to take over the workers that wait. Returns until when they
    /// are left to it.
    pub(super) const fn offered(&mut self, now: u64) -> u64 {
        let end = slice_end(now);
        self.offered = true;
        self.not_before = Some(end);
        end
    }
}

/// When the next of `servers` servers may give its slot on for queued tasks, of which there are
/// `queued`, if one did so at `last`. In a slice at most as many servers give way as tasks are
/// queued, and all of them do so at different times. For one queued task only one server does.
#[inline]
pub(super) const fn next_to_give_way(last: u64, queued: usize, servers: usize) -> u64 {
    let at_once = if queued < servers { queued } else { servers };
    last + SLICE_NS / (if at_once == 0 { 1 } else { at_once as u64 })
}

/// Whether a server that sleeps behind a worker needs a deadline. It does if workers wait for the
/// slot, or if `tasks` are known to be queued. It also does if others than the one in the slot are
/// on no list of the server (`unlisted` counts all of them): one of these may unblock behind the
/// worker in the slot, in which case the server is not woken, or be switched to by a block that the
/// server is not told of.
pub(super) const fn needs_slice_deadline(waiting: u32, unlisted: u32, tasks: bool) -> bool {
    waiting > 0 || unlisted > 1 || tasks
}

/// Whether workers of this server that unblock may take the slot over directly from one that
/// blocks, without the server. Only while no waiting worker has priority over them.
pub(super) const fn may_take_over(waiting: u32) -> bool {
    waiting == 0
}

#[cfg(test)]
mod tests;
