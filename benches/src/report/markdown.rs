//! A report as a page of tables.

use std::fmt::Write;

use super::{Report, Row};
use crate::targets::Verdict;

/// The whole report.
pub fn table(report: &Report) -> String {
    let mut text = format!(
        "# Results\n\nThe last run was `{}`. Sets that it did not run are from earlier runs on the same \
         machine. All rows of a set are from one run.\n\n{}\n",
        report.command,
        machine(report)
    );
    if !report.verdicts.is_empty() {
        text += "\n## Targets\n\n";
        text += &verdicts(&report.verdicts);
    }
    let mut last = (String::new(), String::new());
    for row in &report.rows {
        let here = (row.set.clone(), row.id.clone());
        if here != last {
            if here.0 != last.0 {
                let _ = write!(text, "\n## {}\n", row.set);
            }
            text += &group(report, row);
            last = here;
        }
    }
    text
}

fn machine(report: &Report) -> String {
    let m = &report.machine;
    format!(
        "{}, {} CPUs, {} MiB, Linux {}, load {}. Provider: {} ({}). {} workers or servers each.\n",
        m.processor,
        m.cpus,
        m.memory_mib,
        m.kernel,
        m.load,
        m.provider,
        m.provider_description,
        m.workers
    )
}

/// The targets and their values.
pub(crate) fn verdicts(verdicts: &[Verdict]) -> String {
    let mut text =
        String::from("| target | what | value | limit | | beside |\n|---|---|--:|--:|---|---|\n");
    for v in verdicts {
        let _ = writeln!(
            text,
            "| {} | {} | {} {} | {} | {} | {} |",
            v.id,
            v.what,
            figure(v.value),
            v.unit,
            v.limit.map_or(String::new(), figure),
            match v.limit {
                None => "measured",
                Some(_) if v.met => "met",
                Some(_) => "**not met**",
            },
            v.note
        );
    }
    text
}

/// The table of the group that `first` belongs to.
fn group(report: &Report, first: &Row) -> String {
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| row.set == first.set && row.id == first.id)
        .collect();
    let latency = rows.iter().any(|row| row.latency.is_some());
    if rows.iter().all(|row| row.ops == 0) {
        return figures_only(first, &rows);
    }
    let mut text = format!(
        "\n`{}`: {}; per {}, medians\n\n| system | wall us | (min - max) | CPU us | threads | voluntary switches |{} |\n|---|--:|---|--:|--:|--:|{}---|\n",
        first.id,
        first.title,
        first.unit,
        if latency {
            " p50 us | p99 us | p99.9 us | max us |"
        } else {
            ""
        },
        if latency { "--:|--:|--:|--:|" } else { "" },
    );
    for row in rows {
        let _ = write!(
            text,
            "| {}{} | {} | {} - {} | {} | {} | {} |",
            row.system,
            if row.beside_busy {
                ", beside a busy process"
            } else {
                ""
            },
            figure(row.wall_us),
            figure(row.wall_us_min),
            figure(row.wall_us_max),
            figure(row.cpu_us),
            // 0: threads of this system have no name that tells them apart.
            if row.threads == 0 {
                "-".into()
            } else {
                row.threads.to_string()
            },
            figure(row.voluntary),
        );
        if latency {
            match &row.latency {
                Some(l) => {
                    let _ = write!(
                        text,
                        " {} | {} | {} | {} |",
                        figure(l.p50),
                        figure(l.p99),
                        figure(l.p999),
                        figure(l.max)
                    );
                }
                None => text += " | | | |",
            }
        }
        let figures: Vec<String> = row
            .figures
            .iter()
            .map(|(name, value)| format!("{name} {}", figure(*value)))
            .collect();
        let _ = writeln!(text, " {} |", figures.join(", "));
    }
    text
}

/// The table of a group of probes, which has a column for each figure.
fn figures_only(first: &Row, rows: &[&Row]) -> String {
    let mut names: Vec<&String> = rows.iter().flat_map(|row| row.figures.keys()).collect();
    names.sort();
    names.dedup();
    let mut text = format!("\n`{}`: {}\n\n| system |", first.id, first.title);
    for name in &names {
        let _ = write!(text, " {name} |");
    }
    let _ = write!(text, "\n|---|{}\n", "--:|".repeat(names.len()));
    for row in rows {
        let _ = write!(text, "| {} |", row.system);
        for name in &names {
            let value = row.figures.get(*name).map_or(String::new(), |v| figure(*v));
            let _ = write!(text, " {value} |");
        }
        text += "\n";
    }
    text
}

/// The value with about three digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v < 0.1 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
