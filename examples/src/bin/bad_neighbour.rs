//! A task that ticks each millisecond, beside futures that block for a second each by plain calls
//! of std. On an ordinary async runtime these calls would stall the ticker for a second.
//!
//! Prints the gaps between the ticks.

use std::{
    io::Read,
    net::UdpSocket,
    os::unix::net::UnixStream,
    process::ExitCode,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use umcg::{Builder, JoinError};

const TICK: Duration = Duration::from_millis(1);
const BLOCK: Duration = Duration::from_secs(1);

/// Runs a 1 ms ticker beside tasks that block for 1 s each, and prints the gaps between the ticks.
#[derive(Parser)]
struct Arguments {
    /// Number of tasks that block.
    #[arg(long, default_value_t = 16)]
    neighbours: usize,
    /// How long the ticker runs.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Number of tasks that run at the same time [default: one for each CPU].
    #[arg(long)]
    servers: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bad_neighbour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let mut builder = Builder::new();
    if let Some(servers) = arguments.servers {
        builder = builder.servers(servers);
    }
    let runtime = builder.build().map_err(|error| error.to_string())?;

    let stop = Arc::new(AtomicBool::new(false));
    let neighbours: Vec<_> = (0..arguments.neighbours)
        .map(|number| {
            let stop = Arc::clone(&stop);
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    block(number);
                    umcg::yield_now().await;
                }
            })
        })
        .collect();
    let ticker = runtime.spawn(tick(Duration::from_secs(arguments.seconds)));

    let gaps = runtime.block_on(ticker).map_err(|e| e.to_string())?;
    stop.store(true, Ordering::Relaxed);
    let metrics = runtime.metrics();
    let ended: Result<(), JoinError> = neighbours.into_iter().try_for_each(|n| n.join());
    ended.map_err(|error| error.to_string())?;

    report(gaps, arguments.neighbours);
    println!(
        "{} servers, at most {} workers; blocks reported: {} by the kernel, {} by the sentinels, {} by \
         siblings, {} by the monitor",
        metrics.servers().len(),
        metrics.workers_peak(),
        metrics.provider().blocks_kernel,
        metrics.provider().blocks_sentinel,
        metrics.provider().blocks_sibling,
        metrics.provider().blocks_monitor,
    );
    println!(
        "provider: {} ({}): {}",
        metrics.provider_kind(),
        metrics.provider_why(),
        metrics.provider_description()
    );
    Ok(())
}

/// Ticks for this time. Returns the time from each tick to the next.
async fn tick(whole: Duration) -> Vec<Duration> {
    let begun = Instant::now();
    let mut gaps = Vec::new();
    let mut last = begun;
    while begun.elapsed() < whole {
        umcg::time::sleep(TICK).await;
        let now = Instant::now();
        gaps.push(now - last);
        last = now;
    }
    gaps
}

/// Blocks the thread for [`BLOCK`] by one of several calls of std.
fn block(way: usize) {
    match way % 5 {
        0 => thread::sleep(BLOCK),
        1 => {
            let (_sender, receiver) = mpsc::channel::<()>();
            let timed_out = receiver.recv_timeout(BLOCK);
            assert!(timed_out.is_err());
        }
        2 => {
            let mutex = Mutex::new(());
            let guard = mutex.lock().expect("nobody else has it");
            let waited = Condvar::new().wait_timeout_while(guard, BLOCK, |()| true);
            assert!(waited.is_ok_and(|(_, result)| result.timed_out()));
        }
        3 => {
            let (mut here, _there) = UnixStream::pair().expect("a socket pair");
            here.set_read_timeout(Some(BLOCK)).expect("a time limit");
            assert!(here.read(&mut [0]).is_err());
        }
        _ => {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port of this machine");
            socket.set_read_timeout(Some(BLOCK)).expect("a time limit");
            assert!(socket.recv(&mut [0]).is_err());
        }
    }
}

fn report(mut gaps: Vec<Duration>, neighbours: usize) {
    gaps.sort_unstable();
    let Some(longest) = gaps.last() else {
        println!("no tick at all");
        return;
    };
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    println!(
        "{} ticks of {TICK:?} beside {neighbours} tasks that block for {BLOCK:?} each",
        gaps.len()
    );
    println!(
        "gap between ticks: median {:.2?}, 99 % {:.2?}, 99.9 % {:.2?}, longest {longest:.2?}",
        at(0.5),
        at(0.99),
        at(0.999),
    );
}
