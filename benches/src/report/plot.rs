//! A report as pictures: a file for each group, with bars for each system.

use std::{error::Error, fs, path::Path};

use plotters::prelude::*;

use super::{Report, Row};

const WIDTH: u32 = 900;
/// The width of the column with the names of the systems.
const NAMES: u32 = 230;
const BAR: u32 = 22;
const HEAD: u32 = 44;

/// A column of bars.
struct Column {
    title: &'static str,
    value: fn(&Row) -> f64,
}

const COLUMNS: [Column; 4] = [
    Column {
        title: "wall us",
        value: |row| row.wall_us,
    },
    Column {
        title: "CPU us",
        value: |row| row.cpu_us,
    },
    Column {
        title: "threads",
        value: |row| row.threads as f64,
    },
    Column {
        title: "voluntary switches",
        value: |row| row.voluntary,
    },
];

const LATENCIES: [Column; 2] = [
    Column {
        title: "p50 us",
        value: |row| row.latency.map_or(0.0, |l| l.p50),
    },
    Column {
        title: "p99 us",
        value: |row| row.latency.map_or(0.0, |l| l.p99),
    },
];

/// Writes a file for each group that was timed into the folder `plots` there.
pub(super) fn all(report: &Report, folder: &Path) -> Result<(), Box<dyn Error>> {
    let folder = folder.join("plots");
    fs::create_dir_all(&folder)?;
    let mut done: Vec<(&str, &str)> = Vec::new();
    for row in &report.rows {
        let here = (row.set.as_str(), row.id.as_str());
        if row.ops == 0 || done.contains(&here) {
            continue;
        }
        done.push(here);
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|other| (other.set.as_str(), other.id.as_str()) == here)
            .collect();
        let file = folder.join(format!("{}-{}.svg", row.set, row.id));
        draw(&file, &rows)?;
    }
    Ok(())
}

/// Draws a row of bars for each system, and a column for each figure. Each column has its own
/// scale, which is logarithmic where the systems are far apart.
fn draw(file: &Path, rows: &[&Row]) -> Result<(), Box<dyn Error>> {
    let mut columns: Vec<&Column> = COLUMNS.iter().collect();
    if rows.iter().any(|row| row.latency.is_some()) {
        columns.extend(&LATENCIES);
    }
    let height = HEAD + 20 + BAR * rows.len() as u32 + 10;
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let small = ("sans-serif", 11).into_font();
    let title = format!("{}: {}; per {}", rows[0].id, rows[0].title, rows[0].unit);
    area.draw(&Text::new(title, (8, 8), ("sans-serif", 13).into_font()))?;
    let width = (WIDTH - NAMES) / columns.len() as u32;
    for (c, column) in columns.iter().enumerate() {
        let left = (NAMES + c as u32 * width) as i32;
        let values: Vec<f64> = rows.iter().map(|row| (column.value)(row)).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values
            .iter()
            .copied()
            .filter(|v| *v > 0.0)
            .fold(f64::INFINITY, f64::min);
        let logarithmic = most > 30.0 * least;
        let heading = if logarithmic {
            format!("{} (log)", column.title)
        } else {
            column.title.into()
        };
        area.draw(&Text::new(heading, (left, HEAD as i32 - 8), small.clone()))?;
        for (r, (row, value)) in rows.iter().zip(&values).enumerate() {
            let top = (HEAD + 12 + r as u32 * BAR) as i32;
            if c == 0 {
                area.draw(&Text::new(label(row), (8, top + 3), small.clone()))?;
            }
            let part = if *value <= 0.0 {
                0.0
            } else if logarithmic {
                // The smallest value has a tenth of the width.
                0.1 + 0.9 * (value / least).ln() / (most / least).ln()
            } else {
                value / most
            };
            // Leaves room for the number after the bar.
            let length = (part * f64::from(width - 60)) as i32;
            let colour = if row.system.starts_with("umcg") {
                RGBColor(31, 119, 180)
            } else {
                RGBColor(170, 170, 170)
            };
            area.draw(&Rectangle::new(
                [(left, top), (left + length.max(1), top + BAR as i32 - 7)],
                colour.filled(),
            ))?;
            let number = super::markdown::figure(*value);
            area.draw(&Text::new(
                number,
                (left + length + 4, top + 3),
                small.clone(),
            ))?;
        }
    }
    area.present()?;
    Ok(())
}

fn label(row: &Row) -> String {
    if row.beside_busy {
        format!("{}, beside a busy process", row.system)
    } else {
        row.system.clone()
    }
}
