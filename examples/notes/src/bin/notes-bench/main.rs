//! Runs the service on each system in turn under the same load, and compares them.

mod plot;
mod table;

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use umcg_notes::{
    load::Report,
    service::{Placement, Service, allowed_cpus},
};

use crate::table::Cell;

/// Runs the service on each system in turn under the same load, and prints a table of the results.
#[derive(Parser)]
struct Arguments {
    /// The number of connections.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// For how many seconds each system is measured in each round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The number of rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The systems.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = System::ALL)]
    systems: Vec<System>,
    /// The CPUs of the service and of the load.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Layout::One, Layout::Both])]
    layout: Vec<Layout>,
    /// One round of one second, to see whether it works.
    #[arg(long)]
    quick: bool,
    /// The folder for the database. Without it, /dev/shm if that exists, so that the disk does not
    /// decide the result.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The file for the plot. Without it, notes-bench.svg in the build folder.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Further options for notes-load.
    #[arg(last = true)]
    load: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    /// A thread of umcg for each connection.
    Umcg,
    /// A thread of std for each connection.
    Threads,
    /// The same under SCHED_BATCH.
    Batch,
    /// axum, and `spawn_blocking` for what blocks.
    Tokio,
}

impl System {
    const ALL: [Self; 4] = [Self::Umcg, Self::Threads, Self::Batch, Self::Tokio];

    /// The service's option `--on`.
    fn on(self) -> &'static str {
        match self {
            Self::Umcg => "umcg",
            Self::Threads | Self::Batch => "threads",
            Self::Tokio => "tokio",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Umcg => "umcg",
            Self::Threads => "threads",
            Self::Batch => "threads, SCHED_BATCH",
            Self::Tokio => "tokio",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// The service has one CPU, and the load another.
    One,
    /// The service and the load share two CPUs.
    Both,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::One => "the service on one CPU, the load on another",
            Self::Both => "the service and the load on the same two CPUs",
        }
    }

    /// The CPUs of the service and of the load.
    fn cpus(self, first: usize, second: usize) -> [Vec<usize>; 2] {
        match self {
            Self::One => [vec![first], vec![second]],
            Self::Both => [vec![first, second], vec![first, second]],
        }
    }
}

// clap prints the default values with it.
impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            self.to_possible_value()
                .expect("none is skipped")
                .get_name(),
        )
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            self.to_possible_value()
                .expect("none is skipped")
                .get_name(),
        )
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.rounds = 1;
        arguments.seconds = 1.0;
    }
    let cpus = allowed_cpus()?;
    let [first, second, ..] = cpus[..] else {
        anyhow::bail!(
            "two CPUs are needed, and this process may use {}",
            cpus.len()
        );
    };
    let binaries = build()?;
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None if Path::new("/dev/shm").is_dir() => "/dev/shm".into(),
        None => env::temp_dir(),
    };
    let mut cells: Vec<Cell> = Vec::new();
    for &layout in &arguments.layout {
        for &system in &arguments.systems {
            cells.push(Cell::new(layout, system));
        }
    }
    let count = cells.len();
    for round in 0..arguments.rounds as usize {
        for step in 0..count {
            // Each round begins with another system.
            let cell = &mut cells[(round + step) % count];
            eprintln!(
                "round {} of {}, {} of {count}: {}, {}",
                round + 1,
                arguments.rounds,
                step + 1,
                cell.system,
                cell.layout
            );
            let cpus = cell.layout.cpus(first, second);
            match measure(&arguments, &binaries, &folder, cell.system, cpus) {
                Ok(report) => cell.reports.push(report),
                Err(error) => {
                    eprintln!("failed: {error:#}");
                    cell.failures += 1;
                }
            }
        }
    }
    print!("{}", table::render(&cells));
    let plot = arguments
        .plot
        .unwrap_or_else(|| binaries.with_file_name("notes-bench.svg"));
    plot::draw(&cells, &plot).with_context(|| format!("{} not drawn", plot.display()))?;
    println!("plot: {}", plot.display());
    let failures: usize = cells.iter().map(|cell| cell.failures).sum();
    ensure!(failures == 0, "{failures} measurements failed");
    Ok(())
}

/// Makes sure that the service and the load are built from the same source as this binary, if cargo
/// runs this binary: `cargo run` builds no other. Returns the folder of the binaries.
fn build() -> anyhow::Result<PathBuf> {
    let this = env::current_exe()?;
    let folder = this.parent().context("this binary is in no folder")?;
    if let (Some(cargo), Some(source)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR")) {
        let target = folder
            .parent()
            .context("the binaries are in no build folder")?;
        let mut command = Command::new(cargo);
        command
            .args(["build", "--quiet", "--bins", "--manifest-path"])
            .arg(Path::new(&source).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        let status = command.status().context("cargo cannot be started")?;
        ensure!(status.success(), "cargo build failed");
    }
    for name in ["notes", "notes-load"] {
        ensure!(
            folder.join(name).exists(),
            "{} does not contain {name}: build all binaries",
            folder.display()
        );
    }
    Ok(folder.into())
}

/// Runs a system once.
fn measure(
    arguments: &Arguments,
    binaries: &Path,
    folder: &Path,
    system: System,
    [service_cpus, load_cpus]: [Vec<usize>; 2],
) -> anyhow::Result<Report> {
    fs::create_dir_all(folder).with_context(|| format!("{} not created", folder.display()))?;
    let folder = tempfile::Builder::new()
        .prefix("umcg-notes-")
        .tempdir_in(folder)
        .with_context(|| format!("no folder can be created in {}", folder.display()))?;
    let service = Service::start(
        &binaries.join("notes"),
        system.on(),
        &folder.path().join("notes.sqlite"),
        &Placement {
            cpus: service_cpus,
            batch: system == System::Batch,
        },
    )?;
    let mut command = Command::new(binaries.join("notes-load"));
    command
        .arg("--json")
        .args(["--address", &service.address().to_string()])
        .args(["--pid", &service.pid().to_string()])
        .args(["--connections", &arguments.connections.to_string()])
        .args(["--seconds", &arguments.seconds.to_string()])
        .args(["--warm-up", &(arguments.seconds / 5.0).max(0.1).to_string()])
        .args(&arguments.load);
    Placement {
        cpus: load_cpus,
        batch: false,
    }
    .apply(&mut command);
    let text = output(
        command,
        Duration::from_secs_f64(arguments.seconds * 2.0 + 180.0),
    )?;
    let report = serde_json::from_str(&text).context("notes-load printed something else")?;
    service.stop()?;
    Ok(report)
}

/// Runs a process to its end, and returns what it printed. Kills it after the time limit.
fn output(mut command: Command, limit: Duration) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("notes-load cannot be started")?;
    let mut stdout = child.stdout.take().context("notes-load has no stdout")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let result = stdout.read_to_string(&mut text).map(|_| text);
        // An error means that nobody waits for the text any more.
        let _ = sender.send(result);
    });
    let Ok(text) = receiver.recv_timeout(limit) else {
        child.kill()?;
        child.wait()?;
        anyhow::bail!("notes-load did not end within {limit:?}");
    };
    let status = child.wait()?;
    ensure!(status.success(), "notes-load ended with {status}");
    Ok(text?)
}
