//! Tests that cannot run here say so, and are counted.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
};

/// What a skipped test's line begins with.
pub const SKIPPED: &str = "SKIPPED";

/// Ends the test, or the body of a child, that cannot run on this machine; the arguments are the
/// reason, as for `format!`.
///
/// The reason goes to standard error past the capture of the test harness, and as a line to the
/// file that `UMCG_SKIP_LOG` names, where a CI run counts them. With `UMCG_REQUIRE_ALL=1` the
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
    // In a child by its environment, on a stage and elsewhere by the thread.
    let test = crate::fault::test_name()
        .or_else(|| std::thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "?".to_owned());
    assert!(
        env::var_os("UMCG_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} cannot run here, and UMCG_REQUIRE_ALL=1 says that it must: {reason}"
    );
    // The test harness names tests without the test program, which is the first segment.
    let program = module.split("::").next().unwrap_or(module);
    let line = format!("{SKIPPED} {program}::{test}: {reason}\n");
    // `eprintln!` would be captured and shown for failures only.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("UMCG_SKIP_LOG") {
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
