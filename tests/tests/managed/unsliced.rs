//! A provider without time slices, for scenes in which a worker has to keep its slot until the test
//! has seen the others queue up.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering::SeqCst},
    },
};

use umcg_sys::{
    Error, Facts, Provider, ProviderChoice, ProviderKind, REGISTER_WORKER, Register,
    ServerCounters, UmcgTask, gettid, select,
};
use umcg_tests::{eventually, proc, threads};

/// The provider that the runtime would have chosen, except for this:
///
/// * No worker is preempted, so a worker that computes keeps its slot.
/// * A server that sleeps behind a worker has no deadline, and is not told that work is overdue. It
///   wakes up for an event, or when the test wakes it, so nobody but the workers themselves
///   decides to whom they hand the slot.
/// * What one worker answers when the provider asks whether it may take a slot that is free is
///   written down ([`listen_to`](Self::listen_to)).
#[derive(Debug)]
pub(crate) struct Unsliced {
    /// Does all the rest.
    inner: Arc<dyn Provider>,
    /// The server that registered last.
    server: AtomicU32,
    /// The worker whose next answer counts; 0 for none.
    listens_to: AtomicU32,
    /// Its answer: one of the constants below.
    answer: AtomicU8,
}

/// Not asked yet.
const NONE: u8 = 0;
/// It may not take the slot.
const NO: u8 = 1;
/// It may take the slot.
const YES: u8 = 2;

impl Unsliced {
    pub(crate) fn new() -> Arc<Self> {
        let choice = ProviderChoice::from_env().expect("a provider that exists");
        let selected = select(choice.unwrap_or_default()).expect("a provider");
        Arc::new(Self {
            inner: selected.provider,
            server: AtomicU32::new(0),
            listens_to: AtomicU32::new(0),
            answer: AtomicU8::new(NONE),
        })
    }

    /// Has the server take in the workers that wait, while another one keeps the slot.
    pub(crate) fn wake_server(&self) {
        let tid = self.server.load(SeqCst);
        eventually("the server sleeps", || proc::asleep(tid));
        let before = threads::look(tid);
        self.inner.wake(tid).expect("the server lives");
        eventually("the server has woken up, and sleeps again", || {
            proc::asleep(tid) && threads::look(tid) != before
        });
    }

    /// Writes down what this worker answers next.
    pub(crate) fn listen_to(&self, worker: u32) {
        self.answer.store(NONE, SeqCst);
        self.listens_to.store(worker, SeqCst);
    }

    /// The answer of the worker: whether it may take a slot that is free. `None`: it has not come
    /// back from its call yet.
    pub(crate) fn answer(&self) -> Option<bool> {
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
        how.overdue = None;
        if how.flags & REGISTER_WORKER == 0 {
            self.server.store(gettid(), SeqCst);
        }
        // SAFETY: the promise of the caller.
        unsafe { self.inner.register(task, &how) }
    }

    fn unregister(&self, task: NonNull<UmcgTask>) -> Result<(), Error> {
        self.inner.unregister(task)
    }

    fn wait(&self, _deadline_ns: u64, flags: u32) -> Result<(), Error> {
        // The deadline of a slice, or that of an idle worker that is to leave some seconds later.
        self.inner.wait(0, flags)
    }

    fn preempt(&self, tid: u32) -> Result<(), Error> {
        if self.inner.counters(tid).is_some() {
            // A server, which is to be woken.
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
