//! One test on one subject: its threads, its tasks, its time limit.

use std::{
    any::Any,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use umcg_sys::Provider;

use crate::{Record, Subject, record::Role, subjects};

/// After this a test hangs: the words are printed and the process is aborted.
/// `UMCG_TESTS_LIMIT` overrides it, in seconds.
const LIMIT: Duration = Duration::from_secs(90);

fn limit() -> Duration {
    std::env::var("UMCG_TESTS_LIMIT")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(LIMIT, Duration::from_secs)
}

/// Runs `body` once for each subject, on a thread of its own, watched.
///
/// # Panics
/// If the body, or a thread that it made on its stage, panicked.
pub fn on_each<F>(body: F)
where
    F: Fn(&Arc<Stage>) + Send + Sync + 'static,
{
    let body = Arc::new(body);
    for subject in subjects() {
        run(subject, Arc::clone(&body));
    }
}

fn run<F>(subject: Subject, body: Arc<F>)
where
    F: Fn(&Arc<Stage>) + Send + Sync + 'static,
{
    let stage = Arc::new(Stage::new(subject));
    let on_stage = Arc::clone(&stage);
    // The name of the test, by which a skipped one is known.
    let name = thread::current().name().unwrap_or("stage").to_owned();
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
            body(&on_stage);
            on_stage.join_all();
        })
        .expect("a thread for the test");
    let end = Instant::now() + stage.limit;
    while !thread.is_finished() {
        if Instant::now() > end {
            eprintln!("HANG after {:?} on {}", stage.limit, stage.subject.name);
            stage.dump();
            std::process::abort();
        }
        thread::sleep(Duration::from_millis(1));
    }
    if let Err(panic) = thread.join() {
        eprintln!("on {}", stage.subject.name);
        panic::resume_unwind(panic);
    }
    stage.check();
}

/// One test on one subject.
pub struct Stage {
    subject: Subject,
    limit: Duration,
    /// Kept to the end of the test, so that no event ever names freed memory.
    records: Mutex<Vec<Arc<Record>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
}

impl Stage {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            limit: limit(),
            records: Mutex::default(),
            threads: Mutex::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    /// When a wait for a condition gives up: before the watchdog does, so that the message
    /// names what was waited for.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.limit / 3
    }

    /// Who is tested.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The provider that is tested.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.subject.provider
    }

    /// A new record, known to the watchdog and to the servers of this stage.
    #[must_use]
    pub fn record(&self, name: &str, role: Role) -> Arc<Record> {
        let record = Arc::new(Record::new(name, role));
        lock(&self.records).push(Arc::clone(&record));
        record
    }

    /// All records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Record>> {
        lock(&self.records).clone()
    }

    /// The record of that thread.
    #[must_use]
    pub fn by_tid(&self, tid: u32) -> Option<Arc<Record>> {
        lock(&self.records)
            .iter()
            .rev()
            .find(|record| record.task.tid() == tid)
            .cloned()
    }

    /// A thread whose panic fails the test and which is joined at its end.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn thread(&self, name: &str, body: impl FnOnce() + Send + 'static) {
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .expect("a thread for the test");
        lock(&self.threads).push(thread);
    }

    /// Runs `body`, and keeps its panic as the failure of the test.
    pub fn guarded(&self, who: &str, body: impl FnOnce()) {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(body)) {
            let text = message(payload.as_ref());
            lock(&self.failure).get_or_insert(format!("{who}: {text}"));
            self.failed.store(true, SeqCst);
        }
    }

    /// Fails the test if one of its threads did.
    ///
    /// # Panics
    /// Then.
    #[track_caller]
    pub fn check(&self) {
        if self.failed.load(SeqCst) {
            let failure = lock(&self.failure).clone();
            panic!("{}", failure.unwrap_or_default());
        }
    }

    /// Waits for a condition, off the protocol: asleep in small naps. For servers that are
    /// awake and for threads that are no tasks.
    ///
    /// # Panics
    /// If it takes longer than a test may take.
    #[track_caller]
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let end = self.deadline();
        while !condition() {
            self.check();
            assert!(Instant::now() < end, "time limit while waiting for: {what}");
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// Tries a scenario until it goes through undisturbed: `true` = it did, and it held;
    /// `false` = a verdict of the provider came in between, try again.
    ///
    /// With injected faults it may be that none goes through, and each takes long; then it is
    /// given up after a sixth of the time limit, and that is said.
    ///
    /// # Panics
    /// If none of 200 attempts went through, without injected faults.
    #[track_caller]
    pub fn attempt(&self, what: &str, mut scenario: impl FnMut() -> bool) {
        let faults = std::env::var_os("UMCG_FAULT").is_some();
        let end = Instant::now() + self.limit / 6;
        let mut attempts = 0;
        while attempts < 200 && !(faults && Instant::now() > end) {
            self.check();
            if scenario() {
                return;
            }
            attempts += 1;
        }
        assert!(faults, "not one undisturbed attempt in {attempts}: {what}");
        eprintln!("SKIPPED: not one undisturbed attempt in {attempts}: {what}");
    }

    /// How often the provider took a worker out of that server's slot, or put one in by
    /// itself. Unchanged = the slot was left alone.
    #[must_use]
    pub fn disturbances(&self, server_tid: u32) -> u64 {
        let count = self
            .provider()
            .counters(server_tid)
            .expect("counters of a registered server");
        count.blocks_kernel
            + count.blocks_sentinel
            + count.blocks_monitor
            + count.preempted
            + count.adopted
            + count.self_dispatched
    }

    /// Joins the threads of the stage.
    pub fn join_all(&self) {
        loop {
            let Some(thread) = lock(&self.threads).pop() else {
                return;
            };
            let name = thread.thread().name().map(str::to_owned);
            if let Err(payload) = thread.join() {
                let text = message(payload.as_ref());
                lock(&self.failure)
                    .get_or_insert(format!("thread {}: {text}", name.unwrap_or_default()));
                self.failed.store(true, SeqCst);
            }
        }
    }

    /// Prints every task's words and what its thread does.
    pub fn dump(&self) {
        eprintln!("{}", self.provider().describe());
        for record in self.records() {
            eprintln!("  {record:?}");
            if record.role == Role::Server {
                eprintln!("    {:?}", self.provider().counters(record.task.tid()));
            }
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        })
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
