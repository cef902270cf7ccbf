//! A test body in a process of its own: the test binary runs itself again.

use crate::Subject;
use std::{
    env,
    process::{Child, Command, Output, Stdio},
};

/// Names the body that the child is to run.
const VARIABLE: &str = "UMCG_TESTS_CHILD";

/// Whether this process was started to run that body.
///
/// A test that wants a process of its own asks first, and if so runs the body instead.
#[must_use]
pub fn is_child(body: &str) -> bool {
    env::var_os(VARIABLE).is_some_and(|value| value == body)
}

/// This binary again, with only `test` in it, which will find [`is_child`] true for `body`.
///
/// # Panics
/// If this binary's path is unknown.
#[must_use]
pub fn command(test: &str, body: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("the path of this binary"));
    command
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(VARIABLE, body)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it.
///
/// # Panics
/// If that fails.
#[must_use]
pub fn start(test: &str, body: &str) -> Child {
    command(test, body).spawn().expect("start the child")
}

/// Starts it, to test that subject alone.
///
/// # Panics
/// If that fails.
#[must_use]
pub fn start_on(subject: &Subject, test: &str, body: &str) -> Child {
    command(test, body)
        .env("UMCG_TESTS_SUBJECT", subject.name)
        .spawn()
        .expect("start the child")
}

/// Waits for it and asserts that it succeeded.
///
/// # Panics
/// If it did not; with its output.
pub fn assert_success(child: Child) -> Output {
    let output = child.wait_with_output().expect("wait for the child");
    assert!(
        output.status.success(),
        "the child failed: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
