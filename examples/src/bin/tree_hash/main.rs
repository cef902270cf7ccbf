//! Hashes every file below a directory: one task a file, plain blocking `std::fs`.
//!
//! There is no thread count to choose: a task that waits for the disk lends its CPU to the next
//! one. The last line but one of the output says how often that happened, and who noticed.

mod digest;
mod job;
mod summary;
mod walk;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use umcg::Builder;

use crate::{job::Job, summary::Summary};

/// Hashes every file below PATH with BLAKE3, one task a file.
///
/// Links are not followed. Two runs over the same tree print the same digest, whatever the
/// machine and the options. Exit code: 0, all was hashed; 1, something was not; 2, nothing was.
#[derive(Parser)]
struct Arguments {
    /// The directory.
    path: PathBuf,
    /// How many tasks run at the same time [default: one a CPU].
    #[arg(long)]
    servers: Option<usize>,
    /// How many threads there may be, blocked ones included.
    #[arg(long)]
    max_workers: Option<usize>,
    /// How many files are worked on at a time, at most; each may hold a descriptor.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Stay on the file system of PATH.
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// No progress bar.
    #[arg(short, long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tree_hash: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let mut builder = Builder::new().thread_name("tree_hash");
    if let Some(servers) = arguments.servers {
        builder = builder.servers(servers);
    }
    if let Some(max_workers) = arguments.max_workers {
        builder = builder.max_workers(max_workers);
    }
    let runtime = builder.build().map_err(|error| error.to_string())?;

    let begun = Instant::now();
    let job = Job::start(
        arguments.path.clone(),
        arguments.one_file_system,
        arguments.in_flight as usize,
        runtime.handle().clone(),
    )
    .map_err(|error| format!("{:?}: {error}", arguments.path))?;

    let bar = if arguments.quiet {
        ProgressBar::hidden()
    } else {
        ProgressBar::no_length().with_style(
            ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("a right template"),
        )
    };
    while !job.wait(Duration::from_millis(50)) {
        let bytes = job.bytes.load(Ordering::Relaxed);
        bar.set_message(format!(
            "{} of {} files, {}, {}/s, {} workers",
            HumanCount(job.hashed.load(Ordering::Relaxed)),
            HumanCount(job.found.load(Ordering::Relaxed)),
            HumanBytes(bytes),
            HumanBytes((bytes as f64 / begun.elapsed().as_secs_f64()) as u64),
            runtime.metrics().workers().total(),
        ));
        bar.tick();
    }
    let took = begun.elapsed();
    bar.finish_and_clear();

    let summary = Summary {
        path: &arguments.path,
        job: &job,
        took,
        metrics: runtime.metrics(),
    };
    print!("{summary}");
    eprint!("{}", job.failures());
    Ok(if summary.complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
