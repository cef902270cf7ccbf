//! A provider without time slices, for scenes in which a worker has to keep its slot until the test
//! has seen what the others do.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use umcg_sys::{
    Error, Facts, Overdue, Provider, ProviderChoice, ProviderKind, REGISTER_WORKER, Register,
    ServerCounters, UmcgTask, gettid, select,
};

use crate::{in_ms, proc, threads, watchdog::eventually};

/// How many servers a runtime on this provider may have.
const SERVERS: usize = 8;

/// The provider that the runtime would have chosen, except for this:
///
/// * Until [`begin_slices`](Self::begin_slices) no worker is preempted, so a worker that computes
///   keeps its slot; a server that sleeps behind a worker has no deadline; and nobody is told that
///   work is overdue. So servers wake up for events only, or when the test wakes them.
/// * What one worker answers when the provider asks whether it may take a slot that is free is
///   written down ([`listen_to`](Self::listen_to)).
#[derive(Debug)]
pub struct Unsliced {
    /// Does all the rest.
    inner: Arc<dyn Provider>,
    /// Slices are as the inner provider and the runtime make them.
    sliced: Arc<AtomicBool>,
    /// The servers, in the order of their registration.
    servers: [Server; SERVERS],
    /// The worker whose next answer counts; 0 for none.
    listens_to: AtomicU32,
    /// Its answer: one of the constants below.
    answer: AtomicU8,
}

/// What is known of a server.
#[derive(Debug, Default)]
struct Server {
    /// 0: there is no such server.
    tid: AtomicU32,
    /// The deadline of its last `wait`; 0 for none.
    deadline: AtomicU64,
}

/// Not asked yet.
const NONE: u8 = 0;
/// It may not take the slot.
const NO: u8 = 1;
/// It may take the slot.
const YES: u8 = 2;

impl Unsliced {
    /// Wraps the provider that the environment chooses.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let choice = ProviderChoice::from_env().expect("a provider that exists");
        let selected = select(choice.unwrap_or_default()).expect("a provider");
        Arc::new(Self {
            inner: selected.provider,
            sliced: Arc::default(),
            servers: Default::default(),
            listens_to: AtomicU32::new(0),
            answer: AtomicU8::new(NONE),
        })
    }

    /// From here on there are time slices.
    pub fn begin_slices(&self) {
        self.sliced.store(true, SeqCst);
    }

    fn is_sliced(&self) -> bool {
        self.sliced.load(SeqCst)
    }

    /// The servers that have registered.
    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers
            .iter()
            .filter(|server| server.tid.load(SeqCst) != 0)
    }

    /// The record of the calling thread, if it is a server.
    fn own(&self) -> Option<&Server> {
        let tid = gettid();
        self.servers().find(|server| server.tid.load(SeqCst) == tid)
    }

    /// Has each server take in what waits for it, and decide anew how long it sleeps. Returns when
    /// they sleep again. A worker that computes keeps its slot.
    ///
    /// # Panics
    /// If a server does not come to rest.
    pub fn wake_servers(&self) {
        for server in self.servers() {
            let tid = server.tid.load(SeqCst);
            eventually("the server sleeps", || proc::asleep(tid));
            let before = threads::look(tid);
            self.inner.wake(tid).expect("the server lives");
            eventually("the server has woken up, and sleeps again", || {
                proc::asleep(tid) && threads::look(tid) != before
            });
        }
    }

    /// Whether no server wanted to wake up by itself in the next second when it went to sleep. It
    /// may have wanted to for idle workers that are to end much later.
    #[must_use]
    pub fn servers_want_no_deadline(&self) -> bool {
        self.servers().all(|server| {
            let deadline = server.deadline.load(SeqCst);
            deadline == 0 || deadline > in_ms(1000)
        })
    }

    /// Writes down what this worker answers next.
    pub fn listen_to(&self, worker: u32) {
        self.answer.store(NONE, SeqCst);
        self.listens_to.store(worker, SeqCst);
    }

    /// The answer of the worker: whether it may take a slot that is free. `None`: it has not come
    /// back from its call yet.
    #[must_use]
    pub fn answer(&self) -> Option<bool> {
        match self.answer.load(SeqCst) {
            NONE => None,
            answer => Some(answer == YES),
        }
    }

    /// Asks the calling worker, if its answer counts.
    fn listen(&self, wanted: &dyn Fn() -> bool) {
        if self.listens_to.load(SeqCst) == gettid() {
            self.answer.store(if wanted() { YES } else { NO }, SeqCst);
            self.listens_to.store(0, SeqCst);
        }
    }
}

// SAFETY: the inner provider keeps the rules. That a preemption gets lost does no harm, says
// `Provider::preempt`; and no rule promises a return of `wait` at a deadline, or a look at overdue
// work.
unsafe impl Provider for Unsliced {
    fn kind(&self) -> ProviderKind {
        self.inner.kind()
    }

    fn facts(&self) -> Facts {
        self.inner.facts()
    }

    unsafe fn register(&self, task: NonNull<UmcgTask>, how: &Register) -> Result<(), Error> {
        let mut how = how.clone();
        if let Some(overdue) = how.overdue.take() {
            let sliced = Arc::clone(&self.sliced);
            let only_then: Overdue =
                Arc::new(move || sliced.load(SeqCst).then(|| overdue()).flatten());
            how.overdue = Some(only_then);
        }
        if how.flags & REGISTER_WORKER == 0 {
            let free = self.servers.iter().find(|server| {
                let taken = server.tid.compare_exchange(0, gettid(), SeqCst, SeqCst);
                taken.is_ok()
            });
            assert!(free.is_some(), "at most {SERVERS} servers");
        }
        // SAFETY: the promise of the caller.
        unsafe { self.inner.register(task, &how) }
    }

    fn unregister(&self, task: NonNull<UmcgTask>) -> Result<(), Error> {
        self.inner.unregister(task)
    }

    fn wait(&self, deadline_ns: u64, flags: u32) -> Result<(), Error> {
        if let Some(server) = self.own() {
            server.deadline.store(deadline_ns, SeqCst);
        }
        let deadline = if self.is_sliced() { deadline_ns } else { 0 };
        self.inner.wait(deadline, flags)
    }

    fn preempt(&self, tid: u32) -> Result<(), Error> {
        if self.is_sliced() || self.inner.counters(tid).is_some() {
            return self.inner.preempt(tid);
        }
        Ok(())
    }

    fn is_leftover(&self, worker_tid: u32) -> bool {
        self.inner.is_leftover(worker_tid)
    }

    fn wake(&self, server_tid: u32) -> Result<(), Error> {
        self.inner.wake(server_tid)
    }

    fn checkpoint(&self) -> Result<(), Error> {
        self.inner.checkpoint()
    }

    fn try_checkpoint(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        self.listen(wanted);
        self.inner.try_checkpoint(wanted)
    }

    fn begin_block(&self, next_tid: u32) -> Result<bool, Error> {
        self.inner.begin_block(next_tid)
    }

    fn end_block(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        self.listen(wanted);
        self.inner.end_block(wanted)
    }

    fn disarm(&self, worker: &UmcgTask) -> Option<u32> {
        self.inner.disarm(worker)
    }

    fn current(&self, server_tid: u32) -> Option<u32> {
        self.inner.current(server_tid)
    }

    fn work_waiting(&self, server_tid: u32) {
        self.inner.work_waiting(server_tid);
    }

    fn counters(&self, server_tid: u32) -> Option<ServerCounters> {
        self.inner.counters(server_tid)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
