//! Tests that cannot run here say so, and are counted.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
};

/// The beginning of the line of a skipped test.
pub const SKIPPED: &str = "SKIPPED";

/// Ends a test, or its body in a subprocess, that cannot run on this machine. The arguments are the
/// reason, as for `format!`.
///
/// The reason goes to standard error, past the capture of the test harness, and as a line to the
/// file that `UMCG_SKIP_LOG` names, where a CI run counts the lines. With `UMCG_REQUIRE_ALL=1` the
/// test fails instead.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::skipped(module_path!(), &format!($($reason)*));
        return;
    }};
}

/// What [`skip!`](crate::skip!) does before it returns.
///
/// # Panics
/// If `UMCG_REQUIRE_ALL` is 1.
pub fn skipped(module: &str, reason: &str) {
    // A subprocess knows the test by its environment. Elsewhere the thread has the test's name.
    let test = crate::subprocess::test_name()
        .or_else(|| std::thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "?".to_owned());
    assert!(
        env::var_os("UMCG_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} cannot run here, and UMCG_REQUIRE_ALL=1 says that it must: {reason}"
    );
    // The name of the test begins with its module; the test program is the first segment of the
    // path.
    let program = module.split("::").next().unwrap_or(module);
    let line = format!("{SKIPPED} {program}::{test}: {reason}\n");
    // Not `eprintln!`: its output is captured, and shown for failed tests only.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("UMCG_SKIP_LOG") {
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
