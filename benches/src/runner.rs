//! Runs the cells of a group in turns.
//!
//! A group is one piece of work, and a cell is that work on one system. Each round runs every cell
//! once, and begins with a different one each time, so that a disturbance hits all of them and none
//! always follows the same one. Before each cell the runner waits until the process is at rest. The
//! first round warms up and counts threads, and is not measured.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    clock::{Clock, Sample},
    neighbour::Busy,
    report::{Latency, Row},
    usage,
};

/// Limits of a run, and what it leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The largest number of measured rounds of a cell.
    pub rounds: usize,
    /// Time for the measured rounds of a cell. A slow cell gets fewer rounds, but at least one.
    pub budget: Duration,
    /// Do less work in a round.
    pub quick: bool,
    /// Run only groups whose name contains this text.
    pub only: Option<&'static str>,
    /// Run only systems whose name begins with this text.
    pub system: Option<&'static str>,
}

impl Effort {
    /// Whether that group is to run.
    pub fn takes(&self, id: &str) -> bool {
        self.only.is_none_or(|only| id.contains(only))
    }

    /// `quick` if less work is to be done, otherwise `full`.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Work<'a> = Box<dyn FnMut(&mut Clock) + 'a>;

struct Cell<'a> {
    system: String,
    threads: &'static str,
    work: Work<'a>,
}

/// The same work on several systems.
pub struct Group<'a> {
    id: &'static str,
    title: String,
    unit: &'static str,
    ops: u64,
    busy_cpu: usize,
    cells: Vec<Cell<'a>>,
}

impl<'a> Group<'a> {
    /// A group whose figures are per `unit`, of which a round has `ops`.
    pub fn new(id: &'static str, title: impl Into<String>, unit: &'static str, ops: u64) -> Self {
        Self {
            id,
            title: title.into(),
            unit,
            ops,
            busy_cpu: 0,
            cells: Vec::new(),
        }
    }

    pub(crate) fn id(&self) -> &'static str {
        self.id
    }

    /// Adds a cell. The names of the system's threads begin with `threads`.
    pub fn cell(
        &mut self,
        system: impl Into<String>,
        threads: &'static str,
        work: impl FnMut(&mut Clock) + 'a,
    ) {
        self.cells.push(Cell {
            system: system.into(),
            threads,
            work: Box::new(work),
        });
    }

    /// Sets the CPU of the busy process of [`run_beside`](Self::run_beside); the default is the
    /// first CPU. Work on one server sets the CPU of that server.
    pub fn busy_on(&mut self, cpu: usize) {
        self.busy_cpu = cpu;
    }

    /// Drops the cells of all other systems.
    pub fn keep(&mut self, systems: &[&str]) {
        self.cells
            .retain(|cell| systems.contains(&cell.system.as_str()));
    }

    /// Runs the group.
    pub fn run(self, effort: &Effort) -> Vec<Row> {
        self.run_in(effort, &[None])
    }

    /// Runs the group alone and, in the same rounds, beside a process that keeps a CPU busy.
    pub fn run_beside(self, effort: &Effort) -> Vec<Row> {
        let cpu = self.busy_cpu;
        self.run_in(effort, &[None, Some(cpu)])
    }

    fn run_in(mut self, effort: &Effort, conditions: &[Option<usize>]) -> Vec<Row> {
        if let Some(system) = effort.system {
            self.cells.retain(|cell| cell.system.starts_with(system));
        }
        if self.cells.is_empty() || !effort.takes(self.id) {
            return Vec::new();
        }
        eprint!("  {}:", self.id);
        let count = self.cells.len();
        let mut rounds = Vec::with_capacity(count);
        let mut peaks = Vec::with_capacity(count);
        for cell in &mut self.cells {
            eprint!(" {},", cell.system);
            let (peak, took) = census(cell);
            let fit = effort.budget.as_secs_f64() / took.as_secs_f64().max(1e-6);
            rounds.push((fit as usize).clamp(1, effort.rounds));
            peaks.push(peak);
        }
        eprintln!(" warm");
        let mut samples: Vec<Vec<Sample>> = Vec::new();
        samples.resize_with(count * conditions.len(), Vec::new);
        for round in 0..effort.rounds {
            for (c, &busy) in conditions.iter().enumerate() {
                let _neighbour = busy.map(Busy::on);
                for i in 0..count {
                    let i = (i + round) % count;
                    if round < rounds[i] {
                        usage::settle();
                        samples[i * conditions.len() + c].push(measure(&mut self.cells[i]));
                    }
                }
            }
        }
        let mut rows = Vec::new();
        for (index, samples) in samples.into_iter().enumerate() {
            let (i, c) = (index / conditions.len(), index % conditions.len());
            let mut row = self.row(&self.cells[i], &samples, peaks[i]);
            row.beside_busy = conditions[c].is_some();
            rows.push(row);
        }
        rows
    }

    fn row(&self, cell: &Cell<'_>, samples: &[Sample], threads: usize) -> Row {
        let per_op = |f: &dyn Fn(&Sample) -> f64| {
            median(
                samples
                    .iter()
                    .map(|s| f(s) / s.ops.unwrap_or(self.ops).max(1) as f64)
                    .collect(),
            )
        };
        let walls: Vec<f64> = samples
            .iter()
            .map(|s| s.wall.as_secs_f64() * 1e6 / s.ops.unwrap_or(self.ops).max(1) as f64)
            .collect();
        let mut histogram: Option<Histogram<u64>> = None;
        for sample in samples {
            if let Some(h) = &sample.latency {
                match &mut histogram {
                    Some(all) => all.add(h).expect("of the same shape"),
                    None => histogram = Some(h.clone()),
                }
            }
        }
        let mut figures = BTreeMap::new();
        for name in samples.iter().flat_map(|s| s.figures.keys()) {
            let values = samples.iter().filter_map(|s| s.figures.get(name).copied());
            figures.insert((*name).to_string(), median(values.collect()));
        }
        Row {
            set: String::new(),
            id: self.id.into(),
            title: self.title.clone(),
            unit: self.unit.into(),
            system: cell.system.clone(),
            beside_busy: false,
            ops: samples.last().and_then(|s| s.ops).unwrap_or(self.ops),
            rounds: samples.len(),
            wall_us: median(walls.clone()),
            wall_us_min: walls.iter().copied().fold(f64::INFINITY, f64::min),
            wall_us_max: walls.iter().copied().fold(0.0, f64::max),
            cpu_us: per_op(&|s| s.usage.cpu.as_secs_f64() * 1e6),
            threads,
            voluntary: per_op(&|s| s.usage.voluntary as f64),
            involuntary: per_op(&|s| s.usage.involuntary as f64),
            latency: histogram.as_ref().map(Latency::of),
            figures,
        }
    }
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The median, or NaN if there are no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn measure(cell: &mut Cell<'_>) -> Sample {
    let mut clock = Clock::new();
    (cell.work)(&mut clock);
    clock.finish()
}

/// Runs a round that is not measured. Returns the largest number of threads that the system had,
/// and the time.
///
/// Threads that exist before are counted by name. Threads that are added are counted by the total
/// of the process, because no other system has anything to do.
fn census(cell: &mut Cell<'_>) -> (usize, Duration) {
    usage::settle();
    let (own, total) = (usage::threads_named(cell.threads), usage::threads());
    let (stop, peak) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(total)),
    );
    let sampler = {
        let (stop, peak) = (Arc::clone(&stop), Arc::clone(&peak));
        thread::Builder::new()
            .name("census".into())
            .spawn(move || {
                while !stop.load(Relaxed) {
                    // The sampler itself does not count.
                    peak.fetch_max(usage::threads().saturating_sub(1), Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            })
            .expect("a thread")
    };
    let sample = measure(cell);
    stop.store(true, Relaxed);
    sampler.join().expect("the sampler");
    let came = peak.load(Relaxed).saturating_sub(total);
    let after = usage::threads_named(cell.threads);
    ((own + came).max(after), sample.wall)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use super::{Effort, Group, median};

    const EFFORT: Effort = Effort {
        rounds: 3,
        budget: Duration::from_secs(1),
        quick: true,
        only: None,
        system: None,
    };

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn cells_take_turns_and_each_begins_a_round() {
        let order = RefCell::new(String::new());
        let mut group = Group::new("g", "a group", "op", 2);
        for name in ["a", "b", "c"] {
            let order = &order;
            group.cell(name, name, move |clock| {
                clock.time(|| std::thread::sleep(Duration::from_millis(1)));
                order.borrow_mut().push_str(name);
            });
        }
        let rows = group.run(&EFFORT);
        // The first round warms up.
        assert_eq!(*order.borrow(), "abcabcbcacab");
        assert_eq!(rows.len(), 3);
        for row in rows {
            assert_eq!(row.rounds, 3);
            assert!((500.0..100_000.0).contains(&row.wall_us), "{}", row.wall_us);
        }
    }

    #[test]
    fn other_systems_are_left_out() {
        let effort = Effort {
            system: Some("umcg"),
            ..EFFORT
        };
        let mut group = Group::new("g", "a group", "op", 1);
        group.cell("tokio", "tokio", |_| unreachable!("it was left out"));
        group.cell("umcg::thread", "umcg", |clock| clock.time(|| ()));
        let rows = group.run(&effort);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].system, "umcg::thread");
        let mut group = Group::new("g", "a group", "op", 1);
        group.cell("tokio", "tokio", |_| unreachable!("it was left out"));
        assert!(group.run(&effort).is_empty());
    }

    #[test]
    fn slow_cells_get_fewer_rounds() {
        let effort = Effort {
            budget: Duration::from_millis(20),
            ..EFFORT
        };
        let count = RefCell::new(0);
        let mut group = Group::new("g", "a group", "op", 1);
        group.cell("slow", "slow", |clock| {
            clock.time(|| std::thread::sleep(Duration::from_millis(50)));
            *count.borrow_mut() += 1;
        });
        assert_eq!(group.run(&effort)[0].rounds, 1);
        assert_eq!(*count.borrow(), 2);
    }

    #[test]
    fn latencies_of_all_rounds_are_one_distribution() {
        let mut millis = 0;
        let mut group = Group::new("g", "a group", "op", 1);
        group.cell("a", "a", |clock| {
            clock.latency(Duration::from_millis(millis));
            millis += 1;
        });
        let latency = group.run(&EFFORT)[0].latency.expect("latencies");
        assert_eq!(latency.count, 3);
        assert!((2990.0..3010.0).contains(&latency.max), "{}", latency.max);
        assert!((1990.0..2010.0).contains(&latency.p50), "{}", latency.p50);
    }
}
