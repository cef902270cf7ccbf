//! First measurements of the runtime beside plain std, in one run: `measure [NAME...]`.
//!
//! Each line gives what was done, the time for one, and how many threads and how much CPU time
//! the process took for it. Medians of several rounds; a round of one line follows a round of
//! its peer, so that a noisy neighbour hits both.

use std::{
    io::Read,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use clap::Parser;
use umcg::Runtime;

/// Measures the runtime beside plain std.
#[derive(Parser)]
struct Args {
    /// Which measurements: read, block1ms, sleep100us, handover, pingpong, spawn, idle, busy.
    /// None: all of them.
    names: Vec<String>,
    /// Rounds of each; the median is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
    let runtime = Runtime::new().expect("a runtime");
    let metrics = runtime.metrics();
    println!(
        "provider: {} ({})",
        metrics.provider_kind(),
        metrics.provider_why()
    );
    println!("servers: {}", metrics.servers().len());
    let rounds = args.rounds.max(1);
    if wanted("read") {
        read(&runtime, rounds);
    }
    if wanted("block1ms") {
        block_1_ms(&runtime, rounds);
    }
    if wanted("sleep100us") {
        sleep_100_us(&runtime, rounds);
    }
    if wanted("handover") {
        hand_over();
    }
    if wanted("pingpong") {
        ping_pong(rounds);
    }
    if wanted("spawn") {
        spawn_join(rounds);
    }
    if wanted("idle") {
        idle(&runtime);
    }
    if wanted("busy") {
        busy_neighbour(&runtime, rounds);
    }
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// One round's cost.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

fn cost(work: impl FnOnce()) -> Cost {
    let (begin, cpu) = (Instant::now(), cpu_time());
    work();
    Cost {
        wall: begin.elapsed(),
        cpu: cpu_time() - cpu,
    }
}

/// CPU time of the process so far, user and system.
fn cpu_time() -> Duration {
    // SAFETY: an all-zero rusage is valid, and the call fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a live buffer.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let part = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
    };
    part(usage.ru_utime) + part(usage.ru_stime)
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.wall);
    costs[costs.len() / 2]
}

/// Runs the two in turn and shows them, and their ratio.
fn compare(
    what: &str,
    count: u32,
    rounds: usize,
    ours: (&str, &mut dyn FnMut()),
    theirs: (&str, &mut dyn FnMut()),
) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    // The first round of each warms up.
    for round in 0..=rounds {
        let (ours, theirs) = (cost(&mut *ours.1), cost(&mut *theirs.1));
        if round > 0 {
            a.push(ours);
            b.push(theirs);
        }
    }
    let (a, b) = (median(a), median(b));
    let each = |d: Duration| d.as_secs_f64() * 1e6 / f64::from(count);
    println!("{what}");
    for (name, cost) in [(ours.0, a), (theirs.0, b)] {
        println!(
            "  {name:36} {:9.2} us each, {:9.2} us of CPU",
            each(cost.wall),
            each(cost.cpu)
        );
    }
    println!("  ratio {:.2}", a.wall.as_secs_f64() / b.wall.as_secs_f64());
}

/// 4 KiB `std::fs::read` inside an async task, and on a bare thread.
fn read(runtime: &Runtime, rounds: usize) {
    const N: u32 = 2000;
    let path = std::env::temp_dir().join(format!("umcg-measure-{}", std::process::id()));
    std::fs::write(&path, vec![7_u8; 4096]).expect("a temporary file");
    let in_task = path.clone();
    let bare = path.clone();
    compare(
        "4 KiB std::fs::read",
        N,
        rounds,
        ("in an async task", &mut || {
            let path = in_task.clone();
            runtime.block_on(async move {
                umcg::spawn(async move {
                    for _ in 0..N {
                        assert_eq!(std::fs::read(&path).expect("the file").len(), 4096);
                    }
                })
                .await
                .expect("the task");
            });
        }),
        ("on a bare thread", &mut || {
            let path = bare.clone();
            std::thread::spawn(move || {
                for _ in 0..N {
                    assert_eq!(std::fs::read(&path).expect("the file").len(), 4096);
                }
            })
            .join()
            .expect("the thread");
        }),
    );
    let _ = std::fs::remove_file(path);
}

/// 2000 async tasks that each block 1 ms, called directly; std: a thread each.
fn block_1_ms(runtime: &Runtime, rounds: usize) {
    const N: u32 = 2000;
    compare(
        "2000 x block 1 ms",
        N,
        rounds,
        ("async tasks, blocking directly", &mut || {
            runtime.block_on(async {
                let tasks: Vec<_> = (0..N)
                    .map(|_| umcg::spawn(async { std::thread::sleep(Duration::from_millis(1)) }))
                    .collect();
                for task in tasks {
                    task.await.expect("the task");
                }
            });
        }),
        ("a std thread each", &mut || {
            let threads: Vec<_> = (0..N)
                .map(|_| std::thread::spawn(|| std::thread::sleep(Duration::from_millis(1))))
                .collect();
            for thread in threads {
                thread.join().expect("the thread");
            }
        }),
    );
    let workers = runtime.metrics().workers();
    println!(
        "  workers: {} now, {} at most",
        workers.total(),
        runtime.metrics().workers_peak()
    );
}

/// 20 000 closures that sleep 100 us; std: 512 threads that share the work.
fn sleep_100_us(runtime: &Runtime, rounds: usize) {
    const N: u32 = 20_000;
    let before = runtime.metrics();
    compare(
        "20 000 closures x sleep 100 us",
        N,
        rounds,
        ("closures", &mut || {
            let done = Arc::new(AtomicU64::new(0));
            let (tell, told) = mpsc::channel();
            for _ in 0..N {
                let (done, tell) = (Arc::clone(&done), tell.clone());
                drop(runtime.spawn_blocking(move || {
                    std::thread::sleep(Duration::from_micros(100));
                    if done.fetch_add(1, SeqCst) + 1 == u64::from(N) {
                        tell.send(()).expect("the receiver waits");
                    }
                }));
            }
            told.recv().expect("the last closure tells");
        }),
        ("512 std threads", &mut || {
            let left = Arc::new(AtomicU64::new(u64::from(N)));
            let threads: Vec<_> = (0..512)
                .map(|_| {
                    let left = Arc::clone(&left);
                    std::thread::spawn(move || {
                        while left
                            .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
                            .is_ok()
                        {
                            std::thread::sleep(Duration::from_micros(100));
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("the thread");
            }
        }),
    );
    let after = runtime.metrics();
    let sum = |metrics: &umcg::RuntimeMetrics, f: fn(&umcg::ServerMetrics) -> u64| -> u64 {
        metrics.servers().iter().map(f).sum()
    };
    println!(
        "  workers: {} now, {} at most; blocks seen by sentinels {}, siblings {}, the monitor {}",
        after.workers().total(),
        after.workers_peak(),
        sum(&after, |s| s.provider().blocks_sentinel)
            - sum(&before, |s| s.provider().blocks_sentinel),
        sum(&after, |s| s.provider().blocks_sibling)
            - sum(&before, |s| s.provider().blocks_sibling),
        sum(&after, |s| s.provider().blocks_monitor)
            - sum(&before, |s| s.provider().blocks_monitor),
    );
}

/// From "about to block" in one task to "running" in the next, on one server.
fn hand_over() {
    const N: usize = 20_000;
    let runtime = umcg::Builder::new().servers(1).build().expect("a runtime");
    let blocked_at = Arc::new(AtomicU64::new(0));
    let samples = Arc::new(Mutex::new(Vec::with_capacity(N)));
    let begin = Instant::now();
    let stamp = move || begin.elapsed().as_nanos() as u64 + 1;
    for _ in 0..2 {
        let tasks: Vec<_> = (0..N)
            .map(|_| {
                let (blocked_at, samples) = (Arc::clone(&blocked_at), Arc::clone(&samples));
                runtime.spawn_blocking(move || {
                    let since = blocked_at.swap(0, SeqCst);
                    if since != 0 {
                        samples.lock().expect("samples").push(stamp() - since);
                    }
                    blocked_at.store(stamp(), SeqCst);
                    std::thread::sleep(Duration::from_micros(200));
                })
            })
            .collect();
        for task in tasks {
            task.join().expect("the task");
        }
    }
    let mut samples = samples.lock().expect("samples").split_off(0);
    samples.sort_unstable();
    let at = |part: usize| samples[samples.len() * part / 100] as f64 / 1e3;
    println!(
        "block -> next worker running, one server, {} samples",
        samples.len()
    );
    println!(
        "  p50 {:.2} us, p90 {:.2} us, p99 {:.2} us",
        at(50),
        at(90),
        at(99)
    );
    runtime.shutdown_background();
}

/// std mpsc ping-pong between two `umcg::thread`s on one server, and between two std threads.
fn ping_pong(rounds: usize) {
    const N: u32 = 5_000;
    let runtime = umcg::Builder::new().servers(1).build().expect("a runtime");
    fn play(spawn: impl Fn(Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>) {
        let (ping, pinged) = mpsc::channel();
        let (pong, ponged) = mpsc::channel();
        let a = spawn(Box::new(move || {
            for i in 0..N {
                ping.send(i).expect("a partner");
                assert_eq!(ponged.recv(), Ok(i));
            }
        }));
        let b = spawn(Box::new(move || {
            while let Ok(i) = pinged.recv() {
                let _ = pong.send(i);
            }
        }));
        a();
        b();
    }
    compare(
        "std mpsc ping-pong, one way",
        2 * N,
        rounds,
        ("two umcg threads, one server", &mut || {
            play(|body| {
                let thread = runtime.spawn_blocking(body);
                Box::new(move || thread.join().expect("the thread"))
            });
        }),
        ("two std threads", &mut || {
            play(|body| {
                let thread = std::thread::spawn(body);
                Box::new(move || thread.join().expect("the thread"))
            });
        }),
    );
    runtime.shutdown_background();
}

/// `umcg::thread::spawn` and join from a task, and std's from a thread.
fn spawn_join(rounds: usize) {
    const N: u32 = 5_000;
    let runtime = umcg::Builder::new().servers(1).build().expect("a runtime");
    compare(
        "thread spawn + join",
        N,
        rounds,
        ("umcg::thread, from a task", &mut || {
            runtime
                .spawn_blocking(|| {
                    for i in 0..N {
                        assert_eq!(umcg::thread::spawn(move || i).join().expect("it ends"), i);
                    }
                })
                .join()
                .expect("the task");
        }),
        ("std::thread", &mut || {
            for i in 0..N / 10 {
                // A tenth, ten at a time would be another test: cost is scaled below.
                assert_eq!(std::thread::spawn(move || i).join().expect("it ends"), i);
            }
        }),
    );
    println!("  (std did a tenth of the number: multiply its figures by 10, the ratio by 0.1)");
    runtime.shutdown_background();
}

/// Ten seconds without work: CPU time and voluntary switches of all threads.
fn idle(runtime: &Runtime) {
    // Let the keep-alive of the earlier measurements pass first: what is measured is rest.
    std::thread::sleep(Duration::from_secs(12));
    let (cpu, switches) = (cpu_time(), switches());
    std::thread::sleep(Duration::from_secs(10));
    println!(
        "idle for 10 s: {:?} of CPU, {} voluntary switches (this thread's sleep is one), {} workers",
        cpu_time() - cpu,
        self::switches() - switches,
        runtime.metrics().workers().total()
    );
}

/// Voluntary context switches of all threads of the process.
fn switches() -> u64 {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")
        .expect("/proc")
        .flatten()
    {
        let mut status = String::new();
        if let Ok(mut file) = std::fs::File::open(task.path().join("status")) {
            let _ = file.read_to_string(&mut status);
        }
        sum += status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .and_then(|n| n.trim().parse::<u64>().ok())
            .unwrap_or(0);
    }
    sum
}

/// The 20 000 sleeping closures alone, and beside a busy foreign process on one of the CPUs.
fn busy_neighbour(runtime: &Runtime, rounds: usize) {
    const N: u32 = 20_000;
    let work = || {
        let tasks: Vec<_> = (0..N)
            .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_micros(100))))
            .collect();
        for task in tasks {
            task.join().expect("the task");
        }
    };
    let round = |_| cost(work);
    let alone = median((0..rounds).map(round).collect());
    let mut busy = std::process::Command::new("taskset")
        .args(["-c", "0", "sh", "-c", "while :; do :; done"])
        .spawn()
        .expect("taskset, of util-linux");
    let beside = median((0..rounds).map(round).collect());
    let _ = busy.kill();
    let _ = busy.wait();
    println!("20 000 closures x sleep 100 us beside a busy process on CPU 0");
    println!(
        "  alone {:?}, beside it {:?}, ratio {:.2}",
        alone.wall,
        beside.wall,
        beside.wall.as_secs_f64() / alone.wall.as_secs_f64()
    );
}
