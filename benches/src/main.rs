//! `umcg-benches [SET...]`: runs the sets and writes what they found.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use umcg_benches::{
    machine::Machine,
    neighbour,
    report::{self, Report},
    runner::Effort,
    sets::{SETS, Set},
    system::Systems,
    targets,
};

/// umcg beside its peers: the same work on each, in one process and one run.
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
    /// Workers, servers, or threads of each system; none: as many as CPUs.
    #[arg(long)]
    workers: Option<usize>,
    /// Where the results go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    /// Writes no files.
    #[arg(long)]
    dry: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(neighbour::SPIN) {
        if let Some(cpu) = words.next().and_then(|cpu| cpu.parse().ok()) {
            neighbour::spin(cpu);
        }
    }
    let args = Args::parse();
    if args.list {
        for set in SETS {
            println!("{:12} {}", set.name, set.about);
        }
        return ExitCode::SUCCESS;
    }
    let mut sets: Vec<&Set> = Vec::new();
    for name in &args.sets {
        match SETS.iter().find(|set| set.name == name) {
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
    match run(&args, &sets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the results could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, sets: &[&Set]) -> io::Result<()> {
    let effort = Effort {
        rounds: args.rounds.max(1),
        budget: Duration::from_millis(args.budget),
        quick: args.quick,
        only: args.only.clone().map(|only| &*only.leak()),
    };
    let workers = args
        .workers
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let systems = Systems::start(workers);
    let mut report = Report {
        command: std::iter::once("umcg-benches".to_string())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        machine: Machine::here(&systems.umcg.runtime().metrics()),
        rows: Vec::new(),
        verdicts: Vec::new(),
    };
    for set in sets {
        let begin = Instant::now();
        report.rows.extend(set.run(&systems, &effort));
        eprintln!("{}: {:.1} s", set.name, begin.elapsed().as_secs_f64());
    }
    report.verdicts = targets::judge(&report);
    io::stdout().write_all(report::table(&report).as_bytes())?;
    if !args.dry {
        report.write(&args.out)?;
    }
    Ok(())
}
