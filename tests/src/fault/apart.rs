//! A test body in a process of its own, with a time limit.

use std::{
    any, env,
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::dump;
use crate::skip::SKIPPED;

/// Names the test whose body the process is to run.
const TEST: &str = "UMCG_TESTS_APART";

/// The child's last line if the body came to its end: a child that ran no test at all would
/// succeed, too.
const DONE: &str = "the body has come to its end";

/// Runs `body` in a process of its own, and fails if it panics, dies, or does not end within
/// `seconds`.
///
/// To be called at the end of a `#[test]`: the process is this binary again with that test alone,
/// which then runs the body.
///
/// # Panics
/// If the body fails; with what the child wrote and, after the time limit, what each of its
/// threads was doing.
pub fn apart<F: FnOnce()>(seconds: u64, body: F) {
    apart_with(seconds, |_| (), body);
}

/// [`apart`], after `setup` of the command that starts the process.
///
/// # Panics
/// As [`apart`].
pub fn apart_with<F: FnOnce()>(seconds: u64, setup: impl FnOnce(&mut Command), body: F) {
    let test = name_of::<F>();
    if test_name().is_some_and(|wanted| wanted == test) {
        body();
        // Past the harness, whose own lines may come in between.
        let _ = writeln!(io::stdout(), "\n{DONE}");
        let _ = io::stdout().flush();
        return;
    }
    let mut command = Command::new(env::current_exe().expect("the path of this binary"));
    command
        .args(["--exact", &test, "--nocapture", "--test-threads", "1"])
        .env(TEST, &test)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: one system call, async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // A child whose suite was killed goes, too.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    setup(&mut command);
    let ended = run(command, Duration::from_secs(seconds));
    for line in ended
        .errors
        .lines()
        .filter(|line| line.starts_with(SKIPPED))
    {
        let _ = writeln!(io::stderr(), "{line}");
    }
    let skipped = ended.errors.lines().any(|line| line.starts_with(SKIPPED));
    let complete = ended.output.contains(DONE) || skipped;
    if let (true, Some(true), None) = (complete, ended.status.map(|s| s.success()), &ended.dump) {
        return;
    }
    let status = match (&ended.dump, ended.status) {
        (Some(_), _) => format!("did not end within {seconds} s"),
        (None, Some(status)) => match status.signal() {
            Some(signal) => format!("was killed by signal {signal}"),
            None if status.success() => "never ran the body".to_owned(),
            None => "failed".to_owned(),
        },
        (None, None) => "could not be waited for".to_owned(),
    };
    panic!(
        "{test} in a process of its own {status}\n--- output\n{}\n--- errors\n{}\n{}",
        ended.output,
        ended.errors,
        ended.dump.unwrap_or_default()
    );
}

/// The test whose body this process was started for. `None`: an ordinary run of the suite.
#[must_use]
pub fn test_name() -> Option<String> {
    env::var(TEST).ok()
}

/// The test's name from the type of its closure: "binary::module::test::{{closure}}".
fn name_of<F>() -> String {
    let path = any::type_name::<F>();
    let test = path.trim_end_matches("::{{closure}}");
    test.split_once("::")
        .map_or(test, |(_, test)| test)
        .to_owned()
}

struct Ended {
    output: String,
    errors: String,
    status: Option<ExitStatus>,
    /// The time limit was reached: what the threads did.
    dump: Option<String>,
}

fn run(mut command: Command, limit: Duration) -> Ended {
    let mut child = command.spawn().expect("start the child");
    let output = collect(child.stdout.take().expect("piped"));
    let errors = collect(child.stderr.take().expect("piped"));
    let (status, dump) = wait(&mut child, limit);
    // Whatever the body started, too: it may hold the pipes.
    // SAFETY: the process group that was made for this child.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
    Ended {
        output: output.join().unwrap_or_default(),
        errors: errors.join().unwrap_or_default(),
        status,
        dump,
    }
}

fn wait(child: &mut Child, limit: Duration) -> (Option<ExitStatus>, Option<String>) {
    let begun = Instant::now();
    let mut nap = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return (Some(status), None),
            Ok(None) if begun.elapsed() > limit => {
                let dump = dump::process(child.id());
                let _ = child.kill();
                return (child.wait().ok(), Some(dump));
            }
            Ok(None) => {}
            Err(_) => return (None, None),
        }
        thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(20));
    }
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
