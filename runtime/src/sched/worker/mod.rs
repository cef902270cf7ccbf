//! Workers: the record that others see of one (this file), its thread's loop (`run.rs`), how it
//! gives its slot up and sleeps (`park.rs`), and how it hands its slot to another worker directly
//! (`handoff.rs`).

pub(in crate::sched) mod current;
pub(in crate::sched) mod handoff;
mod managed;
mod park;
pub(in crate::sched) mod run;

use std::{
    fmt,
    ptr::{self, NonNull},
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::JoinHandle,
};

use umcg_sys::UmcgTask;

use self::handoff::{NextTidOwner, Publication};
pub(in crate::sched) use self::managed::is_defined as managed_calls_are_defined;
use super::{counters::WorkerCounts, policy, server::Server};
use crate::{sync::AtomicU32, task::Id, wait::Parker};

/// Where the runtime has put a worker. What its thread does is in the state of its
/// [`UmcgTask`].
///
/// Written by the worker, except where it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::sched) enum WorkerState {
    /// No worker has this record. Written by the thread that leaves it, or that failed to make a
    /// thread for it.
    Free = 0,
    /// The worker's thread is being made, or has not been run by a server yet. Written by the
    /// thread that makes it.
    Starting = 1,
    /// The worker runs, is blocked, or waits to be picked again with a task on its stack.
    Busy = 2,
    /// The worker sleeps in `wait` with nothing on its stack.
    Idle = 3,
    /// The worker sleeps in `wait` in the middle of a task that yielded.
    Yielded = 4,
    /// The worker sleeps in `wait` until it is unparked, and its parker owns it.
    Parked = 5,
    /// The worker has been unparked and waits to be picked. Written by the thread that unparked it,
    /// which owned it then.
    Resumed = 6,
}

impl WorkerState {
    fn from_u8(state: u8) -> Self {
        match state {
            0 => Self::Free,
            1 => Self::Starting,
            2 => Self::Busy,
            3 => Self::Idle,
            4 => Self::Yielded,
            5 => Self::Parked,
            6 => Self::Resumed,
            _ => unreachable!("no state of a worker: {state}"),
        }
    }
}

/// An address has at most this many bits.
const NAME_BITS: u32 = 57;

/// What others see of a worker. Lives in the arena and outlasts the worker's thread.
///
/// `repr(C)`: the task is the first field, so that the address in a list event is also that of the
/// record.
#[repr(C)]
pub(in crate::sched) struct Worker {
    task: UmcgTask,
    /// Its place in the arena; never changes.
    index: u32,
    /// The link of the one list that the worker is on. Written by the worker's owner.
    link: AtomicU32,
    /// The index of the server whose worker this is, which `task.server_tid` names as well. Written
    /// by the owner of the RUNNABLE worker, so it may change in each wait, checkpoint and block.
    server: AtomicU32,
    /// A [`WorkerState`].
    state: AtomicU8,
    /// The worker is to leave when it runs next. Set by the server that owns it.
    retire: AtomicBool,
    /// The worker was preempted, and is to give way at its next managed call, even if the call does
    /// not sleep. Set by its server, cleared by the worker.
    preempted: AtomicBool,
    /// How many of the worker's next returns from I/O come before those of others: it may hold what
    /// it was woken for. Written by the worker, and by whoever resumes it from I/O.
    precedence: AtomicU32,
    /// The worker is in a wait of the runtime's own. Written by the worker.
    in_managed_blocking: AtomicBool,
    /// When the worker last became idle, CLOCK_MONOTONIC nanoseconds. Written by the worker.
    idle_since: AtomicU64,
    /// The id of the task that the worker runs; 0: none. Written by the worker when a task begins
    /// and when it becomes idle, so it is stale for a moment between two tasks.
    current_task: AtomicU64,
    /// The name of the managed call in which the worker is: its address, and its length in the
    /// upper seven bits, since no address has these; 0: in none. Written by the worker.
    current_call: AtomicU64,
    /// The first argument of that call. Written by the worker, before the name.
    call_argument: AtomicUsize,
    /// The index of the spare that the server last armed in `task.next_tid`. Meaningful to the
    /// thread that gets the spare's tid from `Provider::disarm`.
    armed: AtomicU32,
    /// The index plus one of the worker that handed its slot to this one and is still to be
    /// published; 0: none. Written by that worker, which owned this one then; taken by this worker
    /// when it runs.
    predecessor: AtomicU32,
    /// Who may write `task.next_tid`.
    pub(in crate::sched) next_tid_owner: NextTidOwner,
    /// Who publishes this worker when it has given its slot up.
    publication: Publication,
    /// The parker in which the worker sleeps or is about to. Written by the worker. Valid while the
    /// worker's publication is pending or in progress.
    parker: AtomicPtr<Parker>,
    /// In which the worker waits for a descriptor. Owned by the worker.
    io_parker: Parker,
    /// The worker waits for a descriptor: whoever resumes it queues it with those that come back
    /// from I/O. Written by the worker before it is parked.
    waits_for_io: AtomicBool,
    counts: WorkerCounts,
    /// The worker's thread, for shutdown to join. Replaced when the record gets another thread.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    /// A record without a worker.
    pub(in crate::sched) fn new(index: u32) -> Self {
        Self {
            task: UmcgTask::new(),
            index,
            link: AtomicU32::new(0),
            server: AtomicU32::new(0),
            state: AtomicU8::new(WorkerState::Free as u8),
            retire: AtomicBool::new(false),
            preempted: AtomicBool::new(false),
            precedence: AtomicU32::new(0),
            in_managed_blocking: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            current_task: AtomicU64::new(0),
            current_call: AtomicU64::new(0),
            call_argument: AtomicUsize::new(0),
            armed: AtomicU32::new(0),
            predecessor: AtomicU32::new(0),
            next_tid_owner: NextTidOwner::new(),
            publication: Publication::new(),
            parker: AtomicPtr::new(ptr::null_mut()),
            io_parker: Parker::new(),
            waits_for_io: AtomicBool::new(false),
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

    /// The index of the worker's server.
    pub(in crate::sched) fn server(&self) -> usize {
        // Acquire: pairs with the Release in `set_server`.
        self.server.load(Acquire) as usize
    }

    /// For the owner of the worker.
    pub(in crate::sched) fn set_server(&self, server: &Server) {
        self.task.set_server_tid(server.tid());
        // Release: pairs with the Acquire in `server`.
        self.server.store(server.index() as u32, Release);
    }

    pub(in crate::sched) fn state(&self) -> WorkerState {
        // Relaxed, here and in `set_state`: who owns the worker is decided by lists and parkers,
        // which order the state with it. Others take it for a hint.
        WorkerState::from_u8(self.state.load(Relaxed))
    }

    /// For the threads that [`WorkerState`] names.
    pub(in crate::sched) fn set_state(&self, state: WorkerState) {
        self.state.store(state as u8, Relaxed);
    }

    /// See the field.
    pub(in crate::sched) const fn io_parker(&self) -> &Parker {
        &self.io_parker
    }

    pub(in crate::sched) fn waits_for_io(&self) -> bool {
        // Relaxed: the parker's word orders it.
        self.waits_for_io.load(Relaxed)
    }

    /// For the worker.
    fn set_waits_for_io(&self, waits: bool) {
        self.waits_for_io.store(waits, Relaxed);
    }

    /// For the server, which has preempted the worker.
    pub(in crate::sched) fn set_preempted(&self) {
        // Release: pairs with the Acquire in `is_preempted`.
        self.preempted.store(true, Release);
    }

    /// For the worker, in a managed call that does not sleep. It may be late: the worker gives way
    /// at a later call then, or looks for a verdict that is over.
    fn is_preempted(&self) -> bool {
        self.preempted.load(Acquire)
    }

    /// For the worker, which is about to give way. Relaxed: nobody waits for it.
    fn clear_preempted(&self) {
        self.preempted.store(false, Relaxed);
    }

    /// The worker may hold something that others wait for.
    fn give_precedence(&self) {
        // Relaxed, here and below: a hint for the order.
        self.precedence.store(policy::PRECEDENCE, Relaxed);
    }

    /// The worker has released something that others waited for.
    fn end_precedence(&self) {
        if self.precedence.load(Relaxed) != 0 {
            self.precedence.store(0, Relaxed);
        }
    }

    /// For the owner of the worker, which comes back from I/O: whether it comes before others.
    pub(in crate::sched) fn take_precedence(&self) -> bool {
        let left = self.precedence.load(Relaxed);
        if left != 0 {
            self.precedence.store(left - 1, Relaxed);
        }
        left != 0
    }

    /// For the server that owns the worker.
    pub(in crate::sched) fn retire(&self) {
        // Relaxed: the dispatch that follows orders it before the worker's look.
        self.retire.store(true, Relaxed);
    }

    /// Whether the worker is to leave. For the worker.
    fn is_to_retire(&self) -> bool {
        // Relaxed: see `retire`.
        self.retire.load(Relaxed)
    }

    pub(in crate::sched) fn in_managed_blocking(&self) -> bool {
        // Relaxed: for metrics.
        self.in_managed_blocking.load(Relaxed)
    }

    /// For the worker.
    fn set_in_managed_blocking(&self, waits: bool) {
        self.in_managed_blocking.store(waits, Relaxed);
    }

    /// Arms `spare` in this worker. For the server, before it dispatches this worker.
    pub(in crate::sched) fn set_armed(&self, spare: &Self) {
        // Relaxed: the dispatch, or the lock of the server's lists, orders it.
        self.armed.store(spare.index, Relaxed);
        self.task.set_next_tid(spare.task.tid());
    }

    /// See the field.
    pub(in crate::sched) fn armed(&self) -> u32 {
        self.armed.load(Relaxed)
    }

    pub(in crate::sched) fn idle_since(&self) -> u64 {
        // Relaxed: the inbox orders it.
        self.idle_since.load(Relaxed)
    }

    /// For the worker, which is about to become idle.
    fn set_idle_since(&self, now: u64) {
        self.idle_since.store(now, Relaxed);
        self.current_task.store(0, Relaxed);
    }

    /// For the worker, which is about to run this task.
    fn set_current_task(&self, id: Id) {
        // Relaxed: for people who look at a running program.
        self.current_task.store(id.get(), Relaxed);
    }

    /// The number of the id of the task that the worker runs. `None`: no task, as far as anybody
    /// else can tell.
    pub(in crate::sched) fn current_task(&self) -> Option<u64> {
        let id = self.current_task.load(Relaxed);
        (id != 0).then_some(id)
    }

    /// For the worker, which is about to sleep in a managed call.
    fn set_current_call(&self, name: &'static str, argument: usize) {
        debug_assert!(name.len() < 1 << (u64::BITS - NAME_BITS));
        // Relaxed, here and below: for people who look at a running program.
        self.call_argument.store(argument, Relaxed);
        let address = name.as_ptr().expose_provenance() as u64;
        self.current_call
            .store(address | (name.len() as u64) << NAME_BITS, Relaxed);
    }

    /// For the worker.
    fn clear_current_call(&self) {
        self.current_call.store(0, Relaxed);
    }

    /// The managed call in which the worker is, and its first argument, which is the descriptor for
    /// most calls. `None`: it is in none, as far as anybody else can tell. The argument may be that
    /// of another call for a moment.
    pub(in crate::sched) fn current_call(&self) -> Option<(&'static str, usize)> {
        let name = self.current_call.load(Relaxed);
        if name == 0 {
            return None;
        }
        let address = ptr::with_exposed_provenance((name & ((1 << NAME_BITS) - 1)) as usize);
        // SAFETY: the address and the length of a static text, from `set_current_call`.
        let name = unsafe {
            std::str::from_utf8_unchecked(std::slice::from_raw_parts(
                address,
                (name >> NAME_BITS) as usize,
            ))
        };
        Some((name, self.call_argument.load(Relaxed)))
    }

    /// Notes that this worker, once it runs, is to publish `predecessor`. For the predecessor,
    /// which owns this worker.
    fn set_predecessor(&self, predecessor: &Self) {
        // Relaxed, here and in the two functions below: this worker reads it after it was
        // dispatched, which orders the two.
        self.predecessor.store(predecessor.index + 1, Relaxed);
    }

    /// For the predecessor, whose switch to this worker failed.
    fn clear_predecessor(&self) {
        self.predecessor.store(0, Relaxed);
    }

    /// The index of the worker that this one is to publish, if any. For this worker, when it runs.
    fn take_predecessor(&self) -> Option<u32> {
        let predecessor = self.predecessor.load(Relaxed).checked_sub(1)?;
        self.predecessor.store(0, Relaxed);
        Some(predecessor)
    }

    pub(in crate::sched) const fn counts(&self) -> &WorkerCounts {
        &self.counts
    }

    /// Makes the record that of a new worker of `server`. For the thread that makes the worker, and
    /// owns the record.
    pub(in crate::sched) fn prepare(&self, server: &Server) {
        // Release: pairs with the Acquire in `server`.
        self.server.store(server.index() as u32, Release);
        self.retire.store(false, Relaxed);
        self.clear_preempted();
        self.end_precedence();
        self.set_in_managed_blocking(false);
        self.current_task.store(0, Relaxed);
        self.clear_current_call();
        // The last worker with this record may have lost its server in the middle of a switch.
        self.clear_predecessor();
        self.next_tid_owner.give_back();
        self.set_state(WorkerState::Starting);
    }

    pub(in crate::sched) fn set_thread(&self, thread: JoinHandle<()>) {
        // The thread before, if any, belongs to a worker that has left.
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
            .field("state", &self.state())
            .field("current_task", &self.current_task())
            .field("current_call", &self.current_call())
            .field("task", &self.task)
            .finish_non_exhaustive()
    }
}
