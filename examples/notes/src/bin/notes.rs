//! The service on umcg, on threads of std, or on tokio.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use socket2::SockRef;
use umcg_notes::{connection::Connections, on_tokio, open_files, store::Store};

umcg::managed_calls!();

/// A service that keeps notes. It ends on SIGINT and on SIGTERM, after the requests that have
/// begun.
#[derive(Parser)]
struct Arguments {
    /// The system that the service runs on.
    #[arg(long, value_enum, default_value = "umcg")]
    on: System,
    /// The address to listen on. With port 0 the kernel chooses a free port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The file of the database. It is created if it does not exist.
    #[arg(long, default_value = "notes.sqlite")]
    file: PathBuf,
    /// The number of database connections for reading.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    readers: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    /// A thread of umcg for each connection.
    Umcg,
    /// A thread of std for each connection.
    Threads,
    /// axum, and `spawn_blocking` for what blocks.
    Tokio,
}

/// Who saw the blocks of a run, and how the slots were given on.
fn blocks(metrics: &umcg::RuntimeMetrics) -> String {
    let provider = metrics.provider();
    format!(
        "blocks: {} parked, {} announced, {} seen by the sentinels, {} by the monitor, {} by other \
         workers, {} preemptions; {} dispatches, {} of them by the workers themselves; {} workers",
        metrics.parked_blocks_count(),
        provider.blocks_announced,
        provider.blocks_sentinel,
        provider.blocks_monitor,
        provider.blocks_sibling,
        provider.preempted,
        provider.dispatches,
        provider.self_dispatched + provider.taken_over,
        metrics.workers_peak(),
    )
}

/// The time that open connections have for their requests when the service stops.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    open_files::raise_limit().context("the limit on open files cannot be raised")?;
    let store = Store::open(&arguments.file, arguments.readers)?;
    let listener = TcpListener::bind(arguments.listen)
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let listening = |address| println!("notes on {:?}: {address}", arguments.on);
    match arguments.on {
        System::Umcg => {
            stop_on_signals(&listener)?;
            let runtime = umcg::Runtime::new()?;
            listening(listener.local_addr()?);
            let outcome = runtime.block_on(async {
                accept(&listener, |stream, connections| {
                    let store = store.clone();
                    umcg::thread::Builder::new()
                        .spawn(move || connections.serve(stream, &store))
                        .map(drop)
                })
            });
            eprintln!("{}", blocks(&runtime.metrics()));
            outcome
        }
        System::Threads => {
            stop_on_signals(&listener)?;
            listening(listener.local_addr()?);
            accept(&listener, |stream, connections| {
                let store = store.clone();
                thread::Builder::new()
                    .spawn(move || connections.serve(stream, &store))
                    .map(drop)
            })
        }
        System::Tokio => on_tokio::serve(listener, store, PATIENCE, listening),
    }
}

/// Accepts connections and starts a thread for each by `start`, until the listener is shut down.
/// Then waits for the connections that are open.
fn accept(
    listener: &TcpListener,
    start: impl Fn(TcpStream, Connections) -> io::Result<()>,
) -> anyhow::Result<()> {
    let connections = Connections::default();
    loop {
        let started = match listener.accept() {
            Ok((stream, _)) => start(stream, connections.clone()),
            // The listener is shut down.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            // The peer has gone already, or there is a lack of descriptors or threads. The lack may
            // last, so do not try again at once.
            eprintln!("a connection was not served: {error}");
            thread::sleep(Duration::from_millis(10));
        }
    }
    anyhow::ensure!(
        connections.stop(PATIENCE),
        "some requests took longer than {PATIENCE:?}"
    );
    Ok(())
}

/// Shuts the listener down on SIGINT and on SIGTERM: an `accept` that waits, and each later one,
/// then fails with EINVAL.
///
/// Must be called outside of a runtime, so that the thread that waits for the signals is an
/// ordinary one.
fn stop_on_signals(listener: &TcpListener) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be handled")?;
    let listener = listener.try_clone()?;
    thread::spawn(move || {
        for _ in &mut signals {
            // A second signal finds the listener shut down, which is not an error that matters.
            let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
        }
    });
    Ok(())
}
