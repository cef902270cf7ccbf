//! Each set runs in a process of its own.
//!
//! So nothing that a set leaves behind disturbs the next one. An example are 512 idle threads that
//! sleep on one futex word: they slow down every thread whose futex word is in the same hash bucket
//! of the kernel, for as long as the process lives. All systems of a set are in one process.
//!
//! The process is this program, started again with hidden arguments: [`SET`], the name of the set,
//! the file for its report, and then the arguments of the parent. It prints where the parent
//! prints.

use std::{
    error::Error,
    fmt, fs, io,
    path::Path,
    process::{Command, ExitStatus},
};

use crate::{report::Report, sets::Set};

/// The hidden argument that runs a set.
pub const SET: &str = "--set-here";

/// Why a set has no report.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Failed {
    /// The process could not be started.
    Start { set: String, error: io::Error },
    /// The process failed.
    Died { set: String, status: ExitStatus },
    /// The process succeeded and left no report.
    Report { set: String, error: io::Error },
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { set, error } => {
                write!(f, "the process of the set {set} cannot be started: {error}")
            }
            Self::Died { set, status } => write!(f, "the set {set} failed: {status}"),
            Self::Report { set, error } => {
                write!(f, "the results of the set {set} cannot be read: {error}")
            }
        }
    }
}

impl Error for Failed {}

/// Runs the set in a process of its own with these arguments, and waits for its end.
///
/// # Errors
///
/// The set has no report. The process has printed the reason.
pub fn run(set: &Set, arguments: &[String]) -> Result<Report, Failed> {
    // This names the running program, even if a build has replaced the file.
    let mut program = Command::new("/proc/self/exe");
    outcome(&mut program, set.name, arguments)
}

fn outcome(program: &mut Command, set: &str, arguments: &[String]) -> Result<Report, Failed> {
    let set = || set.to_string();
    let start = |error| Failed::Start { set: set(), error };
    let file = tempfile::NamedTempFile::new().map_err(start)?;
    let status = program
        .args([SET, &set()])
        .arg(file.path())
        .args(arguments)
        .status()
        .map_err(start)?;
    if !status.success() {
        return Err(Failed::Died { set: set(), status });
    }
    take(file.path()).map_err(|error| Failed::Report { set: set(), error })
}

/// Called in the child: writes the report for the parent.
///
/// # Errors
///
/// The file cannot be written.
pub fn leave(report: &Report, file: &Path) -> io::Result<()> {
    fs::write(file, serde_json::to_vec(report)?)
}

fn take(file: &Path) -> io::Result<Report> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Called in a child: ends the process when its parent ends.
pub fn end_with_parent() {
    // SAFETY: the call takes no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, process::Command};

    use super::{Failed, leave, outcome, take};
    use crate::{
        report::{Latency, Report, Row, tests::report},
        targets::judge,
    };

    /// Runs a shell as the child. In the script `$3` is the file and `$4` the first argument.
    fn shell(script: &str, arguments: &[String]) -> Result<Report, Failed> {
        // The argument after the script is `$0`.
        outcome(
            Command::new("sh").args(["-c", script, "sh"]),
            "files",
            arguments,
        )
    }

    /// A report with a row in which no field has its default.
    fn full() -> Report {
        let mut report = report();
        report.machine.provider_description = "a \"provider\"\n".into();
        report.machine.load = "0.5".into();
        report.verdicts = judge(&report);
        report.rows.push(Row {
            set: "handover".into(),
            id: "handover_spare".into(),
            title: "block -> next".into(),
            unit: "block".into(),
            system: "umcg::thread, one server".into(),
            beside_busy: true,
            ops: 10_000,
            rounds: 9,
            wall_us: 2.5,
            wall_us_min: 1.25,
            wall_us_max: 1e9,
            // An inexact parser reads another number.
            cpu_us: 0.020_999_999_999_999_998,
            threads: 512,
            voluntary: 1.5,
            involuntary: 1e-9,
            latency: Some(Latency {
                count: u64::MAX,
                p50: 1.0,
                p90: 2.0,
                p99: 3.0,
                p999: 4.0,
                max: 5.0,
            }),
            figures: BTreeMap::from([("blocks by sentinel".to_string(), 7.0)]),
        });
        report
    }

    #[test]
    fn every_field_arrives() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report");
        leave(&full(), &file).expect("written");
        let arrived = shell("cp \"$4\" \"$3\"", &[file.display().to_string()]);
        // Debug shows every field, and numbers exactly.
        let arrived = arrived.expect("a report");
        assert_eq!(format!("{arrived:?}"), format!("{:?}", full()));
    }

    #[test]
    fn the_child_is_told_the_set_and_the_arguments() {
        let script = r#"[ "$1 $2 $4 $5" = "--set-here files --only a b" ] && exit 3"#;
        let arguments = ["--only".to_string(), "a b".to_string()];
        let failed = shell(script, &arguments).expect_err("no report");
        assert_eq!(failed.to_string(), "the set files failed: exit status: 3");
    }

    #[test]
    fn a_child_that_dies_is_an_error_even_with_a_report() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report");
        leave(&full(), &file).expect("written");
        let copy = "cp \"$4\" \"$3\"; kill -KILL $$";
        let failed = shell(copy, &[file.display().to_string()]).expect_err("it died");
        assert_eq!(
            failed.to_string(),
            "the set files failed: signal: 9 (SIGKILL)"
        );
    }

    #[test]
    fn a_child_without_a_report_is_an_error() {
        for script in ["true", "echo '{' > \"$3\"", "rm \"$3\""] {
            let failed = shell(script, &[]).expect_err("no report");
            assert!(
                matches!(failed, Failed::Report { .. }),
                "{script}: {failed}"
            );
            assert!(failed.to_string().contains("the set files"), "{failed}");
        }
        let nobody = outcome(&mut Command::new("/dev/null"), "files", &[]).expect_err("no child");
        assert!(matches!(nobody, Failed::Start { .. }), "{nobody}");
    }

    #[test]
    fn a_nan_is_an_error_and_not_a_zero() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("report");
        let mut report = full();
        report.rows[0].wall_us = f64::NAN;
        leave(&report, &file).expect("written");
        take(&file).expect_err("JSON has no such number");
    }
}
