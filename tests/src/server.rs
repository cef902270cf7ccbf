//! The server loop of the mail: step by step for single scenarios, and as a whole for all others.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{Error, List, Provider, Register, UmcgTask, WAIT_TAKE_OVER, state};

use crate::{Harness, Record, Worker, in_ms, now_ns, record::Role};

/// How long a server of a test lets the holder of its slot run while others wait (trace A13).
const SLICE: Duration = Duration::from_millis(10);

/// The events of one drain, oldest first.
#[derive(Debug, Default)]
pub struct Drained {
    /// Workers that have blocked. This is information: the event may come late, may be merged with
    /// others, and may come after the worker is back.
    pub blocked: Vec<u32>,
    /// Workers that became runnable. Each entry is a token: it makes the server the owner of the
    /// worker.
    pub runnable: Vec<u32>,
    /// Workers that yielded to this server.
    pub offered: Vec<u32>,
}

/// The result of one pass through the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The switch to this worker was made, and the server is back.
    Switched(u32),
    /// There was no switch: an event came after the drain, or nobody was picked.
    NotSwitched,
    /// The deadline passed. The worker of this or of an earlier turn may still run.
    TimedOut,
    /// The picked worker could not be taken. It is back in the queue.
    Busy(u32),
    /// The thread of the picked worker has ended.
    Gone(u32),
}

/// Chooses which of the ready workers runs next. `None`: none of them.
pub type Policy = Box<dyn FnMut(&mut VecDeque<u32>) -> Option<u32>>;

/// A server on the calling thread.
pub struct Server {
    /// The test that this server belongs to.
    harness: Arc<Harness>,
    /// The task of this server. The harness keeps it until the end of the test.
    record: Arc<Record>,
    /// The workers that this server owns, because it has their tokens or because they yielded to
    /// it.
    pub ready: VecDeque<u32>,
    /// What each drain brought, in the order of processing.
    pub log: Vec<Drained>,
    /// Picks from `ready`.
    policy: Policy,
    /// How long a worker may keep the slot while others are ready.
    slice: Duration,
    /// Whether `wait` permits a take-over while nobody is ready.
    take_over: bool,
    /// What the provider is told about work outside of the lists.
    has_work: Arc<AtomicBool>,
    /// Whether `drop` has to unregister the server.
    registered: bool,
}

impl Server {
    /// Registers the calling thread as a server.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn start(harness: &Arc<Harness>) -> Self {
        Self::named(harness, "server")
    }

    /// The same, with a name for reports.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn named(harness: &Arc<Harness>, name: &str) -> Self {
        let record = harness.record(name, Role::Server);
        let has_work = Arc::new(AtomicBool::new(true));
        record.task.prepare(0);
        let asked = Arc::clone(&has_work);
        let how = Register::server(harness.under_test().placement)
            .has_work(Arc::new(move || asked.load(SeqCst)));
        let task = std::ptr::NonNull::from(&record.task);
        // SAFETY: the harness keeps the record until the end of the test, and `drop` unregisters
        // it.
        unsafe { harness.provider().register(task, &how) }.expect("register a server");
        assert_eq!(
            record.task.state(),
            state::RUNNING,
            "a server registers as RUNNING"
        );
        Self {
            harness: Arc::clone(harness),
            record,
            ready: VecDeque::new(),
            log: Vec::new(),
            policy: Box::new(VecDeque::pop_front),
            slice: SLICE,
            take_over: false,
            has_work,
            registered: true,
        }
    }

    /// The harness of this server's test.
    #[must_use]
    pub fn harness(&self) -> &Arc<Harness> {
        &self.harness
    }

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

    /// The provider under test.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn Provider> {
        self.harness.provider()
    }

    /// Replaces the policy, which is first come, first served.
    pub fn set_policy(&mut self, policy: impl FnMut(&mut VecDeque<u32>) -> Option<u32> + 'static) {
        self.policy = Box::new(policy);
    }

    /// Replaces the time slice of 10 ms.
    pub fn set_slice(&mut self, slice: Duration) {
        self.slice = slice;
    }

    /// Permits workers that unblock to take the slot over while no other worker waits to be picked
    /// (`WAIT_TAKE_OVER`). Not permitted at first.
    pub fn set_take_over(&mut self, permitted: bool) {
        self.take_over = permitted;
    }

    /// Sets what the server tells the provider about work outside of its lists. True at first, so
    /// that the provider looks for every block.
    pub fn set_has_work(&self, has_work: bool) {
        self.has_work.store(has_work, SeqCst);
    }

    /// The flag behind [`set_has_work`](Self::set_has_work), for a worker that queues work.
    #[must_use]
    pub fn work_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_work)
    }

    /// The first half of the loop: sets RUNNABLE, clears next_tid, takes both lists and processes
    /// them.
    ///
    /// # Panics
    /// If an event names an unknown task, or brings a second token for a worker.
    pub fn drain(&mut self) -> Drained {
        self.record.task.begin_drain();
        self.record.task.set_next_tid(0);
        // The runnable list is taken first, and the blocked list is processed first (trace A2).
        let runnable = self.record.task.take(List::Runnable);
        let blocked = self.record.task.take(List::Blocked);
        // After that, so that a worker which registers meanwhile is known before its first event
        // comes.
        let records = self.harness.records();
        let mut drained = Drained::default();
        for task in blocked {
            drained.blocked.push(known(&records, task).task.tid());
        }
        for task in runnable {
            drained.runnable.push(known(&records, task).task.tid());
        }
        drained.blocked.reverse();
        drained.runnable.reverse();
        for record in &records {
            if record.offered.load(SeqCst) == self.tid()
                && record
                    .offered
                    .compare_exchange(self.tid(), 0, SeqCst, SeqCst)
                    .is_ok()
            {
                drained.offered.push(record.task.tid());
            }
            if record.stranded.load(SeqCst)
                && record.task.server_tid() == self.tid()
                && record.task.state() == state::RUNNABLE
                && self.current().is_none()
                && record.stranded.swap(false, SeqCst)
            {
                drained.offered.push(record.task.tid());
            }
        }
        for &tid in drained.runnable.iter().chain(&drained.offered) {
            assert!(
                !self.ready.contains(&tid),
                "a second token for worker {tid}, which this server owns already"
            );
            self.ready.push_back(tid);
        }
        self.log.push(Drained {
            blocked: drained.blocked.clone(),
            runnable: drained.runnable.clone(),
            offered: drained.offered.clone(),
        });
        drained
    }

    /// The second half: names `next` (0 for nobody) and waits. Asserts what every return of `wait`
    /// promises.
    ///
    /// # Errors
    /// Those of `wait`.
    ///
    /// # Panics
    /// If the server is not RUNNING afterwards, or if an error has changed `next_tid`.
    #[track_caller]
    pub fn wait(&self, next: u32, deadline_ns: u64) -> Result<(), Error> {
        self.task().set_next_tid(next);
        let flags = if self.take_over && self.ready.is_empty() {
            WAIT_TAKE_OVER
        } else {
            0
        };
        let result = self.provider().wait(deadline_ns, flags);
        self.record.turns.fetch_add(1, SeqCst);
        assert_eq!(
            self.task().state(),
            state::RUNNING,
            "a server is RUNNING when wait returns ({result:?})"
        );
        let left = self.task().next_tid();
        match result {
            Err(error) if !error.is_timeout() => {
                assert_eq!(left, next, "an error leaves next_tid alone: {error}");
            }
            _ => assert!(
                left == next || left == 0,
                "next_tid must be unchanged or cleared: it is {left} and was {next}"
            ),
        }
        result
    }

    /// Dispatches a worker that the caller owns, without a drain. Returns when `wait` does: after
    /// the switch, or with an error. Tries again if an event came in between.
    ///
    /// # Errors
    /// Those of `wait`.
    ///
    /// # Panics
    /// As [`wait`](Self::wait), or if there is no result in a thousand rounds.
    #[track_caller]
    pub fn dispatch(&self, next: u32, deadline_ns: u64) -> Result<(), Error> {
        for _ in 0..1000 {
            self.task().begin_drain();
            let result = self.wait(next, deadline_ns);
            if result.is_err() || self.task().next_tid() == 0 {
                return result;
            }
        }
        panic!("a thousand waits for {next} had no result");
    }

    /// Drains and waits until `wait` returns an error or has switched, and not only because an
    /// event came in between. The server keeps what the drains bring.
    ///
    /// # Errors
    /// Those of `wait`.
    ///
    /// # Panics
    /// As [`wait`](Self::wait), or if there is no result in a thousand rounds.
    #[track_caller]
    pub fn insist(&mut self, next: u32, deadline_ns: u64) -> Result<(), Error> {
        for _ in 0..1000 {
            self.drain();
            let result = self.wait(next, deadline_ns);
            if result.is_err() || next != 0 && self.task().next_tid() == 0 {
                return result;
            }
        }
        panic!("a thousand waits for {next} had no result");
    }

    /// Drains, picks a worker and waits.
    ///
    /// # Panics
    /// If `wait` fails in a way that a correct loop cannot meet.
    #[track_caller]
    pub fn turn(&mut self, deadline_ns: u64) -> Turn {
        let drained = self.drain();
        self.turn_from(&drained, deadline_ns)
    }

    /// Picks a worker and waits, after a drain.
    ///
    /// # Panics
    /// As [`turn`](Self::turn).
    #[track_caller]
    pub fn turn_from(&mut self, _drained: &Drained, deadline_ns: u64) -> Turn {
        let pick = (self.policy)(&mut self.ready);
        let result = self.wait(pick.unwrap_or(0), deadline_ns);
        let left = self.task().next_tid();
        let Some(tid) = pick else {
            return match result {
                Ok(()) => Turn::NotSwitched,
                Err(error) if error.is_timeout() => Turn::TimedOut,
                Err(error) => panic!("wait with nothing picked: {error}"),
            };
        };
        if left == tid {
            // There was no switch: the pick is not lost.
            self.ready.push_front(tid);
        }
        match result {
            Ok(()) if left == 0 => Turn::Switched(tid),
            Ok(()) => Turn::NotSwitched,
            Err(error) if error.is_timeout() => Turn::TimedOut,
            Err(error) if error.is_busy() => Turn::Busy(tid),
            Err(error) if error.is_gone() => {
                self.ready.retain(|&other| other != tid);
                Turn::Gone(tid)
            }
            Err(error) => panic!("wait for {tid}: {error}"),
        }
    }

    /// The worker that holds the slot.
    #[must_use]
    pub fn current(&self) -> Option<u32> {
        self.provider().current(self.tid())
    }

    /// Preempts the worker that holds the slot, if there is one.
    pub fn preempt_current(&self) {
        if let Some(tid) = self.current() {
            // ESRCH: the worker has exited meanwhile.
            let _ = self.provider().preempt(tid);
        }
    }

    /// Preempts this worker until it is out of the slot. The first preemption may be lost, because
    /// a worker that has not quite begun to run is left alone.
    ///
    /// # Panics
    /// If it takes longer than the time limit.
    #[track_caller]
    pub fn preempt(&self, worker: &Worker) {
        self.harness.until("it is out of the slot", || {
            self.provider()
                .preempt(worker.tid())
                .expect("preempt a worker");
            self.current() != Some(worker.tid())
        });
    }

    /// One turn of the loop, with its time slice.
    #[track_caller]
    pub fn step(&mut self) -> Turn {
        let slice = self.slice.as_millis().max(1) as u64;
        let turn = self.turn(in_ms(slice));
        match turn {
            Turn::TimedOut if !self.ready.is_empty() => self.preempt_current(),
            Turn::Busy(_) => {
                self.preempt_current();
                // The holder may be on its way out of the slot: give it the CPU.
                std::thread::yield_now();
            }
            _ => {}
        }
        turn
    }

    /// Runs the loop until the condition holds, which is checked once for each turn.
    ///
    /// # Panics
    /// If the condition does not hold within the time limit, or if another thread of the test
    /// failed.
    #[track_caller]
    pub fn run_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let end = self.harness.deadline();
        while !condition(self) {
            self.harness.check();
            assert!(
                std::time::Instant::now() < end,
                "time limit in the server loop, waiting for: {what}"
            );
            self.step();
        }
    }

    /// Runs the loop until this worker sleeps in the kernel and was reported as blocked.
    ///
    /// # Panics
    /// As [`run_until`](Self::run_until).
    #[track_caller]
    pub fn run_until_blocked(&mut self, worker: &Worker) {
        let what = format!("{} blocks", worker.name());
        self.run_until(&what, |_| worker.is_blocked());
    }

    /// Runs the loop until this worker waits in the test's pool, and takes it out of there: the
    /// caller owns it.
    ///
    /// # Panics
    /// As [`run_until`](Self::run_until).
    #[track_caller]
    pub fn run_until_parked(&mut self, worker: &Worker) {
        let what = format!("{} waits in the pool", worker.name());
        self.run_until(&what, |_| worker.unpark());
    }

    /// Runs the loop without any deadline until the bodies of these workers are done, so that a
    /// lost wake-up hangs. Then runs it until they have exited.
    ///
    /// # Panics
    /// If another thread of the test failed.
    #[track_caller]
    pub fn run_without_deadline(&mut self, workers: &[&Worker]) {
        while !workers.iter().all(|worker| worker.finishing()) {
            self.harness.check();
            self.turn(0);
        }
        self.run_to_exit(workers);
    }

    /// Runs the loop until these workers have exited.
    ///
    /// # Panics
    /// As [`run_until`](Self::run_until).
    #[track_caller]
    pub fn run_to_exit(&mut self, workers: &[&Worker]) {
        self.run_until("the workers' exit", |_| {
            workers.iter().all(|worker| worker.exited())
        });
    }

    /// Whether this server owns the worker.
    #[must_use]
    pub fn owns(&self, worker: &Worker) -> bool {
        self.ready.contains(&worker.tid())
    }

    /// Drains until the server owns the worker, and runs nobody. The server does not idle
    /// meanwhile: where the stop is not exact, an unblocked worker may take the slot of an idle
    /// server by itself, without a token.
    ///
    /// # Panics
    /// If it takes longer than the time limit.
    #[track_caller]
    pub fn collect(&mut self, worker: &Worker) {
        let harness = Arc::clone(&self.harness);
        harness.until(&format!("the token of {}", worker.name()), || {
            self.drain();
            self.owns(worker)
        });
    }

    /// Waits until no worker holds the slot, outside of the protocol: the server stays awake.
    ///
    /// # Panics
    /// If it takes longer than the time limit.
    #[track_caller]
    pub fn until_slot_is_free(&self) {
        self.harness
            .until("the slot is free", || self.current().is_none());
    }

    /// Sleeps in `wait` without a deadline until no worker holds the slot. Hangs if nobody wakes
    /// the server.
    ///
    /// This is for the time after a [`dispatch`](Self::dispatch), whose wait may have ended early:
    /// the wake-up for an event before it, for example for the worker's own admission, may come
    /// late.
    ///
    /// # Panics
    /// If `wait` fails.
    #[track_caller]
    pub fn sleep_until_slot_is_free(&self) {
        while self.current().is_some() {
            self.task().begin_drain();
            self.wait(0, 0).expect("a wait behind a worker");
        }
    }

    /// Takes a worker out of the queue of this server: the caller owns it now.
    ///
    /// # Panics
    /// If the server does not own it.
    pub fn remove(&mut self, worker: &Worker) -> u32 {
        let tid = worker.tid();
        let place = self.ready.iter().position(|&other| other == tid);
        let place = place.unwrap_or_else(|| panic!("the server does not own {}", worker.name()));
        self.ready.remove(place).expect("a place in the queue")
    }

    /// Dispatches this worker, which the server owns, and stays awake beside it. When this returns,
    /// the worker holds the slot, the server is RUNNING, and both lists are empty. The body of the
    /// worker must not leave the slot by itself.
    ///
    /// # Panics
    /// If that does not come about within the time limit.
    #[track_caller]
    pub fn hold(&mut self, worker: &Worker) {
        let end = self.harness.deadline();
        loop {
            self.harness.check();
            assert!(
                std::time::Instant::now() < end,
                "time limit, trying to hold {}",
                worker.name()
            );
            self.collect(worker);
            let tid = self.remove(worker);
            self.task().begin_drain();
            // Short, so that it also succeeds between two injected verdicts.
            let _ = self.wait(tid, now_ns() + 300_000);
            if self.task().next_tid() == tid {
                self.ready.push_front(tid);
                continue;
            }
            while self.current() == Some(tid) {
                self.harness.check();
                let word = worker.task().state_word().load(SeqCst) & !state::USER_MASK;
                if self.task().has_events(List::Blocked) || self.task().has_events(List::Runnable) {
                    self.drain();
                    let _ = self.task().transition(state::RUNNABLE, state::RUNNING);
                } else if word == state::RUNNING {
                    return;
                }
                // It has the slot, and has not come through its gate yet.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// The same as [`hold`](Self::hold), and the worker has come to `step`, after which it makes no
    /// call. From then on it does not carry out a verdict. Its body begins with
    /// [`Me::until_alone`](crate::Me::until_alone).
    ///
    /// # Panics
    /// As [`hold`](Self::hold).
    #[track_caller]
    pub fn hold_alone(&mut self, worker: &Worker, alone: &AtomicBool, step: u32) {
        loop {
            self.hold(worker);
            alone.store(true, SeqCst);
            let harness = Arc::clone(&self.harness);
            harness.until(
                "the worker comes to the step, or is judged before it",
                || worker.reached(step) || self.task().has_events(List::Runnable),
            );
            if worker.reached(step) {
                return;
            }
            // The worker has queued itself, and sleeps in its gate.
            alone.store(false, SeqCst);
        }
    }

    /// Lets the thread end without unregistering.
    pub fn forget(mut self) {
        self.registered = false;
    }

    /// Ends the server: unregisters it.
    ///
    /// # Panics
    /// If that fails.
    pub fn finish(mut self) {
        self.registered = false;
        // It may have drained without having waited.
        let _ = self.task().transition(state::RUNNABLE, state::RUNNING);
        self.provider()
            .unregister(std::ptr::NonNull::from(&self.record.task))
            .expect("unregister a server");
        assert_eq!(self.task().state(), state::NONE);
        self.record.exited.store(true, SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.registered {
            // The test ends early: release the workers.
            if std::thread::panicking() {
                eprintln!("{}", self.harness.report());
            }
            let _ = self.task().transition(state::RUNNABLE, state::RUNNING);
            let _ = self
                .provider()
                .unregister(std::ptr::NonNull::from(&self.record.task));
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("record", &self.record)
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

/// The record of the task that an event names.
fn known(records: &[Arc<Record>], task: std::ptr::NonNull<UmcgTask>) -> &Record {
    records
        .iter()
        .find(|record| std::ptr::eq(&raw const record.task, task.as_ptr()))
        .unwrap_or_else(|| panic!("an event names an unknown task: {task:?}"))
}
