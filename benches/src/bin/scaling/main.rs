//! What the runtime's shared words cost beyond the two CPUs of this machine.
//!
//! Measures what single accesses cost here, counts on paper, simulates the scheduler's accesses on
//! machines with up to 256 CPUs, and compares the simulation with the runtime on two CPUs. Prints
//! Markdown; `benches/SCALING.md` says what it means and what it does not.
//!
//! ```sh
//! cargo run --release --manifest-path benches/Cargo.toml --bin scaling
//! ```

mod line;
mod measure;
mod paper;
mod quiet;
mod real;
mod report;
mod sched;
mod sim;
#[cfg(test)]
mod tests;
mod word;

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use self::{
    line::{Fabric, NS, Ps, ns},
    measure::Costs,
    real::{Effort, Job, Seen},
    sim::{Fixes, Local, Outcome, Sim, Span, Workload},
};

/// What the runtime's shared words cost beyond two CPUs.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Of the simulation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Nanoseconds to take a line from another CPU of the same cluster. None: as measured.
    #[arg(long)]
    near: Option<f64>,
    /// From one of another cluster. Assumed, as the next: two CPUs do not have that.
    #[arg(long, default_value_t = 100.0)]
    mid: f64,
    /// From one of another socket.
    #[arg(long, default_value_t = 200.0)]
    far: f64,
    /// CPUs that share a cache; a power of two up to 64.
    #[arg(long, default_value_t = 8)]
    cluster: usize,
    /// CPUs of a socket; a multiple of 64.
    #[arg(long, default_value_t = 128)]
    socket: usize,
    /// Nanoseconds for which a clean line serves one reader before the next one.
    #[arg(long, default_value_t = 4.0)]
    home: f64,
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Runs of each workload on the runtime.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Also with transfers of half and of twice the time.
    #[arg(long)]
    sensitivity: bool,
    /// A short run.
    #[arg(long)]
    quick: bool,
}

/// Where a compute task of 1 us and one of 10 us are meant.
const SHORT: Duration = Duration::from_micros(1);
const LONG: Duration = Duration::from_micros(10);
const BLOCK: Duration = Duration::from_micros(100);

/// Tasks that are counted in a simulation, at least.
const TASKS: u64 = 60_000;

/// Tasks of the outside thread: so many, and so many more for each server.
const OUTSIDE_TASKS: u64 = 20_000;
const OUTSIDE_TASKS_A_SERVER: u64 = 200;

/// A workload, and how it is shown.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    about: &'static str,
    task: Duration,
    /// For that many servers.
    workload: fn(usize) -> Workload,
}

const CASES: [Case; 5] = [
    Case {
        name: "spawn local",
        about: "on each server a root spawns 64 tasks of 1 us, yields, and again",
        task: SHORT,
        workload: |_| Workload::Local,
    },
    Case {
        name: "spawn local, others steal",
        about: "the same with a root on one server in four",
        task: SHORT,
        workload: |_| Workload::Stolen { every: 4 },
    },
    Case {
        name: "spawn local, most idle",
        about: "the same with a root on one server in sixteen: too few for the others",
        task: SHORT,
        workload: |_| Workload::Stolen { every: 16 },
    },
    Case {
        name: "spawn from one outside thread",
        about: "a thread on a CPU of its own spawns tasks of 10 us as fast as it can",
        task: LONG,
        workload: |servers| Workload::Outside {
            tasks: OUTSIDE_TASKS + OUTSIDE_TASKS_A_SERVER * servers as u64,
        },
    },
    Case {
        name: "tasks that block",
        about: "as spawn local, with tasks that compute for 10 us and block for 100 us",
        task: LONG,
        workload: |_| Workload::Blocking {
            block: BLOCK.as_nanos() as Ps * NS,
        },
    },
];

/// Nothing but the runtime: where two CPUs are in each other's way most.
const EMPTY: Case = Case {
    name: "spawn local, empty tasks",
    about: "",
    task: Duration::ZERO,
    workload: |_| Workload::Local,
};

/// One simulation.
fn simulate(
    case: &Case,
    servers: usize,
    fixes: Fixes,
    fabric: Fabric,
    local: Local,
    seed: u64,
) -> Outcome {
    let local = Local {
        task: case.task.as_nanos() as Ps * NS,
        ..local
    };
    // Enough for each root to come round a few times, and for the times of the tasks to be those
    // that are meant on average; large machines take long.
    let few = if servers > 64 { 130 } else { 520 };
    let span = Span {
        warm: few / 2,
        counted: (TASKS / servers as u64).max(few),
    };
    Sim::new(
        servers,
        (case.workload)(servers),
        fixes,
        fabric,
        local,
        seed,
    )
    .run(span)
}

/// The locked instructions and fences of a spawn on a worker: they are simulated, and so are not
/// part of its local cost.
fn simulated_part_of_spawn(fabric: &Fabric) -> Ps {
    3 * fabric.rmw + fabric.fence
}

/// Local costs with which the simulation of one server takes as long as the runtime did.
fn fit(case: &Case, seen: Seen, fabric: Fabric, costs: &Costs, seed: u64) -> Local {
    let blocks = matches!((case.workload)(1), Workload::Blocking { .. });
    let bare = Local {
        task: 0,
        spawn: ns(seen.spawn_ns).saturating_sub(simulated_part_of_spawn(&fabric)),
        run: 0,
        clock: ns(costs.clock),
        // A guess: what it is too little or too much is in `block`, and matters for idle servers
        // only.
        switch: 1_500 * NS,
        block: 0,
        wake: ns(costs.wake),
        wake_latency: ns(costs.wake_latency),
    };
    let simulated = simulate(case, 1, Fixes::default(), fabric, bare, seed);
    let rest = ns(seen.task_ns - 1e9 / simulated.per_cpu);
    if blocks {
        Local {
            block: rest,
            ..bare
        }
    } else {
        Local { run: rest, ..bare }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let Some(cpus) = measure::two_cpus() else {
        eprintln!("two CPUs are needed to measure anything between them");
        return ExitCode::FAILURE;
    };
    let costs = quiet::measured(|| measure::measure(cpus, args.rounds));
    let moved = (costs.rmw_dirty - costs.rmw).max(0.0);
    let here = Fabric {
        load: ns(costs.load),
        rmw: ns(costs.rmw),
        fence: ns(costs.fence),
        transfer: [ns(moved); 3],
        cluster: args.cluster,
        socket: args.socket,
        overlap: (costs.load_dirty / costs.load_scan).max(1.0) as u64,
        home: ns(args.home),
        retries: true,
    };
    let assumed = Fabric {
        transfer: [args.near.unwrap_or(moved), args.mid, args.far].map(ns),
        ..here
    };
    print!("{}", report::costs(&costs, &assumed, &args));
    println!("\n## On paper\n\n{}", paper::table(&assumed));

    let effort = Effort {
        runs: if args.quick { 3 } else { args.runs },
        rounds: if args.quick { 100 } else { 1000 },
    };
    let seed = args.seed;
    let [local, blocking] = report::check(cpus, effort, here, &costs, seed);
    let growth = quiet::measured(|| real::growth(if args.quick { 64 } else { 512 }));
    println!("A worker is made in {growth:.0} us, one after the other, while tasks block.\n");
    println!(
        "{} of the measurements were disturbed by other processes at each attempt.\n\n\
         ## The simulation\n",
        quiet::disturbed()
    );
    for case in &CASES {
        let blocks = matches!((case.workload)(1), Workload::Blocking { .. });
        let local = if blocks { blocking } else { local };
        print!("{}", report::case(case, assumed, local, seed));
    }
    if args.sensitivity {
        print!("{}", report::sensitivity(assumed, [local, blocking], seed));
    }
    ExitCode::SUCCESS
}

/// A job of the runtime as the case has it.
fn job(case: &Case) -> Job {
    let job = Job::computing(case.task);
    match (case.workload)(1) {
        Workload::Blocking { .. } => job.then_sleeping(BLOCK),
        _ => job,
    }
}
