//! A worker thread, and what its body may do.

use std::{
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use umcg_sys::{Error, Provider, Register, UmcgTask, state};

use crate::{
    Harness, Record,
    blockers::Futex,
    record::{PENDING, Role},
};

/// A worker as the rest of the test sees it.
#[derive(Clone)]
pub struct Worker {
    /// The task of this worker, shared with its thread.
    record: Arc<Record>,
}

impl Harness {
    /// Starts a thread that registers as a worker of `server_tid`, runs `body` when it is admitted,
    /// and unregisters. Returns when the tid is known, which is before the thread registers.
    ///
    /// If the admission fails, the body does not run; see [`Worker::admission`].
    pub fn worker(
        self: &Arc<Self>,
        name: &str,
        server_tid: u32,
        body: impl FnOnce(&Me) + Send + 'static,
    ) -> Worker {
        self.spawn_worker(name, server_tid, |me| {
            body(me);
            me.record.finishing.store(true, SeqCst);
            me.unregister();
        })
    }

    /// A worker that sleeps in the kernel until `data` is set.
    pub fn sleeper(self: &Arc<Self>, name: &str, server_tid: u32, data: &Futex) -> Worker {
        let data = data.clone();
        self.worker(name, server_tid, move |me| me.blocking(|| data.wait()))
    }

    /// A worker that comes to step 1 and then computes until `stop` is set, with checkpoints.
    pub fn spinner(
        self: &Arc<Self>,
        name: &str,
        server_tid: u32,
        stop: &Arc<AtomicBool>,
    ) -> Worker {
        let stop = Arc::clone(stop);
        self.worker(name, server_tid, move |me| {
            me.step(1);
            me.spin_until(|| stop.load(SeqCst));
        })
    }

    /// As [`worker`](Self::worker), but the thread ends without unregistering.
    pub fn worker_that_just_ends(
        self: &Arc<Self>,
        name: &str,
        server_tid: u32,
        body: impl FnOnce(&Me) + Send + 'static,
    ) -> Worker {
        self.spawn_worker(name, server_tid, body)
    }

    fn spawn_worker(
        self: &Arc<Self>,
        name: &str,
        server_tid: u32,
        body: impl FnOnce(&Me) + Send + 'static,
    ) -> Worker {
        let record = self.record(name, Role::Worker);
        let me = Me {
            harness: Arc::clone(self),
            record: Arc::clone(&record),
        };
        let (send, receive) = mpsc::channel();
        self.thread(name, move || {
            me.record.task.prepare(server_tid);
            send.send(()).expect("the test waits for the tid");
            drop(send);
            let harness = Arc::clone(&me.harness);
            harness.guarded(&me.record.name, || {
                let task = NonNull::from(&me.record.task);
                // SAFETY: the harness keeps the record until the end of the test.
                match unsafe { me.provider().register(task, &Register::worker()) } {
                    Ok(()) => {
                        me.record.admission.store(0, SeqCst);
                        body(&me);
                    }
                    Err(error) => me.record.admission.store(error.errno(), SeqCst),
                }
            });
            me.record.exited.store(true, SeqCst);
        });
        receive.recv().expect("the worker's tid");
        Worker { record }
    }
}

impl Worker {
    /// Its record.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Its task.
    #[must_use]
    pub fn task(&self) -> &UmcgTask {
        &self.record.task
    }

    /// Its thread id.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.record.task.tid()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its state: bits 0 to 7 of its word.
    #[must_use]
    pub fn state(&self) -> u32 {
        self.record.task.state()
    }

    /// Whether the body has come to this step.
    #[must_use]
    pub fn reached(&self, step: u32) -> bool {
        self.step() >= step
    }

    /// The last step that the body has come to.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.record.step.load(SeqCst)
    }

    /// Whether its thread is an ordinary thread again, or has ended.
    #[must_use]
    pub fn exited(&self) -> bool {
        self.record.exited.load(SeqCst)
    }

    /// Whether its body is done. This is set before `unregister`, which wakes the server, so that a
    /// loop without deadlines can end by it. [`exited`](Self::exited) is set after the wake-up.
    #[must_use]
    pub fn finishing(&self) -> bool {
        self.record.finishing.load(SeqCst)
    }

    /// The answer of `register`: `None` if there is none yet, 0 if the worker was admitted, or the
    /// errno.
    #[must_use]
    pub fn admission(&self) -> Option<i32> {
        match self.record.admission.load(SeqCst) {
            PENDING => None,
            answer => Some(answer),
        }
    }

    /// Whether its thread sleeps in the kernel.
    #[must_use]
    pub fn asleep(&self) -> bool {
        crate::proc::asleep(self.tid())
    }

    /// Whether it sleeps in the kernel and was reported as blocked.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.state() == state::BLOCKED && self.asleep()
    }

    /// Takes the worker out of the test's pool. True if it was there: the caller then owns it.
    #[must_use]
    pub fn unpark(&self) -> bool {
        self.record.parked.swap(false, SeqCst)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// A worker as its own body sees it.
pub struct Me {
    /// The test that this worker belongs to.
    harness: Arc<Harness>,
    /// The task of this worker, shared with the rest of the test.
    record: Arc<Record>,
}

impl Me {
    /// The harness.
    #[must_use]
    pub fn harness(&self) -> &Arc<Harness> {
        &self.harness
    }

    /// The provider under test.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn Provider> {
        self.harness.provider()
    }

    /// The task of this worker.
    #[must_use]
    pub fn task(&self) -> &UmcgTask {
        &self.record.task
    }

    /// The record of this worker.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Tells the test that the body has come to this step.
    pub fn step(&self, step: u32) {
        self.record.step.fetch_max(step, SeqCst);
    }

    /// Must be called after everything that may have blocked.
    ///
    /// # Panics
    /// If the provider refuses, or lets the worker pass in a state that is not RUNNING.
    #[track_caller]
    pub fn checkpoint(&self) {
        self.provider().checkpoint().expect("checkpoint");
        self.assert_passed("checkpoint");
    }

    /// Asserts what must hold after a call that returns only to the holder of a slot: the state is
    /// RUNNING, or the worker was judged since, rightly or wrongly. RUNNABLE and NONE are always
    /// wrong.
    ///
    /// # Panics
    /// If so.
    #[track_caller]
    pub fn assert_passed(&self, call: &str) {
        let word = self.task().state_word().load(SeqCst);
        let judged =
            !self.provider().facts().exact_stop && word & state::STATE_MASK == state::BLOCKED;
        assert!(
            word & state::STATE_MASK == state::RUNNING || judged,
            "after {call} the caller is {} ({word:#x})",
            state::name(word)
        );
    }

    /// Leaves RUNNING. Makes a checkpoint first as long as the worker is judged in between (trace
    /// A8).
    #[track_caller]
    pub fn leave(&self) {
        while !self.task().leave() {
            self.checkpoint();
        }
    }

    /// An explicit wait, after `leave` and after the worker has made itself visible to others.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn wait(&self) {
        self.provider().wait(0, 0).expect("wait of a worker");
        self.assert_passed("wait");
    }

    /// Gives the slot back to the server, and offers itself to it.
    #[track_caller]
    pub fn yield_now(&self) {
        self.leave();
        let server = self.task().server_tid();
        self.record.offered.store(server, SeqCst);
        self.wait();
    }

    /// Gives the slot back to the server and waits in the test's pool until [`Worker::unpark`].
    #[track_caller]
    pub fn park(&self) {
        self.leave();
        self.record.parked.store(true, SeqCst);
        self.wait();
    }

    /// Gives the slot to another worker, which the caller owns, and offers itself to the server.
    ///
    /// If there was no switch, because the server picked the caller before it came to `wait`, the
    /// other worker is offered to the server as well.
    ///
    /// # Panics
    /// If no task of this test has that tid.
    #[track_caller]
    pub fn switch_to(&self, other: u32) {
        let record = self.harness.by_tid(other).expect("a worker of this test");
        self.leave();
        self.task().set_next_tid(other);
        let server = self.task().server_tid();
        self.record.offered.store(server, SeqCst);
        self.wait();
        if self.task().clear_next_tid(other) {
            record.offered.store(server, SeqCst);
        }
    }

    /// Makes a call that may block, and the checkpoint after it.
    #[track_caller]
    pub fn blocking<T>(&self, call: impl FnOnce() -> T) -> T {
        let value = call();
        self.checkpoint();
        value
    }

    /// Sleeps in the kernel, and makes the checkpoint after it.
    #[track_caller]
    pub fn sleep(&self, time: Duration) {
        self.blocking(|| std::thread::sleep(time));
    }

    /// Computes until the condition holds, with a checkpoint and a `sched_yield` now and then.
    ///
    /// # Panics
    /// If it does not hold within the time limit.
    #[track_caller]
    pub fn spin_until(&self, mut condition: impl FnMut() -> bool) {
        let end = self.harness.deadline();
        while !condition() {
            for _ in 0..200 {
                std::hint::spin_loop();
            }
            std::thread::yield_now();
            assert!(Instant::now() < end, "time limit in a spinning worker");
            self.checkpoint();
        }
    }

    /// Computes until `alone` is set, and then comes to `step`: the counterpart of
    /// [`Server::hold_alone`](crate::Server::hold_alone).
    #[track_caller]
    pub fn until_alone(&self, alone: &AtomicBool, step: u32) {
        self.spin_until(|| alone.load(SeqCst));
        self.step(step);
    }

    /// Makes a call that is expected to fail, as the RUNNING holder of a slot. Repeats it if a
    /// verdict came in between, and asserts the state after it.
    ///
    /// # Panics
    /// If the caller is left in a state that is not RUNNING.
    #[track_caller]
    pub fn failing(
        &self,
        what: &str,
        mut call: impl FnMut(&dyn Provider) -> Result<(), Error>,
    ) -> Error {
        loop {
            self.checkpoint();
            let result = call(self.provider().as_ref());
            let judged = self.task().state() == state::BLOCKED;
            self.assert_passed(what);
            match result {
                Err(_) if judged && !self.provider().facts().exact_stop => {}
                Err(error) => return error,
                Ok(()) => panic!("{what} succeeded"),
            }
        }
    }

    /// Makes an explicit wait that is expected to fail, after leaving RUNNING. The error must leave
    /// `next_tid` unchanged; it is 0 afterwards.
    ///
    /// # Panics
    /// If the wait succeeds, changes `next_tid`, or leaves the caller in a wrong state.
    #[track_caller]
    pub fn failing_wait(&self, what: &str, next: u32, deadline_ns: u64, flags: u32) -> Error {
        loop {
            self.leave();
            self.task().set_next_tid(next);
            self.record.stranded.store(true, SeqCst);
            let result = self.provider().wait(deadline_ns, flags);
            let picked = !self.record.stranded.swap(false, SeqCst);
            self.assert_passed(what);
            let left = self.task().next_tid();
            self.task().set_next_tid(0);
            match result {
                // It was judged before the call, slept like any worker without a slot, and was
                // picked. That is not what is tested here.
                Ok(()) if picked && !self.provider().facts().exact_stop => {}
                Ok(()) => panic!("{what} succeeded"),
                Err(error) => {
                    assert_eq!(left, next, "{what}: next_tid has changed");
                    return error;
                }
            }
        }
    }

    /// Ends the worker: its thread is an ordinary thread from here on.
    ///
    /// # Panics
    /// If the provider refuses a RUNNING worker.
    #[track_caller]
    pub fn unregister(&self) {
        loop {
            self.checkpoint();
            match self.provider().unregister(NonNull::from(&self.record.task)) {
                Ok(()) => break,
                // It was judged after the checkpoint.
                Err(error) if error.is_busy() => {}
                Err(error) => panic!("unregister a worker: {error}"),
            }
        }
        assert_eq!(self.task().state(), state::NONE, "NONE after unregister");
    }
}

impl fmt::Debug for Me {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}
