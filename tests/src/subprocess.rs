//! The body of a test in a process of its own.
//!
//! The test program starts itself again with one test selected. In the new process the body of the
//! test runs: it may alter anything that belongs to a process, and all threads that it counts are
//! its own. In the first process the test waits for the second one. If that does not end in time,
//! the test fails with the state of each of its threads, and the other tests go on.

use std::{
    any, env,
    fmt::Debug,
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    ProviderUnderTest, provider_under_test::ONLY, skip::SKIPPED, thread_report, watchdog::poll,
};

/// The environment variable that names the test whose body a process was started for.
const TEST: &str = "UMCG_TESTS_BODY";

/// The subprocess prints this line when its body has returned. Without it a subprocess that ran
/// no test at all would pass as a success.
const RETURNED: &str = "the body of the test has returned";

/// Runs `body` in a process of its own. The test fails if the body panics, if its process dies, or
/// if it does not end within `seconds`.
///
/// Must be the last call of a `#[test]`.
///
/// # Panics
/// If the body fails. The message has the output of the process and, after the time limit, the
/// state of each of its threads.
pub fn isolated<F: FnOnce()>(seconds: u64, body: F) {
    Subprocess::new(seconds).run(body);
}

/// The test whose body this process was started for. `None` in an ordinary run of the tests.
#[must_use]
pub fn test_name() -> Option<String> {
    env::var(TEST).ok()
}

/// How to run the body of a test in a process of its own.
pub struct Subprocess<'a> {
    /// The time limit.
    seconds: u64,
    /// The name of the only provider that the body is to test, if not all.
    provider: Option<&'static str>,
    /// What the process prints last if its body does not return.
    ends_with: &'static str,
    /// Changes the command before it starts the process.
    setup: Box<dyn FnOnce(&mut Command) + 'a>,
    /// Runs in the first process beside the body.
    meanwhile: Box<dyn FnOnce(&mut Running) + 'a>,
}

impl Debug for Subprocess<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subprocess")
            .field("seconds", &self.seconds)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl<'a> Subprocess<'a> {
    /// A process that may take this long.
    #[must_use]
    pub fn new(seconds: u64) -> Self {
        Self {
            seconds,
            provider: None,
            ends_with: RETURNED,
            setup: Box::new(|_| ()),
            meanwhile: Box::new(|_| ()),
        }
    }

    /// The body tests this provider only.
    #[must_use]
    pub fn on(mut self, provider: &ProviderUnderTest) -> Self {
        self.provider = Some(provider.name);
        self
    }

    /// The body does not return. The process has succeeded if it has printed this text and exits
    /// with status 0.
    #[must_use]
    pub fn ends_with(mut self, text: &'static str) -> Self {
        self.ends_with = text;
        self
    }

    /// Calls `setup` with the command before the process is started.
    #[must_use]
    pub fn setup(mut self, setup: impl FnOnce(&mut Command) + 'a) -> Self {
        self.setup = Box::new(setup);
        self
    }

    /// Calls `meanwhile` in the first process while the body runs in the other one.
    #[must_use]
    pub fn meanwhile(mut self, meanwhile: impl FnOnce(&mut Running) + 'a) -> Self {
        self.meanwhile = Box::new(meanwhile);
        self
    }

    /// Runs the body in that process, and returns its output. Returns `None` in the process itself,
    /// after the body: the test must then return.
    ///
    /// # Panics
    /// As [`isolated`].
    pub fn run<F: FnOnce()>(self, body: F) -> Option<String> {
        let test = name_of::<F>();
        if test_name().is_some_and(|wanted| wanted == test) {
            body();
            // On a line of its own: the test harness prints to the same stream.
            let _ = writeln!(io::stdout(), "\n{RETURNED}");
            let _ = io::stdout().flush();
            return None;
        }
        let mut command = Command::new(env::current_exe().expect("the path of this program"));
        command
            .args(["--exact", &test, "--nocapture", "--test-threads", "1"])
            .env(TEST, &test)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(name) = self.provider {
            command.env(ONLY, name);
        }
        // SAFETY: one system call, which is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                // The process must not outlive this one if somebody kills the tests.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        (self.setup)(&mut command);
        let mut running = Running::start(command);
        (self.meanwhile)(&mut running);
        let ended = running.wait(Duration::from_secs(self.seconds));
        Some(ended.check(&test, self.seconds, self.ends_with))
    }
}

/// The name of the test from the type of its closure: "program::module::test::{{closure}}".
fn name_of<F>() -> String {
    let path = any::type_name::<F>();
    let test = path.trim_end_matches("::{{closure}}");
    test.split_once("::")
        .map_or(test, |(_, test)| test)
        .to_owned()
}

/// The process while it runs.
#[derive(Debug)]
pub struct Running {
    /// The process, which [`wait`](Self::wait) reaps.
    child: Child,
    /// Open until the process has ended, so that it never reads an end of file.
    input: Option<ChildStdin>,
    /// Its standard output.
    output: Collected,
    /// Its standard error.
    errors: Collected,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("start the process of the body");
        Self {
            input: child.stdin.take(),
            output: Collected::from(child.stdout.take().expect("a pipe")),
            errors: Collected::from(child.stderr.take().expect("a pipe")),
            child,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// If the process does not take it.
    pub fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("open until the process ends");
        input.write_all(bytes).expect("the input of the process");
    }

    /// Whether it has printed this text so far, or has ended without.
    #[must_use]
    pub fn has_printed_or_ended(&self, text: &str) -> bool {
        let ended = self.output.thread.is_finished();
        ended || self.output.text().contains(text)
    }

    fn wait(mut self, limit: Duration) -> Ended {
        let status = poll(limit, || match self.child.try_wait() {
            Ok(Some(status)) => Some(Ok(status)),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        });
        let report = status.is_none().then(|| {
            let report = thread_report::of_process(self.child.id());
            let _ = self.child.kill();
            let _ = self.child.wait();
            report
        });
        // SAFETY: this kills the process group that was made for the process. Whatever the body
        // has started is in it, and may hold the pipes open.
        unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
        Ended {
            output: self.output.finish(),
            errors: self.errors.finish(),
            status: status.and_then(Result::ok),
            report,
        }
    }
}

/// The process after its end.
struct Ended {
    /// All of its standard output.
    output: String,
    /// All of its standard error.
    errors: String,
    /// `None` after the time limit, or if the process could not be waited for.
    status: Option<ExitStatus>,
    /// What the threads were doing when the time limit was reached.
    report: Option<String>,
}

impl Ended {
    fn check(self, test: &str, seconds: u64, ends_with: &str) -> String {
        let skips = self.errors.lines().filter(|line| line.starts_with(SKIPPED));
        let mut skipped = false;
        for line in skips {
            let _ = writeln!(io::stderr(), "{line}");
            skipped = true;
        }
        let problem = match (&self.report, self.status) {
            (Some(_), _) => format!("did not end within {seconds} s"),
            (None, None) => "could not be waited for".to_owned(),
            (None, Some(status)) => match status.signal() {
                Some(signal) => format!("was killed by signal {signal}"),
                None if !status.success() => "failed".to_owned(),
                None if skipped || self.output.contains(ends_with) => return self.output,
                None => format!("ended without having printed {ends_with:?}"),
            },
        };
        panic!(
            "{test} in a process of its own {problem}\n--- output\n{}\n--- errors\n{}\n{}",
            self.output,
            self.errors,
            self.report.unwrap_or_default()
        );
    }
}

/// What a process writes to one of its streams, as it comes.
#[derive(Debug)]
struct Collected {
    /// What has come so far.
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Reads until the end of the stream.
    thread: JoinHandle<()>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        let mut bytes = into.lock().unwrap_or_else(PoisonError::into_inner);
                        bytes.extend_from_slice(&buffer[..count]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        });
        Self { bytes, thread }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn finish(self) -> String {
        let Self { bytes, thread } = self;
        let _ = thread.join();
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
