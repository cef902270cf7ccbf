//! A worker: its record, and the loop of its thread.

mod handoff;
mod park;

use std::{
    cell::{Cell, RefCell},
    fmt,
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use umcg_sys::{Error, Register, UmcgTask, state};

use self::handoff::{NextTidOwner, Publication};
use super::{
    Shared,
    clock::now_ns,
    context,
    counters::WorkerCounts,
    run_queue::{Source, TakeHistory},
    server::Server,
    stock::Stock,
};
use crate::{
    panic::{AbortIfPanic, contain},
    sync::AtomicU32,
    task::Runnable,
    wait::{self, Parker, WorkerHook},
};

/// With somebody waiting, a worker hands over after so many tasks (B1) ...
const TASKS_A_TURN: u32 = 8;
/// ... or after so long.
const TURN: Duration = Duration::from_micros(100);

/// Where a worker is, as far as the runtime put it there. What its thread does is in the state
/// of its task.
pub(in crate::sched) mod seat {
    /// No worker has this record.
    pub(in crate::sched) const FREE: u8 = 0;
    /// Its thread is being made, or has not been run by a server yet.
    pub(in crate::sched) const STARTING: u8 = 1;
    /// It runs, is blocked, or waits to be picked again with a task on its stack.
    pub(in crate::sched) const BUSY: u8 = 2;
    /// It sleeps in `wait` with nothing on its stack.
    pub(in crate::sched) const IDLE: u8 = 3;
    /// It sleeps in `wait` in the middle of a task that yielded.
    pub(in crate::sched) const YIELDED: u8 = 4;
    /// It sleeps in `wait` until somebody unparks it, and belongs to the parker. Written by the
    /// worker.
    pub(in crate::sched) const PARKED: u8 = 5;
    /// Unparked, and to be picked. Written by whoever unparked it, who owned it then.
    pub(in crate::sched) const RESUMED: u8 = 6;
}

/// What is known of a worker. Lives in the arena and outlasts its thread.
///
/// `repr(C)`: the task is the first field, so that the address in a list event is also the
/// record's.
#[repr(C)]
pub(in crate::sched) struct Worker {
    task: UmcgTask,
    index: u32,
    /// The link of the one list that it is on; written by its owner.
    link: AtomicU32,
    /// The server whose worker it is: always the one that `task.server_tid` names. Written by
    /// the owner of the (RUNNABLE) worker, so it may be another one after each wait, checkpoint
    /// and block.
    server: AtomicU32,
    /// See [`seat`]. Written by the worker, except where it says otherwise, and FREE and
    /// STARTING.
    seat: AtomicU8,
    /// It is to leave when it runs next. Set by the server that owns it.
    retire: AtomicBool,
    /// It sleeps in one of the runtime's own waits.
    in_managed_blocking: AtomicBool,
    /// When it came to rest last, CLOCK_MONOTONIC nanoseconds. Written by the worker.
    idle_since: AtomicU64,
    /// The idle worker that its server armed in `task.next_tid` last. It means something to
    /// whoever gets that worker's tid from `disarm`.
    armed: AtomicU32,
    /// The worker, plus one, that handed its slot to this one and is still to be published; 0:
    /// none. Written by that worker, which owned this one then; taken by this one when it runs.
    pub(in crate::sched) predecessor: AtomicU32,
    pub(in crate::sched) choice: NextTidOwner,
    pub(in crate::sched) publication: Publication,
    /// The parker in which it sleeps or is to be entrusted. Written by the worker; valid while its
    /// publication is pending.
    pub(in crate::sched) parker: AtomicPtr<Parker>,
    counts: WorkerCounts,
    /// Its thread, for shutdown to join; replaced with the next thread that gets this record.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(in crate::sched) fn new(index: u32) -> Self {
        Self {
            task: UmcgTask::new(),
            index,
            link: AtomicU32::new(0),
            server: AtomicU32::new(0),
            seat: AtomicU8::new(seat::FREE),
            retire: AtomicBool::new(false),
            in_managed_blocking: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            armed: AtomicU32::new(0),
            predecessor: AtomicU32::new(0),
            choice: NextTidOwner::new(),
            publication: Publication::new(),
            parker: AtomicPtr::new(ptr::null_mut()),
            counts: WorkerCounts::default(),
            thread: Mutex::new(None),
        }
    }

    /// The worker of a list event.
    ///
    /// # Safety
    /// `task` is the task of a worker in an arena that outlives `'a`.
    pub(in crate::sched) unsafe fn of_task<'a>(task: NonNull<UmcgTask>) -> &'a Self {
        // SAFETY: the task is the first field of a `repr(C)` record, and the arena exposed the
        // provenance of the whole chunk.
        unsafe { &*ptr::with_exposed_provenance::<Self>(task.as_ptr().expose_provenance()) }
    }

    pub(in crate::sched) const fn task(&self) -> &UmcgTask {
        &self.task
    }

    pub(in crate::sched) const fn index(&self) -> u32 {
        self.index
    }

    pub(in crate::sched) const fn link(&self) -> &AtomicU32 {
        &self.link
    }

    pub(in crate::sched) fn server(&self) -> usize {
        // Acquire: pairs with the Release in `set_server`.
        self.server.load(Acquire) as usize
    }

    /// For the owner.
    pub(in crate::sched) fn set_server(&self, server: &Server) {
        self.task.set_server_tid(server.tid());
        self.server.store(server.index() as u32, Release);
    }

    pub(in crate::sched) fn seat(&self) -> u8 {
        self.seat.load(Relaxed)
    }

    /// For the owner of a record that is being filled, and for the worker.
    pub(in crate::sched) fn set_seat(&self, seat: u8) {
        self.seat.store(seat, Relaxed);
    }

    /// For the server that owns the worker.
    pub(in crate::sched) fn retire(&self) {
        // Relaxed: the dispatch that follows orders it before the worker's look.
        self.retire.store(true, Relaxed);
    }

    pub(in crate::sched) fn in_managed_blocking(&self) -> bool {
        self.in_managed_blocking.load(Relaxed)
    }

    /// Notes whom `task.next_tid` names. For the server, before it dispatches this worker.
    pub(in crate::sched) fn set_armed(&self, worker: &Self) {
        self.armed.store(worker.index, Relaxed);
        self.task.set_next_tid(worker.task.tid());
    }

    pub(in crate::sched) fn idle_since(&self) -> u64 {
        // Relaxed: the inbox orders it.
        self.idle_since.load(Relaxed)
    }

    pub(in crate::sched) fn armed(&self) -> u32 {
        self.armed.load(Relaxed)
    }

    pub(in crate::sched) const fn counts(&self) -> &WorkerCounts {
        &self.counts
    }

    /// For a new thread: a clean record. The caller owns it.
    pub(in crate::sched) fn prepare(&self, server: &Server) {
        self.server.store(server.index() as u32, Release);
        self.retire.store(false, Relaxed);
        self.in_managed_blocking.store(false, Relaxed);
        // The last worker here may have lost its server in the middle of a switch.
        self.predecessor.store(0, Relaxed);
        self.choice.give_up();
        self.set_seat(seat::STARTING);
    }

    pub(in crate::sched) fn set_thread(&self, thread: JoinHandle<()>) {
        // The one before, if any, is that of a worker that has gone.
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    pub(in crate::sched) fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("server", &self.server())
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// The worker that this thread is; null: none. Set while its loop runs.
    static CURRENT: Cell<*const WorkerThread> = const { Cell::new(ptr::null()) };
}

thread_local! {
    /// The runtime whose worker this thread is, hooks included; null: none.
    static THREAD_OF: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

/// From here on this thread is one of that runtime, to its end.
pub(in crate::sched) fn become_thread_of(shared: &Arc<Shared>) {
    THREAD_OF.set(Arc::as_ptr(shared));
}

/// Whether this thread is a worker's of that runtime, from its first line to its last.
pub(in crate::sched) fn is_thread_of(shared: &Shared) -> bool {
    let of = THREAD_OF.try_with(Cell::get).unwrap_or(ptr::null());
    ptr::eq(of, shared)
}

/// Calls `f` with the worker that this thread is, if it is one of that runtime.
pub(in crate::sched) fn with_current<R>(
    shared: &Shared,
    f: impl FnOnce(&WorkerThread) -> R,
) -> Option<R> {
    let current = CURRENT.try_with(Cell::get).ok()?;
    // SAFETY: null, or set by `main` further up this very stack, which clears it before the
    // `WorkerThread` goes.
    let current = unsafe { current.as_ref() }?;
    ptr::eq(&raw const *current.shared, shared).then(|| f(current))
}

/// How a worker comes past the place between two tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// With a slot.
    Runs,
    /// Without: to the idle ones.
    Rests,
    /// An ordinary thread.
    Gone,
}

/// A worker's thread, from inside.
pub(in crate::sched) struct WorkerThread {
    pub(in crate::sched) shared: Arc<Shared>,
    /// In the arena of `shared`.
    record: NonNull<Worker>,
    /// Its server went away: an ordinary thread, which leaves as soon as its task is done.
    orphan: Cell<bool>,
    take_history: RefCell<TakeHistory>,
    /// References for the tasks that it makes.
    pub(in crate::sched) stock: Stock,
}

/// The thread of the worker with this record.
pub(in crate::sched) fn main(shared: Arc<Shared>, index: u32) {
    let guard = AbortIfPanic("a worker's loop");
    become_thread_of(&shared);
    let this = WorkerThread {
        record: NonNull::from(shared.arena.get(index)),
        stock: Stock::new(&shared),
        shared,
        orphan: Cell::new(false),
        take_history: RefCell::default(),
    };
    if this.run() {
        let WorkerThread { shared, record, .. } = this;
        // SAFETY: in the arena of `shared`, which is alive.
        shared.worker_gone(unsafe { record.as_ref() });
    }
    guard.disarm();
}

impl WorkerThread {
    pub(in crate::sched) fn record(&self) -> &Worker {
        // SAFETY: in the arena of `self.shared`; chunks live as long as that.
        unsafe { self.record.as_ref() }
    }

    /// The server that it is a worker of right now. Not to be kept across user code.
    pub(in crate::sched) fn server(&self) -> &Server {
        &self.shared.servers[self.record().server()]
    }

    /// From the first line of the thread to the last. False: this is a forked child.
    ///
    /// The hooks run outside of the registration. A start hook that blocks is not a blocked
    /// worker then, in whose place others would be made, whose hooks block as well; the server
    /// waits for the one that is on its way.
    fn run(&self) -> bool {
        let record = self.record();
        let home = &self.shared.servers[record.server()];
        let hooks = &self.shared.config.hooks;
        // The maker has all signals blocked.
        self.shared.signals.apply();
        let entered = context::enter(&self.shared);
        if let Some(hook) = &hooks.on_worker_start {
            contain("on_worker_start", || hook(record.index as usize));
        }
        record.task.prepare(home.tid());
        // SAFETY: the record is in the arena, which `self.shared` keeps, and `unregister` below
        // is called before that goes.
        let registered = unsafe {
            self.shared
                .provider
                .register(self.record.cast(), &Register::worker())
        };
        home.worker_started();
        match registered {
            Ok(()) => {
                if !self.work() {
                    return false;
                }
            }
            Err(error) => self.shared.worker_refused(home, error),
        }
        // Before the hook, which may wait for a task that needs the place.
        self.shared.worker_leaves(record);
        if let Some(hook) = &hooks.on_worker_stop {
            contain("on_worker_stop", || hook(record.index as usize));
        }
        drop(entered);
        true
    }

    /// From registered to not registered. False: this is a forked child.
    fn work(&self) -> bool {
        let record = self.record();
        record.set_seat(seat::BUSY);
        // SAFETY: `self` outlives the loop, and the hook is taken back below.
        unsafe { wait::set_worker(Some(NonNull::from(self as &dyn WorkerHook))) };
        // SAFETY: as above.
        unsafe { context::set_own(Some(NonNull::from(&self.shared))) };
        CURRENT.set(self);
        self.serve();
        // This worker may have queued tasks after the first sweep had passed, whatever makes it leave.
        // Those pushes, then the look; pairs with the fence in `Lifecycle::begin_sweep`. Before SWEEPING
        // the first sweep is still to come, and finds them.
        fence(SeqCst);
        if self.shared.lifecycle.is_sweeping() {
            self.shared.sweep();
        }
        record.counts.tell(&self.server().counters);
        self.disarm();
        CURRENT.set(ptr::null());
        // SAFETY: `None` needs nothing to stay valid.
        unsafe { wait::set_worker(None) };
        // SAFETY: as above.
        unsafe { context::set_own(None) };
        // The provider waits until this worker is on no list and lets its server drain.
        while let Err(error) = self.shared.provider.unregister(self.record.cast()) {
            if error.is_gone() {
                // A forked child, whose only thread this is. Nobody else is there to account to,
                // and a lock of the parent's threads may be held for ever.
                return false;
            }
            assert!(error.is_busy(), "a worker could not unregister: {error}");
            let _ = self.shared.provider.checkpoint();
        }
        // Judged on its way out, it may have been picked and armed once more.
        let armed = record.task.next_tid();
        if armed != 0 && record.task.clear_next_tid(armed) {
            if let Some(armed) = self.shared.worker_by_tid(armed) {
                self.give_back(armed);
            }
        }
        true
    }

    /// Runs tasks until it is time to leave.
    fn serve(&self) {
        // Since when somebody is known to wait for this server, and the tasks run since.
        let mut turn: Option<(u64, u32)> = None;
        let shared = &*self.shared;
        loop {
            match self.pass() {
                Pass::Runs => {}
                Pass::Rests => {
                    turn = None;
                    if !self.rest_judged() {
                        return;
                    }
                    continue;
                }
                Pass::Gone => return,
            }
            if shared.lifecycle.is_stopping() {
                // To the sweep in `work`.
                return;
            }
            if self.record().retire.load(Relaxed) {
                return;
            }
            let server = self.server();
            if server.is_slot_wanted(&shared.run_queues) {
                let (since, ran) = turn.get_or_insert_with(|| (now_ns(), 0));
                if *ran >= TASKS_A_TURN || now_ns() - *since >= TURN.as_nanos() as u64 {
                    turn = None;
                    if !self.rest() {
                        return;
                    }
                    continue;
                }
                *ran += 1;
            } else {
                turn = None;
            }
            if let Some(task) = self.take(server) {
                self.spare(server);
                self.rouse_server();
                task.run();
            } else if shared.lifecycle.is_stopping() {
                turn = None;
            } else {
                turn = None;
                if shared.spawner.limit.is_exceeded() || !self.rest() {
                    return;
                }
            }
        }
    }

    /// The next task.
    fn take(&self, server: &Server) -> Option<Runnable> {
        let (task, source) = self.shared.run_queues.take(
            server.index(),
            &self.shared.idle_servers,
            &mut self.take_history.borrow_mut(),
        )?;
        if source != Source::Own {
            // Tasks that came along were in no queue for a moment, and a sweep may have passed by.
            // They are there again, and then the look; pairs with the fences in `Lifecycle`.
            fence(SeqCst);
            if self.shared.lifecycle.is_stopping() {
                // Nothing begins any more: for a sweep, of this worker if no other.
                self.shared.run_queues.servers[server.index()]
                    .queue
                    .push(task);
                return None;
            }
        }
        self.record().counts.count_take();
        if source == Source::Stolen {
            server.counters.count_steal();
        }
        Some(task)
    }

    /// Has a spare worker made off the block path: tasks wait, a sibling is blocked, and if
    /// this worker blocks as well nobody could take over.
    fn spare(&self, server: &Server) {
        if server.block_would_strand_tasks(&self.shared.run_queues)
            && self.shared.config.min_idle > 0
            && self.shared.spawner.limit.has_room()
        {
            self.shared.spawner.request(server);
        }
    }

    /// Before code of the user's: if this worker unblocked while its server idled, and took the
    /// slot itself, the server sleeps without a deadline, and nobody would notice a sibling that
    /// unblocks behind this worker. Woken, it sleeps on with one.
    fn rouse_server(&self) {
        let server = self.server();
        if self.shared.idle_servers.is_asleep(server.index())
            && server.unlisted(&self.shared.run_queues) > 1
        {
            // ESRCH: it has left; then this is an ordinary thread.
            let _ = self.shared.provider.wake(server.tid());
        }
    }

    /// Where the runtime stops a worker that was judged. False: an ordinary thread from here on.
    pub(in crate::sched) fn check(&self) -> bool {
        if self.orphan.get() {
            return false;
        }
        match self.shared.provider.checkpoint() {
            Ok(()) => true,
            Err(error) if error.is_gone() => {
                self.orphan.set(true);
                false
            }
            Err(error) => unreachable!("a registered worker could not checkpoint: {error}"),
        }
    }

    /// The same between two tasks. With nothing on its stack a judged worker that cannot have a
    /// slot at once need not queue up for one: it is an idle worker like others.
    fn pass(&self) -> Pass {
        if self.orphan.get() {
            return Pass::Gone;
        }
        let shared = &*self.shared;
        let wanted = || {
            shared
                .run_queues
                .has_task_for(self.record().server(), &shared.idle_servers)
        };
        match shared.provider.try_checkpoint(&wanted) {
            Ok(true) => Pass::Runs,
            Ok(false) => Pass::Rests,
            Err(error) if error.is_gone() => {
                self.orphan.set(true);
                Pass::Gone
            }
            Err(error) => unreachable!("a registered worker could not checkpoint: {error}"),
        }
    }

    /// Joins the idle workers of its server, without a slot to give back. False: an ordinary
    /// thread from here on.
    fn rest_judged(&self) -> bool {
        self.disarm();
        self.note_rest();
        self.record().task.leave_judged();
        self.publish_and_wait(seat::IDLE)
    }

    /// Gives the slot back and joins the idle workers of its server. False: an ordinary thread
    /// from here on.
    fn rest(&self) -> bool {
        self.part(seat::IDLE)
    }

    /// Gives the slot back. True: it was picked again, or never left because it was judged just
    /// then; either way to be followed by a checkpoint.
    fn part(&self, seat: u8) -> bool {
        if seat == seat::IDLE {
            self.note_rest();
        }
        // One that yields lets its server choose, which gives queued tasks their turns.
        let next = (seat == seat::IDLE).then(|| self.resumed()).flatten();
        // Afterwards, so that what is given back does not hide a resumed one in the inbox.
        self.disarm();
        if !self.record().task.leave() {
            // Judged: the checkpoint comes first (trace A8).
            self.choose_nobody(next);
            return true;
        }
        match next {
            Some(next) => self.switch(seat, next),
            None => {
                self.disarm_late();
                self.publish_and_wait(seat)
            }
        }
    }

    /// After `leave`: where the kernel stops a worker it may have been picked once more since it
    /// disarmed, and armed anew. Nobody arms it now.
    pub(in crate::sched) fn disarm_late(&self) {
        if self.record().task.next_tid() != 0 {
            self.disarm();
        }
    }

    /// While it still runs: reading the clock does not belong between `leave` and `wait`.
    fn note_rest(&self) {
        self.record().idle_since.store(now_ns(), Relaxed);
    }

    /// The second half of giving the slot back to the server: RUNNABLE already.
    fn publish_and_wait(&self, seat: u8) -> bool {
        let record = self.record();
        let server = self.server();
        // From here to `wait`: no lock, no allocation, no memory touched for the first time
        // (B10). Once it is in the inbox its server owns it.
        record.counts.tell(&server.counters);
        record.set_seat(seat);
        if seat == seat::IDLE {
            server.count_idle_into_inbox();
        }
        server.inbox().push(&self.shared.arena, record.index);
        let outcome = self.wait();
        record.set_seat(seat::BUSY);
        match outcome {
            Ok(()) => true,
            Err(error) => self.is_gone(&error),
        }
    }

    /// `wait`, and what is to be done by a worker that was picked.
    pub(in crate::sched) fn wait(&self) -> Result<(), Error> {
        let outcome = self.shared.provider.wait(0, 0);
        let record = self.record();
        if outcome.is_ok() {
            record.choice.give_up();
            if record.task.state() == state::BLOCKED {
                // Judged already, while its server took the choice for one that still stood, and
                // left what it is armed with alone.
                self.disarm();
            }
        }
        // Relaxed: written by whoever owned this worker, before the dispatch.
        let predecessor = record.predecessor.load(Relaxed);
        if let Some(predecessor) = predecessor.checked_sub(1) {
            record.predecessor.store(0, Relaxed);
            self.publish(self.shared.arena.get(predecessor));
        }
        outcome
    }

    /// A `wait` failed: this is an ordinary thread from here on. False.
    pub(in crate::sched) fn is_gone(&self, error: &Error) -> bool {
        assert!(error.is_gone(), "a worker could not wait: {error}");
        self.orphan.set(true);
        self.record().publication.retract(std::thread::yield_now);
        false
    }

    /// Puts the worker that is armed in this one back into the idle pool. Not only if `next_tid`
    /// says that there is one: see the contract of `disarm`.
    pub(in crate::sched) fn disarm(&self) {
        if let Some(armed) = self.shared.disarm(self.record()) {
            self.give_back(armed);
        }
    }

    /// Gives a worker that belongs to this one, idle or resumed, to its server, which has it when
    /// it comes round: before it looks for a worker, and before it ends.
    pub(in crate::sched) fn give_back(&self, worker: &Worker) {
        let server = &self.shared.servers[worker.server()];
        if worker.seat() == seat::RESUMED {
            self.shared.run_queues.servers[server.index()].count_resumed_into_inbox();
        } else {
            server.count_idle_into_inbox();
        }
        server.inbox().push(&self.shared.arena, worker.index);
        if worker.server() != self.record().server() {
            // It may sleep, and this worker does not come past it.
            self.shared.look_at_inbox(server);
        }
    }
}

impl WorkerHook for WorkerThread {
    fn sleep(&self, parker: &Parker, deadline: Option<Instant>) {
        match deadline {
            None => self.sleep_in(parker),
            Some(deadline) => self.sleep_until(parker, deadline),
        }
    }

    fn begin_managed_blocking(&self) {
        self.record().in_managed_blocking.store(true, Relaxed);
        self.shared.spawner.begin_managed_blocking();
    }

    fn end_managed_blocking(&self) {
        self.shared.spawner.end_managed_blocking();
        self.record().in_managed_blocking.store(false, Relaxed);
        self.checkpoint();
    }

    fn yield_now(&self) {
        let others = || {
            let server = self.server();
            server.is_slot_wanted(&self.shared.run_queues)
                || self
                    .shared
                    .run_queues
                    .has_task_for(server.index(), &self.shared.idle_servers)
        };
        if self.check() && others() {
            self.part(seat::YIELDED);
            self.checkpoint();
        } else {
            self.rouse_server();
            // Threads that no server knows of want the CPU too: a worker of ours that was
            // blocked and runs on to its next checkpoint, for one.
            std::thread::yield_now();
        }
    }

    fn checkpoint(&self) {
        if self.check() {
            self.rouse_server();
        }
    }
}
