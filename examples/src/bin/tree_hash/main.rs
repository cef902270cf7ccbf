//! Hashes every file below a directory. Each file is a task that uses plain blocking `std::fs`.
//!
//! No number of threads has to be chosen: while a task waits for the disk, another one runs on its
//! CPU. The last line but one of the output says how many such blocks were reported, and by what.

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

/// Hashes every file below PATH with BLAKE3, in one task for each file.
///
/// Links are not followed. Two runs over the same tree print the same digest on any machine and
/// with any options. Exit codes: 0, everything was hashed; 1, something was not hashed; 2, PATH
/// could not be walked.
#[derive(Parser)]
struct Arguments {
    /// The directory.
    path: PathBuf,
    /// Number of tasks that run at the same time [default: one for each CPU].
    #[arg(long)]
    servers: Option<usize>,
    /// Largest number of threads, including blocked ones.
    #[arg(long)]
    max_workers: Option<usize>,
    /// Largest number of files that are open or queued at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Stay on the file system of PATH.
    #[arg(short = 'x', long)]
    one_file_system: bool,
    /// Show no progress bar.
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
            ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("a valid template"),
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
