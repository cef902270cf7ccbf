//! Sends requests to the service, and measures the answers.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use clap::Parser;
use umcg_notes::{
    load::{self, Mix, Options},
    open_files,
};

/// Sends requests to the service, and measures the answers.
#[derive(Parser)]
struct Arguments {
    /// The address of the service.
    #[arg(long, default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// The number of connections.
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// For how many seconds the load is measured.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// For how many seconds the load runs before that.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// Requests a second, sent whether or not the service keeps up. Without it, each connection
    /// sends a request when it has the answer to the one before.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// The parts of reads, slow reads and inserts.
    #[arg(long, default_value = "45,45,10")]
    mix: Mix,
    /// Send each request on a new connection.
    #[arg(long)]
    new: bool,
    /// The number of further connections that send GET /burn/100 all the time.
    #[arg(long, default_value_t = 0)]
    burners: usize,
    /// The number of idle connections that are opened first.
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// The number of seconds after which a request without an answer is an error.
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    limit: f64,
    /// The process id of the service, to report what it uses.
    #[arg(long)]
    pid: Option<u32>,
    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.001 to 86400 is needed".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate from 0.001 to 10000000 is needed".into()),
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    open_files::raise_limit().context("the limit on open files cannot be raised")?;
    let report = load::run(&Options {
        address: arguments.address,
        connections: arguments.connections,
        duration: Duration::from_secs_f64(arguments.seconds),
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        rate: arguments.rate,
        mix: arguments.mix,
        new: arguments.new,
        burners: arguments.burners,
        idle: arguments.idle,
        limit: Duration::from_secs_f64(arguments.limit),
        pid: arguments.pid,
    })?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
