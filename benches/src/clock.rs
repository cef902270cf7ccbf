//! The cost of one round of one system.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::usage::Usage;

/// Given to each round, which uses it to time a part of its work.
pub struct Clock {
    wall: Duration,
    usage: Usage,
    ops: Option<u64>,
    latency: Option<Histogram<u64>>,
    figures: BTreeMap<&'static str, f64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            wall: Duration::ZERO,
            usage: Usage::default(),
            ops: None,
            latency: None,
            figures: BTreeMap::new(),
        }
    }

    /// Runs and times `work`. Several calls add up.
    pub fn time<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let (before, begin) = (Usage::now(), Instant::now());
        let result = work();
        self.wall += begin.elapsed();
        let used = Usage::now().since(before);
        self.usage.cpu += used.cpu;
        self.usage.voluntary += used.voluntary;
        self.usage.involuntary += used.involuntary;
        self.usage.minor_faults += used.minor_faults;
        result
    }

    /// Replaces the measured wall time, when only a part of the timed work counts.
    pub fn wall_is(&mut self, wall: Duration) {
        self.wall = wall;
    }

    /// Sets the number of operations of this round, if it differs from that of the group.
    pub fn ops(&mut self, ops: u64) {
        self.ops = Some(ops);
    }

    /// Records one latency.
    pub fn latency(&mut self, latency: Duration) {
        self.histogram()
            .record(latency.as_nanos().min(1 << 60) as u64)
            .expect("it grows");
    }

    /// The latencies of this round so far.
    pub fn histogram(&mut self) -> &mut Histogram<u64> {
        self.latency
            .get_or_insert_with(|| Histogram::new(3).expect("three digits"))
    }

    /// Records an extra figure of this row. The median of its rounds is shown.
    pub fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    pub(crate) fn finish(self) -> Sample {
        Sample {
            wall: self.wall,
            usage: self.usage,
            ops: self.ops,
            latency: self.latency,
            figures: self.figures,
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("wall", &self.wall)
            .finish_non_exhaustive()
    }
}

/// The cost of a round.
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    pub(crate) usage: Usage,
    pub(crate) ops: Option<u64>,
    pub(crate) latency: Option<Histogram<u64>>,
    pub(crate) figures: BTreeMap<&'static str, f64>,
}
