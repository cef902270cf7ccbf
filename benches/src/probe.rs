//! Probes: measurements that need a process of their own, because they are about memory or
//! idleness, or may hang.
//!
//! A probe is this program, started again with a hidden argument. It prints lines `name value`.

use std::{
    collections::BTreeMap,
    io::Read,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::report::Row;

/// The hidden argument that runs a probe.
pub const PROBE: &str = "--probe";

/// A probe that runs.
#[derive(Debug)]
pub struct Probe {
    child: Child,
    until: Instant,
}

/// The figures that a probe printed.
pub type Outcome = Result<BTreeMap<String, f64>, Failed>;

/// Why a probe has no figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It did not end in time and was killed.
    Hung,
    /// It failed.
    Died,
}

impl Probe {
    /// Starts the probe, which may take the time `limit`.
    ///
    /// # Panics
    ///
    /// If this program cannot be started.
    pub fn start(arguments: &[&str], limit: Duration) -> Self {
        let program = std::env::current_exe().expect("this program's path");
        let child = Command::new(program)
            .arg(PROBE)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        Self {
            child,
            until: Instant::now() + limit,
        }
    }

    /// Waits for the end of the probe. Kills it when its time is over.
    ///
    /// # Panics
    ///
    /// If the process cannot be waited for.
    pub fn outcome(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() >= self.until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(Failed::Hung);
            }
            thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        let read = self
            .child
            .stdout
            .as_mut()
            .map(|out| out.read_to_string(&mut text));
        if !status.success() || !matches!(read, Some(Ok(_))) {
            return Err(Failed::Died);
        }
        Ok(text
            .lines()
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_string(), value.parse().ok()?))
            })
            .collect())
    }
}

/// Starts a probe and waits for its end.
pub fn run(arguments: &[&str], limit: Duration) -> Outcome {
    Probe::start(arguments, limit).outcome()
}

/// Called in a probe: prints a figure.
pub fn say(name: &str, value: f64) {
    println!("{name} {value}");
}

/// A row that has figures only.
pub fn row(id: &str, title: &str, system: &str, outcome: Outcome) -> Row {
    let figures = outcome.unwrap_or_else(|failed| {
        let name = match failed {
            Failed::Hung => "hung",
            Failed::Died => "died",
        };
        BTreeMap::from([(name.to_string(), 1.0)])
    });
    Row {
        id: id.into(),
        title: title.into(),
        unit: "run".into(),
        system: system.into(),
        rounds: 1,
        figures,
        ..Row::default()
    }
}
