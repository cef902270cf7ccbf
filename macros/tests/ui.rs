//! The compiler's output for correct and for wrong uses of the attributes.
//!
//! The cases use `ui/mock.rs` in place of the runtime, so that they test the macros alone. The
//! expected errors of the wrong uses were written with the stable compiler whose version is in
//! `ui/compiler`. With another version they are not compared, since its wording may differ. To
//! renew them and the version, run the test with `TRYBUILD=overwrite`, and check the difference.

use std::{
    env, fs,
    io::{self, Write},
    process::Command,
};

/// The file with the version of the compiler that wrote the expected errors, like `1.85`.
const WRITTEN_WITH: &str = "tests/ui/compiler";

/// The version of the compiler that the cases are compiled with: of a stable one without its patch
/// level, of any other one its whole answer.
fn compiler() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output();
    let said = String::from_utf8_lossy(&said.expect("a compiler").stdout).into_owned();
    let version = said.split_whitespace().nth(1).unwrap_or_default();
    match version.rsplit_once('.') {
        Some((minor, patch)) if patch.parse::<u32>().is_ok() => minor.to_owned(),
        _ => said.trim().to_owned(),
    }
}

/// Reports that a test cannot run here: to stderr, past the capture of the test harness, and in the
/// file that `UMCG_SKIP_LOG` names, where ci/prelude.sh counts it.
fn skipped(test: &str, reason: &str) {
    let line = format!("SKIPPED ui::{test}: {reason}\n");
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(path) = env::var_os("UMCG_SKIP_LOG") {
        let _ = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[test]
fn right_uses_compile_and_run() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn wrong_uses_are_refused_with_these_texts() {
    let compiler = compiler();
    if env::var_os("TRYBUILD").is_some_and(|what| what == "overwrite") {
        fs::write(WRITTEN_WITH, format!("{compiler}\n")).expect("the directory of the cases");
    }
    let written_with =
        fs::read_to_string(WRITTEN_WITH).expect("the version of the expected errors");
    if compiler != written_with.trim() {
        return skipped(
            "wrong_uses_are_refused_with_these_texts",
            &format!(
                "the expected errors are from Rust {}, this is {compiler}",
                written_with.trim()
            ),
        );
    }
    trybuild::TestCases::new().compile_fail("tests/ui/fail/*.rs");
}
