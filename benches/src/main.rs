//! `umcg-benches [SET...]` runs the sets and writes their results.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use umcg_benches::{
    check, child, neighbour, paths, probe,
    report::{self, Report},
    runner::Effort,
    sets::{self, SETS, Set},
    system::{self, Systems},
    targets,
};

// What `#[umcg::main]` includes, so that the runtimes are the ones that most programs have.
umcg::managed_calls!();

/// Does the same work on umcg and on its peers, in one run, with a process for each set.
#[derive(Parser)]
struct Args {
    /// The sets to run [default: all]. See --list.
    sets: Vec<String>,
    /// List the sets and exit.
    #[arg(long)]
    list: bool,
    /// Number of measured rounds of each cell, of which the medians are shown.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds for the measured rounds of a cell. A slow cell gets fewer rounds.
    #[arg(long, default_value_t = 4000)]
    budget: u64,
    /// Do less work in each round.
    #[arg(long)]
    quick: bool,
    /// Run only groups whose name contains this text.
    #[arg(long)]
    only: Option<String>,
    /// Run only systems whose name begins with this text, for a profile. Writes no file, and prints
    /// the counters of this project's runtimes for each set. There are no ratios to other systems.
    #[arg(long, conflicts_with_all = ["merge", "readme", "check", "instructions"])]
    system: Option<String>,
    /// Number of workers, servers or threads of each system [default: the number of CPUs]. The set
    /// executor-one has one.
    #[arg(long)]
    workers: Option<usize>,
    /// The folder for the results.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    /// Keep the stored results of sets that are not run.
    #[arg(long)]
    merge: bool,
    /// Write no files.
    #[arg(long, conflicts_with_all = ["merge", "readme"])]
    dry: bool,
    /// Write the small table of results into the project's README.md and the table of targets into
    /// benches/README.md, each between its markers.
    #[arg(long)]
    readme: bool,
    /// Instead of a run: fail if a ratio to a peer exceeds its generous bound.
    #[arg(long)]
    check: bool,
    /// Instead of a run: count the instructions of hot paths with valgrind, and compare them with
    /// the stored counts.
    #[arg(long)]
    instructions: bool,
    /// With --instructions: store the counts.
    #[arg(long, requires = "instructions")]
    store: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(neighbour::SPIN) => neighbour::spin(words.get(1).and_then(|w| w.parse().ok())),
        Some(probe::PROBE) => {
            let known = sets::probe(&words[1..]);
            // Exit without waiting for threads that are still blocked.
            std::process::exit(i32::from(!known));
        }
        Some(paths::PATH) => {
            let count = words.get(2).and_then(|w| w.parse().ok());
            let known = paths::run(words.get(1).map_or("", |w| w), count.unwrap_or(1000));
            std::process::exit(i32::from(!known));
        }
        Some(child::SET) => return run_here(&words[1..]),
        _ => {}
    }
    let args = Args::parse();
    if args.list {
        for set in SETS {
            println!("{:20} {}", set.name, set.about);
        }
        return ExitCode::SUCCESS;
    }
    if args.instructions {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt"));
        return match paths::compare(file, args.store) {
            Ok(good) => ExitCode::from(u8::from(!good)),
            Err(error) => {
                eprintln!("the instructions could not be counted: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if args.check {
        return check::run(args.workers.unwrap_or_else(workers));
    }
    let mut sets: Vec<&Set> = Vec::new();
    for name in &args.sets {
        match sets::named(name) {
            Some(set) => sets.push(set),
            None => {
                eprintln!("there is no set {name:?}; --list names them");
                return ExitCode::FAILURE;
            }
        }
    }
    if sets.is_empty() {
        sets.extend(SETS);
    }
    let report = match run(&sets, &words) {
        Ok(report) => report,
        Err(failed) => {
            eprintln!("{failed}");
            return ExitCode::FAILURE;
        }
    };
    match show(&args, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the results could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs each set in a process of its own, one after the other.
fn run(sets: &[&Set], words: &[String]) -> Result<Report, child::Failed> {
    let mut report: Option<Report> = None;
    for set in sets {
        let begin = Instant::now();
        let found = child::run(set, words)?;
        match &mut report {
            None => report = Some(found),
            Some(report) => report.rows.extend(found.rows),
        }
        eprintln!("{}: {:.1} s", set.name, begin.elapsed().as_secs_f64());
    }
    Ok(report.expect("at least one set"))
}

/// Runs one set in this process, which was started for it.
fn run_here(words: &[String]) -> ExitCode {
    child::end_with_parent();
    let [name, file, arguments @ ..] = words else {
        return ExitCode::FAILURE;
    };
    let Some(set) = sets::named(name) else {
        return ExitCode::FAILURE;
    };
    let args = Args::parse_from(
        ["umcg-benches"]
            .into_iter()
            .chain(arguments.iter().map(|word| &**word)),
    );
    let effort = Effort {
        rounds: args.rounds.max(1),
        budget: Duration::from_millis(args.budget),
        quick: args.quick,
        only: args.only.map(|only| &*only.leak()),
        system: args.system.map(|system| &*system.leak()),
    };
    let command = format!("umcg-benches {}", arguments.join(" "));
    let workers = args.workers.unwrap_or_else(workers);
    let systems = Systems::start(set.workers.unwrap_or(workers));
    let mut report = Report::empty(command, &systems);
    // The number of the whole run, so that the reports of all sets can be merged.
    report.machine.workers = workers;
    report.rows = set.run(&systems, &effort);
    if effort.system.is_some() {
        system::print_counters();
    }
    match child::leave(&report, Path::new(file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the results of the set {name} could not be handed over: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(args: &Args, mut report: Report) -> io::Result<()> {
    if args.merge {
        report.merge(&args.out)?;
    }
    if args.system.is_none() {
        report.verdicts = targets::judge(&report);
    }
    io::stdout().write_all(report::table(&report).as_bytes())?;
    if !args.dry && args.system.is_none() {
        report.write(&args.out)?;
    }
    if args.readme {
        let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
        report::readme(&report, &benches.join("../README.md"))?;
        report::targets(&report, &benches.join("README.md"))?;
    }
    Ok(())
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
