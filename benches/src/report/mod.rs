//! The report of a run, and its tables and plots.

mod markdown;
mod plot;
mod readme;

use std::{collections::BTreeMap, fs, io, path::Path};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    machine::Machine,
    sets::{self, SETS},
    system::Systems,
    targets::Verdict,
};

pub use self::{
    markdown::table,
    readme::{readme, targets},
};

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |q| histogram.value_at_quantile(q) as f64 / 1e3;
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

/// The results of a cell. Times and counts are per unit, and are medians of the rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Row {
    pub set: String,
    pub id: String,
    pub title: String,
    pub unit: String,
    pub system: String,
    /// Whether it ran beside a process that keeps a CPU busy.
    pub beside_busy: bool,
    pub ops: u64,
    pub rounds: usize,
    pub wall_us: f64,
    pub wall_us_min: f64,
    pub wall_us_max: f64,
    pub cpu_us: f64,
    /// The largest number of threads of the system in a round.
    pub threads: usize,
    pub voluntary: f64,
    pub involuntary: f64,
    pub latency: Option<Latency>,
    /// Extra figures of this row.
    pub figures: BTreeMap<String, f64>,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    pub rows: Vec<Row>,
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// The report of a run that has not begun.
    pub fn empty(command: impl Into<String>, systems: &Systems) -> Self {
        Self {
            command: command.into(),
            machine: Machine::here(&systems.umcg.runtime().metrics()),
            rows: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    /// The row of that group and system, of a set that has the number of workers of the run.
    pub fn row(&self, id: &str, system: &str) -> Option<&Row> {
        self.find(id, system, false)
    }

    /// The same row beside a busy process.
    pub fn row_beside(&self, id: &str, system: &str) -> Option<&Row> {
        self.find(id, system, true)
    }

    fn find(&self, id: &str, system: &str, beside_busy: bool) -> Option<&Row> {
        self.rows
            .iter()
            .filter(|row| sets::named(&row.set).is_none_or(|set| set.workers.is_none()))
            .find(|row| row.id == id && row.system == system && row.beside_busy == beside_busy)
    }

    /// Adds the rows of sets that this run does not have from the report in that folder, if it is
    /// of the same machine and number of workers. Ratios are always within a set, and so within a
    /// run. Stored groups that `--only` left out are dropped with their set.
    ///
    /// # Errors
    ///
    /// The stored report cannot be read. A missing one is no error.
    pub fn merge(&mut self, folder: &Path) -> io::Result<()> {
        let text = match fs::read_to_string(folder.join("run.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let stored: Self = serde_json::from_str(&text)?;
        if !stored.machine.is_like(&self.machine) {
            return Ok(());
        }
        let here: Vec<String> = self.rows.iter().map(|row| row.set.clone()).collect();
        let kept = stored
            .rows
            .into_iter()
            .filter(|row| !here.contains(&row.set));
        self.rows.extend(kept);
        let place = |row: &Row| SETS.iter().position(|set| set.name == row.set);
        self.rows.sort_by_key(place);
        Ok(())
    }

    /// Writes the tables, the numbers and the plots.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("table.md"), table(self))?;
        fs::write(folder.join("rows.csv"), self.csv())?;
        fs::write(
            folder.join("run.json"),
            serde_json::to_string_pretty(self).map_err(io::Error::other)? + "\n",
        )?;
        plot::all(self, folder).map_err(|error| io::Error::other(error.to_string()))
    }

    fn csv(&self) -> String {
        let mut text = String::from(
            "set,id,system,beside_busy,unit,ops,rounds,wall_us,wall_us_min,wall_us_max,cpu_us,\
             threads,voluntary,involuntary,p50_us,p90_us,p99_us,p999_us,max_us\n",
        );
        for r in &self.rows {
            text += &format!(
                "{},{},{},{},{},{},{},{:.4},{:.4},{:.4},{:.4},{},{:.4},{:.4}",
                r.set,
                r.id,
                r.system,
                r.beside_busy,
                r.unit,
                r.ops,
                r.rounds,
                r.wall_us,
                r.wall_us_min,
                r.wall_us_max,
                r.cpu_us,
                r.threads,
                r.voluntary,
                r.involuntary
            );
            match &r.latency {
                Some(l) => {
                    text += &format!(
                        ",{:.3},{:.3},{:.3},{:.3},{:.3}\n",
                        l.p50, l.p90, l.p99, l.p999, l.max
                    );
                }
                None => text += ",,,,,\n",
            }
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Report, Row};
    use crate::machine::Machine;

    pub(crate) fn row(set: &str, id: &str, system: &str, wall_us: f64) -> Row {
        Row {
            set: set.into(),
            id: id.into(),
            system: system.into(),
            ops: 1,
            rounds: 1,
            wall_us,
            ..Row::default()
        }
    }

    /// A small report.
    pub(crate) fn report() -> Report {
        Report {
            command: "test".into(),
            machine: Machine {
                processor: "a processor".into(),
                cpus: 2,
                memory_mib: 1,
                kernel: "6.1".into(),
                provider: "emulated".into(),
                provider_description: String::new(),
                workers: 2,
                load: String::new(),
            },
            rows: vec![
                row("executor", "yield_many", "umcg", 0.5),
                row("executor", "yield_many", "tokio", 1.0),
            ],
            verdicts: Vec::new(),
        }
    }

    #[test]
    fn merging_keeps_the_sets_that_were_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut stored = report();
        stored.rows.push(row("idle", "noop", "umcg", 1.0));
        stored.write(folder.path()).expect("written");

        let mut new = report();
        new.rows = vec![row("executor", "yield_many", "umcg", 7.0)];
        new.merge(folder.path()).expect("read");
        let rows: Vec<(&str, f64)> = new.rows.iter().map(|r| (&*r.id, r.wall_us)).collect();
        assert_eq!(rows, [("yield_many", 7.0), ("noop", 1.0)]);

        let mut elsewhere = report();
        elsewhere.machine.cpus = 64;
        elsewhere.merge(folder.path()).expect("read");
        assert_eq!(elsewhere.rows.len(), 2);
    }
}
