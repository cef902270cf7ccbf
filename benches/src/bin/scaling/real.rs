//! The same workloads on the runtime itself, on the two CPUs that are here.
//!
//! Each as the simulation has it: roots that spawn 64 tasks and yield, a thread that is no worker,
//! tasks that sleep. Tasks compute in a loop that is timed beforehand.

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Runtime};

use super::{measure, sim::BATCH};

/// How much one run does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Runs of each workload, of which the median counts.
    pub(crate) runs: usize,
    /// Rounds of a root.
    pub(crate) rounds: u32,
}

/// What a task does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// Turns of the loop.
    turns: u64,
    /// It sleeps for so long afterwards.
    sleep: Option<Duration>,
}

impl Job {
    /// Computes for about so long, alone on its core.
    pub(crate) fn computing(time: Duration) -> Self {
        let turns = 1 << 16;
        let times = (0..31).map(|_| {
            let begin = Instant::now();
            compute(turns);
            begin.elapsed().as_nanos() as f64
        });
        let each = times.fold(f64::INFINITY, f64::min) / turns as f64;
        Self {
            turns: (time.as_nanos() as f64 / each) as u64,
            sleep: None,
        }
    }

    pub(crate) fn then_sleeping(self, time: Duration) -> Self {
        Self {
            sleep: Some(time),
            ..self
        }
    }

    fn run(self) {
        compute(self.turns);
        if let Some(time) = self.sleep {
            thread::sleep(time);
        }
    }
}

/// A chain of multiplications: nothing that two CPUs could share. Not inlined, so that it is the
/// same code where it is timed and where it runs.
#[inline(never)]
fn compute(turns: u64) {
    let mut value = turns | 1;
    for _ in 0..turns {
        value = black_box(value).wrapping_mul(0x2545_f491_4f6c_dd1d);
    }
    black_box(value);
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Nanoseconds of a CPU for a task.
    pub(crate) task_ns: f64,
    /// Of those, the spawner's for a spawn.
    pub(crate) spawn_ns: f64,
    /// Part of the tasks that ran on another server.
    pub(crate) stolen: f64,
}

fn runtime(servers: usize) -> Runtime {
    let runtime = Builder::new().servers(servers).build();
    runtime.expect("a runtime")
}

/// The median run, by its time for a task.
fn middle(mut runs: Vec<Seen>) -> Seen {
    runs.sort_by(|a, b| a.task_ns.total_cmp(&b.task_ns));
    runs[runs.len() / 2]
}

/// So many roots on a runtime with so many servers.
pub(crate) fn roots(servers: usize, roots: u32, job: Job, effort: Effort) -> Seen {
    let runtime = runtime(servers);
    // Workers are made, and the loops are warm.
    run_roots(&runtime, roots, job, effort.rounds / 8 + 1);
    middle(
        (0..effort.runs)
            .map(|_| run_roots(&runtime, roots, job, effort.rounds))
            .collect(),
    )
}

/// Two runtimes with a server and a root each, at the same time: what two CPUs do that share
/// nothing of one runtime.
pub(crate) fn apart(job: Job, effort: Effort) -> Seen {
    let runtimes = [runtime(1), runtime(1)];
    let barrier = Barrier::new(2);
    let runs = |runtime: &Runtime| {
        run_roots(runtime, 1, job, effort.rounds / 8 + 1);
        (0..effort.runs)
            .map(|_| {
                barrier.wait();
                run_roots(runtime, 1, job, effort.rounds)
            })
            .collect::<Vec<_>>()
    };
    let [one, other] = thread::scope(|scope| {
        let [first, second] = &runtimes;
        let other = scope.spawn(|| runs(second));
        [runs(first), other.join().expect("the other runtime")]
    });
    middle(one.into_iter().chain(other).collect())
}

fn run_roots(runtime: &Runtime, roots: u32, job: Job, rounds: u32) -> Seen {
    let before = runtime.metrics();
    let begin = Instant::now();
    let running: Vec<_> = (0..roots)
        .map(|_| runtime.spawn(root(job, rounds)))
        .collect();
    let times = running.into_iter().map(|root| root.join());
    let spawning: Duration = times.map(|time| time.expect("a root")).sum();
    let wall = begin.elapsed();
    let tasks = f64::from(roots) * f64::from(rounds) * f64::from(BATCH);
    Seen {
        task_ns: wall.as_nanos() as f64 * before.servers.len() as f64 / tasks,
        spawn_ns: spawning.as_nanos() as f64 / tasks,
        stolen: (runtime.metrics().steals - before.steals) as f64 / tasks,
    }
}

/// Spawns and yields, and ends with the last of its tasks: nobody has to ask now and then whether
/// they are done, which would cost a CPU some per cent. How long the spawns took.
async fn root(job: Job, rounds: u32) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 1..rounds {
        let begin = Instant::now();
        for _ in 0..BATCH {
            drop(umcg::spawn(async move { job.run() }));
        }
        time += begin.elapsed();
        umcg::yield_now().await;
    }
    let begin = Instant::now();
    let last: Vec<_> = (0..BATCH)
        .map(|_| umcg::spawn(async move { job.run() }))
        .collect();
    time += begin.elapsed();
    for task in last {
        task.await.expect("a task");
    }
    time
}

/// One server there, and a thread here that spawns all the tasks.
pub(crate) fn outside([here, there]: [usize; 2], tasks: u64, job: Job, effort: Effort) -> Seen {
    thread::scope(|scope| {
        let run = move || {
            // The server inherits the pin.
            measure::pin(there);
            let runtime = runtime(1);
            measure::pin(here);
            let once = |tasks: u64| {
                let begin = Instant::now();
                for _ in 1..tasks {
                    drop(runtime.spawn(async move { job.run() }));
                }
                let last = runtime.spawn(async move { job.run() });
                let spawned = begin.elapsed();
                last.join().expect("the last task");
                Seen {
                    task_ns: begin.elapsed().as_nanos() as f64 / tasks as f64,
                    spawn_ns: spawned.as_nanos() as f64 / tasks as f64,
                    stolen: 0.0,
                }
            };
            once(tasks / 8 + 1);
            middle((0..effort.runs).map(|_| once(tasks)).collect())
        };
        scope.spawn(run).join().expect("the outside thread")
    })
}

/// Microseconds that the runtime takes to make a worker, while tasks block and others wait.
pub(crate) fn growth(workers: u64) -> f64 {
    let runtime = Builder::new().servers(1).max_workers(4096).build();
    let runtime = runtime.expect("a runtime");
    let begun = Arc::new(AtomicU64::new(0));
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let told = Arc::new(std::sync::Mutex::new(told));
    let begin = Instant::now();
    for _ in 0..workers {
        let (begun, told) = (Arc::clone(&begun), Arc::clone(&told));
        drop(runtime.spawn_blocking(move || {
            begun.fetch_add(1, Relaxed);
            // Until the sender is dropped; whoever has the lock waits in `recv`, the others for it.
            let told = told
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ = told.recv();
        }));
    }
    while begun.load(Relaxed) < workers {
        thread::sleep(Duration::from_micros(200));
    }
    let time = begin.elapsed();
    drop(tell);
    time.as_nanos() as f64 / 1e3 / workers as f64
}
