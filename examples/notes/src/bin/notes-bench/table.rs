//! The results as a table.

use std::fmt::Write;

use umcg_notes::load::{Report, SHARES};

use crate::{Layout, System};

/// A system in a layout, and its results.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) layout: Layout,
    pub(crate) system: System,
    /// One for each round that did not fail.
    pub(crate) reports: Vec<Report>,
    /// The number of rounds that failed.
    pub(crate) failures: usize,
}

impl Cell {
    pub(crate) fn new(layout: Layout, system: System) -> Self {
        Self {
            layout,
            system,
            reports: Vec::new(),
            failures: 0,
        }
    }

    /// Returns the median over the rounds of what `value` returns, without rounds in which it
    /// returns `None`.
    fn median(&self, value: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        median(self.reports.iter().filter_map(value).collect())
    }

    /// Returns the medians of the latency for each of [`SHARES`].
    pub(crate) fn curve(&self) -> Vec<f64> {
        (0..SHARES.len())
            .map_while(|index| self.median(|report| report.all.curve.get(index).copied()))
            .collect()
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        Some(values[middle])
    } else {
        Some((values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0)
    }
}

/// A column: its heading, the number of digits after the point, and its value in a report.
type Column = (&'static str, usize, fn(&Report) -> Option<f64>);

const COLUMNS: [Column; 9] = [
    ("req/s", 0, |report| Some(report.all.rate)),
    ("p50", 2, |report| Some(report.all.p50)),
    ("p99", 2, |report| Some(report.all.p99)),
    ("p99.9", 2, |report| Some(report.all.p999)),
    ("max", 2, |report| Some(report.all.max)),
    ("insert p99", 2, |report| {
        let (_, inserts) = report.kinds.iter().find(|(name, _)| name == "insert")?;
        Some(inserts.p99)
    }),
    ("CPU s", 2, |report| {
        Some(report.service.as_ref()?.cpu_seconds)
    }),
    ("threads", 0, |report| {
        Some(report.service.as_ref()?.threads as f64)
    }),
    ("switches", 2, |report| {
        report.service.as_ref()?.switches_per_request
    }),
];

/// The columns of a second table, about idle connections.
const IDLE: [Column; 3] = [
    ("ramp s", 2, |report| {
        Some(report.idle.as_ref()?.ramp_seconds)
    }),
    ("MiB", 1, |report| report.idle.as_ref()?.memory_mib),
    ("next ms", 2, |report| Some(report.idle.as_ref()?.next_ms)),
];

/// Renders the medians as tables, in Markdown.
pub(crate) fn render(cells: &[Cell]) -> String {
    let mut text = String::from("Medians; latencies in ms; switches for each request.\n");
    let mut layouts: Vec<Layout> = Vec::new();
    for cell in cells {
        if !layouts.contains(&cell.layout) {
            layouts.push(cell.layout);
        }
    }
    for layout in layouts {
        let rows: Vec<&Cell> = cells.iter().filter(|cell| cell.layout == layout).collect();
        let _ = writeln!(text, "\n{}:\n", layout.name());
        append(&mut text, &rows, &COLUMNS);
        if rows
            .iter()
            .any(|cell| cell.reports.iter().any(|report| report.idle.is_some()))
        {
            text.push_str("\nidle connections:\n\n");
            append(&mut text, &rows, &IDLE);
        }
    }
    text.push('\n');
    text
}

fn append(text: &mut String, rows: &[&Cell], columns: &[Column]) {
    // Writing to a string does not fail.
    let _ = write!(text, "| {:<20} |", "system");
    for (heading, ..) in columns {
        let _ = write!(text, " {heading:>10} |");
    }
    let _ = write!(text, "\n|{:-<22}|", "");
    for _ in columns {
        let _ = write!(text, "{:->11}:|", "");
    }
    for cell in rows {
        let _ = write!(text, "\n| {:<20} |", cell.system.name());
        for (_, digits, value) in columns {
            let _ = match cell.median(value) {
                Some(value) => write!(text, " {value:>10.digits$} |"),
                None => write!(text, " {:>10} |", "-"),
            };
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use umcg_notes::load::Latencies;

    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn a_system_that_failed_has_a_row_without_numbers() {
        let mut cells = [
            Cell::new(Layout::One, System::Umcg),
            Cell::new(Layout::One, System::Tokio),
        ];
        cells[0].reports.push(Report {
            all: Latencies {
                rate: 1234.0,
                p50: 5.25,
                ..Latencies::default()
            },
            kinds: Vec::new(),
            unanswered: 0,
            service: None,
            idle: None,
        });
        let text = render(&cells);
        let row = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("| {name} ")));
            line.unwrap()
                .split('|')
                .map(|field| field.trim().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(row("umcg")[2..4], ["1234", "5.25"]);
        assert_eq!(row("tokio")[2..4], ["-", "-"]);
    }
}
