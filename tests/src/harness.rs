//! One test on one provider: its threads, its tasks and its time limit.

use std::{
    any::Any,
    fmt,
    io::{self, Write},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use umcg_sys::Provider;

use crate::{
    ProviderUnderTest, Record, providers_under_test, record::Role, thread_report, watchdog::poll,
    wrong_verdicts,
};

/// The time limit of a test on one provider. After it the words of all tasks are printed, and the
/// process is aborted. `UMCG_TESTS_LIMIT` overrides the limit, in seconds.
const LIMIT: Duration = Duration::from_secs(90);

fn limit() -> Duration {
    std::env::var("UMCG_TESTS_LIMIT")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(LIMIT, Duration::from_secs)
}

/// Runs `body` once for each provider under test, on a thread of its own and with a time limit.
///
/// # Panics
/// If the body panicked, or a thread that it has started with [`Harness::thread`].
pub fn for_each_provider<F>(body: F)
where
    F: Fn(&Arc<Harness>) + Send + Sync + 'static,
{
    let body = Arc::new(body);
    for provider in providers_under_test() {
        run(provider, Arc::clone(&body));
    }
}

fn run<F>(provider: ProviderUnderTest, body: Arc<F>)
where
    F: Fn(&Arc<Harness>) + Send + Sync + 'static,
{
    let harness = Arc::new(Harness::new(provider));
    let for_body = Arc::clone(&harness);
    // `skip!` finds the name of the test in the name of its thread.
    let name = thread::current().name().unwrap_or("test").to_owned();
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
            body(&for_body);
            for_body.join_all();
        })
        .expect("a thread for the test");
    if poll(harness.limit, || thread.is_finished().then_some(())).is_none() {
        // Not `eprintln!`: what that prints is captured, and would be lost in the abort.
        let _ = writeln!(
            io::stderr(),
            "HANG after {:?} on {}\n{}\n{}",
            harness.limit,
            harness.under_test.name,
            harness.report(),
            thread_report::of_process(std::process::id())
        );
        std::process::abort();
    }
    if let Err(panic) = thread.join() {
        eprintln!("on {}", harness.under_test.name);
        panic::resume_unwind(panic);
    }
    harness.check();
}

/// One test on one provider.
pub struct Harness {
    /// The provider of this test, and how its servers are placed.
    under_test: ProviderUnderTest,
    /// The time limit of the test.
    limit: Duration,
    /// All tasks of the test. They live until its end, so that no event names freed memory.
    records: Mutex<Vec<Arc<Record>>>,
    /// The threads that [`join_all`](Self::join_all) still has to join.
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether `failure` is set.
    failed: AtomicBool,
    /// The message of the first thread that panicked.
    failure: Mutex<Option<String>>,
}

impl Harness {
    fn new(under_test: ProviderUnderTest) -> Self {
        Self {
            under_test,
            limit: limit(),
            records: Mutex::default(),
            threads: Mutex::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    /// The time limit of a wait for one condition. It is shorter than that of the test, so that the
    /// message names the condition.
    fn limit_of_a_wait(&self) -> Duration {
        self.limit / 3
    }

    /// When a wait that begins now has to give up.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.limit_of_a_wait()
    }

    /// The provider under test, and the placement of its servers.
    #[must_use]
    pub fn under_test(&self) -> &ProviderUnderTest {
        &self.under_test
    }

    /// The provider under test.
    #[must_use]
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.under_test.provider
    }

    /// A new record, known to the servers of this test and to the report of a hang.
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

    /// The record of the thread with this tid.
    #[must_use]
    pub fn by_tid(&self, tid: u32) -> Option<Arc<Record>> {
        lock(&self.records)
            .iter()
            .rev()
            .find(|record| record.task.tid() == tid)
            .cloned()
    }

    /// Starts a thread. The test joins it at its end, and fails if it panics.
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

    /// Runs `body`. If it panics, the test fails at its next [`check`](Self::check).
    pub fn guarded(&self, who: &str, body: impl FnOnce()) {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(body)) {
            self.fail(who, payload.as_ref());
        }
    }

    fn fail(&self, who: &str, payload: &(dyn Any + Send)) {
        let text = message(payload);
        lock(&self.failure).get_or_insert(format!("{who}: {text}"));
        self.failed.store(true, SeqCst);
    }

    /// Fails the test if one of its threads has failed.
    ///
    /// # Panics
    /// If one has.
    #[track_caller]
    pub fn check(&self) {
        if self.failed.load(SeqCst) {
            let failure = lock(&self.failure).clone();
            panic!("{}", failure.unwrap_or_default());
        }
    }

    /// Waits for a condition outside of the protocol, in short naps. For servers that are awake,
    /// and for threads that are no tasks.
    ///
    /// # Panics
    /// If the condition does not hold within the time limit, or if a thread of the test failed.
    #[track_caller]
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let held = poll(self.limit_of_a_wait(), || {
            self.check();
            condition().then_some(())
        });
        assert!(held.is_some(), "time limit while waiting for: {what}");
    }

    /// Tries a scenario until it goes through undisturbed. The scenario returns true if it did and
    /// its assertions held, and false if a verdict of the provider disturbed it.
    ///
    /// With injected wrong verdicts it may be that no attempt goes through, and each takes long.
    /// The scenario is then given up after a sixth of the time limit, and the output says so.
    ///
    /// # Panics
    /// If none of 200 attempts went through, without injected wrong verdicts.
    #[track_caller]
    pub fn attempt(&self, what: &str, mut scenario: impl FnMut() -> bool) {
        let end = Instant::now() + self.limit / 6;
        let mut attempts = 0;
        while attempts < 200 && !(wrong_verdicts() && Instant::now() > end) {
            self.check();
            if scenario() {
                return;
            }
            attempts += 1;
        }
        let text = format!("not one undisturbed attempt in {attempts}: {what}");
        assert!(wrong_verdicts(), "{text}");
        eprintln!("SKIPPED: {text}");
    }

    /// How often the provider took a worker out of the server's slot, or put one into it by itself.
    /// If the number has not changed, the slot was left alone.
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

    /// Joins the threads of the test.
    pub fn join_all(&self) {
        loop {
            let Some(thread) = lock(&self.threads).pop() else {
                return;
            };
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if let Err(payload) = thread.join() {
                self.fail(&format!("thread {name}"), payload.as_ref());
            }
        }
    }

    /// The words of every task, and what its thread is doing.
    #[must_use]
    pub fn report(&self) -> String {
        let mut report = self.provider().describe();
        for record in self.records() {
            report += &format!("\n  {record:?}");
            if record.role == Role::Server {
                let counters = self.provider().counters(record.task.tid());
                report += &format!("\n    {counters:?}");
            }
        }
        report
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("under_test", &self.under_test)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}
