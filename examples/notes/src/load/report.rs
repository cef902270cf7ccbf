//! The result of a load.

use std::fmt::{self, Display, Formatter};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The shares of requests at which a report gives latencies, for a plot.
pub const SHARES: [f64; 13] = [
    0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9998, 1.0,
];

/// The result of a load.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// All requests but those of `burn`.
    pub all: Latencies,
    /// Each kind of request that was sent, by its name.
    pub kinds: Vec<(String, Latencies)>,
    /// The number of requests that were not answered within the time limit after the end, because
    /// the open loop's rate is more than the service can do. They count with the time that they had
    /// waited.
    pub unanswered: u64,
    /// What the process of the service used, if its id was given.
    pub service: Option<ServiceUsage>,
    /// The idle connections, if there were any.
    pub idle: Option<Idle>,
}

/// The throughput and the latencies of one kind of request. Latencies are in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Latencies {
    /// The number of requests that were measured.
    pub requests: u64,
    /// Answers a second.
    pub rate: f64,
    /// The median.
    pub p50: f64,
    /// 90 % were not slower.
    pub p90: f64,
    /// 99 % were not slower.
    pub p99: f64,
    /// 99.9 % were not slower.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// The latency for each of [`SHARES`].
    pub curve: Vec<f64>,
}

/// What the process of the service used from the first request of the load, warm-up included, to
/// its last answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServiceUsage {
    /// CPU time in seconds.
    pub cpu_seconds: f64,
    /// CPU time for each answer, in microseconds.
    pub cpu_us_per_request: f64,
    /// The number of threads at the end of the load.
    pub threads: usize,
    /// Voluntary and involuntary context switches for each answer. `None` if each request had a
    /// connection of its own: threads may have ended with these, and their switches are not known.
    pub switches_per_request: Option<f64>,
    /// Resident memory at the end of the load, in MiB.
    pub resident_mib: f64,
}

/// What idle connections cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Idle {
    /// Their number.
    pub connections: usize,
    /// The time in seconds until each of them had been opened and had one request answered.
    pub ramp_seconds: f64,
    /// The resident memory that the service has with them and did not have before, in MiB.
    pub memory_mib: Option<f64>,
    /// The latency in milliseconds of one request on one more connection.
    pub next_ms: f64,
}

/// The highest latency in microseconds that is told from higher ones: an hour.
const HIGHEST: u64 = 3_600_000_000;

/// The latencies of one kind of request while a load runs.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// In microseconds.
    times: Histogram<u64>,
    /// The answers that came while the load was measured.
    answers: u64,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            times: Histogram::new_with_bounds(1, HIGHEST, 3).expect("the bounds are valid"),
            answers: 0,
        }
    }

    pub(crate) fn record(&mut self, microseconds: u64) {
        self.times.saturating_record(microseconds);
    }

    pub(crate) fn count_answer(&mut self) {
        self.answers += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.times
            .add(&other.times)
            .expect("both have the same bounds");
        self.answers += other.answers;
    }

    pub(crate) fn latencies(&self, seconds: f64) -> Latencies {
        let at = |share: f64| self.times.value_at_quantile(share) as f64 / 1e3;
        let max = self.times.max() as f64 / 1e3;
        Latencies {
            requests: self.times.len(),
            rate: self.answers as f64 / seconds,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max,
            curve: SHARES.map(at).to_vec(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(idle) = &self.idle {
            write!(
                f,
                "{} idle connections: opened in {:.2} s",
                idle.connections, idle.ramp_seconds
            )?;
            if let Some(memory) = idle.memory_mib {
                write!(f, ", {memory:.1} MiB")?;
            }
            writeln!(f, "; a request on one more: {:.2} ms", idle.next_ms)?;
        }
        if !self.kinds.is_empty() {
            writeln!(
                f,
                "{:<7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}   (latencies in ms)",
                "", "req/s", "p50", "p90", "p99", "p99.9", "max"
            )?;
        }
        let all = ("all".into(), self.all.clone());
        for (name, line) in self
            .kinds
            .iter()
            .chain((!self.kinds.is_empty()).then_some(&all))
        {
            writeln!(
                f,
                "{name:<7} {:>9.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                line.rate, line.p50, line.p90, line.p99, line.p999, line.max
            )?;
        }
        if self.unanswered > 0 {
            writeln!(
                f,
                "{} requests were not answered in time; they count with the time that they waited",
                self.unanswered
            )?;
        }
        if let Some(usage) = &self.service {
            write!(
                f,
                "service: {:.2} s of CPU, {:.1} us a request, {} threads, {:.1} MiB",
                usage.cpu_seconds, usage.cpu_us_per_request, usage.threads, usage.resident_mib
            )?;
            match usage.switches_per_request {
                Some(switches) => writeln!(f, ", {switches:.2} context switches a request")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut recorder = Recorder::new();
        for millisecond in 1..=1000 {
            recorder.record(millisecond * 1000);
            recorder.count_answer();
        }
        let latencies = recorder.latencies(2.0);
        assert_eq!(latencies.requests, 1000);
        assert!((latencies.rate - 500.0).abs() < 1e-9);
        for (value, expected) in [
            (latencies.p50, 500.0),
            (latencies.p90, 900.0),
            (latencies.p99, 990.0),
            (latencies.p999, 999.0),
            (latencies.max, 1000.0),
            (latencies.curve[SHARES.len() - 1], 1000.0),
        ] {
            assert!(
                (value - expected).abs() <= expected / 500.0,
                "{value}, {expected}"
            );
        }
    }

    #[test]
    fn nothing_measured_is_no_error() {
        let latencies = Recorder::new().latencies(1.0);
        assert_eq!((latencies.requests, latencies.max), (0, 0.0));
    }
}
