//! The load: sends requests over many connections, and measures the answers. One thread, without
//! blocking, so that the load's own scheduling disturbs the service little.

mod links;
mod report;
mod schedule;
#[cfg(test)]
mod tests;
mod usage;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::Context;

pub use self::report::{Idle, Latencies, Report, SHARES, ServiceUsage};
use self::{links::Links, report::Recorder, schedule::Schedule, usage::Usage};
use crate::store::NOTES;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Slow,
    Insert,
    Burn,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Read, Self::Slow, Self::Insert, Self::Burn];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Slow => "slow",
            Self::Insert => "insert",
            Self::Burn => "burn",
        }
    }

    /// Returns a request of this kind, for a random note.
    fn request(self, random: &mut fastrand::Rng) -> String {
        let mut get = |path: &str| {
            let id = random.i64(1..=NOTES);
            format!("GET /{path}/{id} HTTP/1.1\r\nhost: notes\r\n\r\n")
        };
        match self {
            Self::Read => get("notes"),
            Self::Slow => get("slow"),
            Self::Burn => "GET /burn/100 HTTP/1.1\r\nhost: notes\r\n\r\n".into(),
            Self::Insert => "POST /notes HTTP/1.1\r\nhost: notes\r\ncontent-length: 20\r\n\r\n\
                             a note of 20 letters"
                .into(),
        }
    }
}

/// The parts that reads, slow reads and inserts have of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; 3]);

impl Default for Mix {
    /// 45 % reads, 45 % slow reads, 10 % inserts.
    fn default() -> Self {
        Self([45, 45, 10])
    }
}

impl FromStr for Mix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<u32> = text
            .split(',')
            .map(|part| part.trim().parse())
            .collect::<Result<_, _>>()
            .context("each part is a number")?;
        let parts: [u32; 3] = parts
            .try_into()
            .ok()
            .context("three parts are needed: reads,slow reads,inserts")?;
        anyhow::ensure!(
            (1..=1_000_000).contains(&parts.iter().map(|part| u64::from(*part)).sum::<u64>()),
            "the parts must add up to something from 1 to 1000000"
        );
        Ok(Self(parts))
    }
}

impl Mix {
    fn choose(self, random: &mut fastrand::Rng) -> Kind {
        let [read, slow, insert] = self.0;
        let roll = random.u32(0..read + slow + insert);
        if roll < read {
            Kind::Read
        } else if roll < read + slow {
            Kind::Slow
        } else {
            Kind::Insert
        }
    }
}

/// What a load does.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address of the service.
    pub address: SocketAddr,
    /// The number of connections that send the mix.
    pub connections: usize,
    /// For how long the load is measured.
    pub duration: Duration,
    /// For how long the load runs before it is measured.
    pub warm_up: Duration,
    /// Requests a second in the open loop. `None`: the closed loop, in which each connection sends
    /// its next request when it has the answer to the one before.
    pub rate: Option<f64>,
    /// The requests.
    pub mix: Mix,
    /// Whether each request of the mix has a new connection.
    pub new: bool,
    /// The number of further connections that send `GET /burn/100` in a closed loop.
    pub burners: usize,
    /// The number of idle connections that are opened first.
    pub idle: usize,
    /// The longest time that a request may take. A longer one ends the load with an error.
    pub limit: Duration,
    /// The process id of the service, if what it uses is to be reported.
    pub pid: Option<u32>,
}

impl Options {
    /// A load of 256 connections for 5 seconds.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 256,
            duration: Duration::from_secs(5),
            warm_up: Duration::from_secs(1),
            rate: None,
            mix: Mix::default(),
            new: false,
            burners: 0,
            idle: 0,
            limit: Duration::from_secs(30),
            pid: None,
        }
    }
}

/// Runs a load.
///
/// # Errors
/// The service does not accept a connection, closes one, sends something that is not a successful
/// answer, or does not answer within the time limit; or `pid` is not a process.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    // The idle connections stay open until the load has ended.
    let (idle, _links) = match options.idle {
        0 => (None, None),
        _ => {
            let (idle, links) = open_idle(options).context("idle connections")?;
            (Some(idle), Some(links))
        }
    };
    let mut report = if options.connections + options.burners > 0 {
        Load::new(options)?.run()?
    } else {
        Report {
            all: Latencies::default(),
            kinds: Vec::new(),
            unanswered: 0,
            service: None,
            idle: None,
        }
    };
    report.idle = idle;
    Ok(report)
}

/// The number of idle connections that are being opened at a time. It is less than the length of
/// the queue of a listening socket of std, beyond which the kernel would drop connections and delay
/// them by a second.
const OPENING: usize = 64;

fn open_idle(options: &Options) -> anyhow::Result<(Idle, Links)> {
    let memory = || -> anyhow::Result<Option<f64>> {
        let usage = options.pid.map(Usage::of).transpose()?;
        Ok(usage.map(|usage| usage.resident_kib as f64 / 1024.0))
    };
    let mut random = fastrand::Rng::with_seed(1);
    let before = memory()?;
    let mut links = Links::new(options.address, options.idle + 1, options.limit)?;
    let mut answered = Vec::new();
    let start = Instant::now();
    let (mut begun, mut done) = (0, 0);
    while done < options.idle {
        while begun < options.idle && begun - done < OPENING {
            let text = Kind::Read.request(&mut random);
            links.begin(begun, Kind::Read, Instant::now(), &text)?;
            begun += 1;
        }
        links.wait(Instant::now() + options.limit, &mut answered)?;
        done += answered.drain(..).count();
    }
    let ramp = start.elapsed();
    let after = memory()?;
    let due = Instant::now();
    let text = Kind::Read.request(&mut random);
    links.begin(options.idle, Kind::Read, due, &text)?;
    while answered.is_empty() {
        links.wait(Instant::now() + options.limit, &mut answered)?;
    }
    let idle = Idle {
        connections: options.idle,
        ramp_seconds: ramp.as_secs_f64(),
        memory_mib: after.zip(before).map(|(after, before)| after - before),
        next_ms: answered[0].at.duration_since(due).as_secs_f64() * 1e3,
    };
    Ok((idle, links))
}

/// A load that runs.
struct Load<'a> {
    options: &'a Options,
    links: Links,
    schedule: Schedule,
    random: fastrand::Rng,
    /// The connections that could send a request of the mix. The first has been free for the
    /// longest time.
    free: VecDeque<usize>,
    /// One for each of [`Kind::ALL`].
    recorders: [Recorder; 4],
    /// The answers since the start.
    answers: u64,
    /// The requests that are not yet answered.
    open: usize,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> anyhow::Result<Self> {
        let count = options.connections + options.burners;
        Ok(Self {
            options,
            links: Links::new(options.address, count, options.limit)?,
            schedule: Schedule::new(
                Instant::now(),
                options.warm_up,
                options.duration,
                options.rate,
            ),
            random: fastrand::Rng::with_seed(2),
            free: (0..options.connections).collect(),
            recorders: std::array::from_fn(|_| Recorder::new()),
            answers: 0,
            open: 0,
        })
    }

    fn run(mut self) -> anyhow::Result<Report> {
        let before = self.options.pid.map(Usage::of).transpose()?;
        for link in self.options.connections..self.options.connections + self.options.burners {
            self.begin(link, Kind::Burn, Instant::now())?;
        }
        let mut answered = Vec::new();
        let mut unanswered = 0;
        loop {
            let now = Instant::now();
            self.begin_due(now)?;
            let waiting = self.options.connections > 0 && self.schedule.next_due(now).is_some();
            let over = now >= self.schedule.end();
            if over && self.open == 0 && !waiting {
                break;
            }
            let last = self.schedule.end() + self.options.limit;
            if over && waiting && now >= last {
                unanswered = self.give_up(now);
                break;
            }
            // If a connection is free, the next request is not due yet.
            let wake = match self.schedule.next_due(now) {
                Some(due) if !self.free.is_empty() => due,
                _ if over => last,
                _ => self.schedule.end(),
            };
            self.links.wait(wake.max(now), &mut answered)?;
            for answer in answered.drain(..) {
                self.finish(answer)?;
            }
        }
        let after = self.options.pid.map(Usage::of).transpose()?;
        let service = before
            .zip(after)
            .map(|(before, after)| self.usage(&before, &after));
        Ok(self.report(unanswered, service))
    }

    /// Begins the requests that are due, as far as connections are free.
    fn begin_due(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(&link) = self.free.front() {
            let Some(due) = self.schedule.take(now) else {
                break;
            };
            self.free.pop_front();
            let kind = self.options.mix.choose(&mut self.random);
            self.begin(link, kind, due)?;
        }
        Ok(())
    }

    fn begin(&mut self, link: usize, kind: Kind, due: Instant) -> anyhow::Result<()> {
        let text = kind.request(&mut self.random);
        self.open += 1;
        self.links.begin(link, kind, due, &text)
    }

    fn finish(&mut self, answer: links::Answered) -> anyhow::Result<()> {
        let links::Answered { link, sent, at } = answer;
        self.open -= 1;
        self.answers += 1;
        let recorder = &mut self.recorders[sent.kind as usize];
        if self.schedule.counts(at) {
            recorder.count_answer();
        }
        if self.schedule.measures(sent.due) {
            recorder.record(at.duration_since(sent.due).as_micros() as u64);
        }
        if sent.kind == Kind::Burn {
            if at < self.schedule.end() {
                self.begin(link, Kind::Burn, at)?;
            }
            return Ok(());
        }
        if self.options.new {
            self.links.close(link)?;
        }
        self.free.push_back(link);
        Ok(())
    }

    /// Records the requests of the open loop that were due and could not be sent. Returns their
    /// number. They count with the time that they have waited, because without them a service that
    /// cannot keep up would look better than it is.
    fn give_up(&mut self, now: Instant) -> u64 {
        let mut count = 0;
        while let Some(due) = self.schedule.take(now) {
            let kind = self.options.mix.choose(&mut self.random);
            if self.schedule.measures(due) {
                self.recorders[kind as usize].record(now.duration_since(due).as_micros() as u64);
                count += 1;
            }
        }
        for sent in self.links.busy().filter(|sent| sent.kind != Kind::Burn) {
            if self.schedule.measures(sent.due) {
                let waited = now.duration_since(sent.due).as_micros() as u64;
                self.recorders[sent.kind as usize].record(waited);
                count += 1;
            }
        }
        count
    }

    fn usage(&self, before: &Usage, after: &Usage) -> ServiceUsage {
        let answers = self.answers.max(1) as f64;
        let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        ServiceUsage {
            cpu_seconds,
            cpu_us_per_request: cpu_seconds * 1e6 / answers,
            threads: after.switches.len(),
            switches_per_request: (!self.options.new)
                .then(|| after.switches_since(before) as f64 / answers),
            resident_mib: after.resident_kib as f64 / 1024.0,
        }
    }

    fn report(&self, unanswered: u64, service: Option<ServiceUsage>) -> Report {
        let seconds = self.options.duration.as_secs_f64();
        let mut all = Recorder::new();
        let mut kinds = Vec::new();
        for (kind, recorder) in Kind::ALL.into_iter().zip(&self.recorders) {
            if kind != Kind::Burn {
                all.add(recorder);
            }
            let latencies = recorder.latencies(seconds);
            if latencies.requests > 0 {
                kinds.push((kind.name().into(), latencies));
            }
        }
        Report {
            all: all.latencies(seconds),
            kinds,
            unanswered,
            service,
            idle: None,
        }
    }
}
