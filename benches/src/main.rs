//! `umcg-benches [SET...]`: runs the sets and writes what they found.

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

/// umcg beside its peers: the same work on each, in one run and, for each set, one process.
#[derive(Parser)]
struct Args {
    /// Which sets; none: all. See --list.
    sets: Vec<String>,
    /// Names the sets and ends.
    #[arg(long)]
    list: bool,
    /// Measured rounds of each cell; medians are shown.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Milliseconds for the measured rounds of one cell; a slow one gets fewer rounds.
    #[arg(long, default_value_t = 4000)]
    budget: u64,
    /// Less work in each round.
    #[arg(long)]
    quick: bool,
    /// Only the groups of those sets whose name has this in it.
    #[arg(long)]
    only: Option<String>,
    /// Only the systems whose name begins so, for a profile: no file is written, and what the
    /// runtimes of this project have counted is shown for each set. What needs another system
    /// for its ratio has none.
    #[arg(long, conflicts_with_all = ["merge", "readme", "check", "instructions"])]
    system: Option<String>,
    /// Workers, servers, or threads of each system; none: as many as CPUs. The set executor-one
    /// has one.
    #[arg(long)]
    workers: Option<usize>,
    /// Where the results go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    /// Keeps the stored results of the sets that are not run.
    #[arg(long)]
    merge: bool,
    /// Writes no files.
    #[arg(long, conflicts_with_all = ["merge", "readme"])]
    dry: bool,
    /// Writes the small table of results into the project's README.md and the table of targets
    /// into benches/README.md, each between its markers.
    #[arg(long)]
    readme: bool,
    /// Instead of all that: fails if a ratio of this run to a peer is beyond its generous bound.
    #[arg(long)]
    check: bool,
    /// Instead of all that: counts the instructions of hot paths, with valgrind, and compares
    /// them with those that are stored.
    #[arg(long)]
    instructions: bool,
    /// With --instructions: stores them.
    #[arg(long, requires = "instructions")]
    store: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some(neighbour::SPIN) => neighbour::spin(words.get(1).and_then(|w| w.parse().ok())),
        Some(probe::PROBE) => {
            let known = sets::probe(&words[1..]);
            // Without waiting for what is still blocked.
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

/// Each set in a process of its own, one after the other.
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

/// One set in this process, which is there for nothing else.
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
    // Those of the run, so that it can be merged with others.
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
