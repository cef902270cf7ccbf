//! The results as a plot of the latency at each percentile.

use std::{error::Error, path::Path};

use plotters::prelude::*;
use umcg_notes::load::SHARES;

use crate::{Layout, System, table::Cell};

const SIZE: (u32, u32) = (900, 380);

/// The position of the slowest request, for which the stretched axis would be infinite.
const LAST: f64 = 4.2;

/// Returns the horizontal position of a share. Each further nine is as wide as the one before.
fn position(share: f64) -> f64 {
    if share >= 1.0 {
        LAST
    } else {
        -(1.0 - share).log10()
    }
}

/// Returns the text below a position of the axis.
fn label(position: f64) -> String {
    if (position - LAST).abs() < 0.11 {
        return "max".into();
    }
    let percent = 100.0 * (1.0 - 10f64.powf(-position));
    let digits = (position.round() as usize).saturating_sub(2);
    format!("{percent:.digits$} %")
}

fn colour(system: System) -> RGBColor {
    match system {
        System::Umcg => RGBColor(31, 119, 180),
        System::Threads => RGBColor(214, 39, 40),
        System::Batch => RGBColor(255, 127, 14),
        System::Tokio => RGBColor(90, 90, 90),
    }
}

/// Draws a chart for each layout into an SVG file.
pub(crate) fn draw(cells: &[Cell], file: &Path) -> anyhow::Result<()> {
    // The errors of plotters cannot be sent to other threads, as those of anyhow can.
    draw_all(cells, file).map_err(|error| anyhow::anyhow!("{error}"))
}

fn draw_all(cells: &[Cell], file: &Path) -> Result<(), Box<dyn Error>> {
    let curves: Vec<(&Cell, Vec<f64>)> = cells
        .iter()
        .map(|cell| (cell, cell.curve()))
        .filter(|(_, curve)| !curve.is_empty())
        .collect();
    let layouts: Vec<Layout> = [Layout::One, Layout::Both]
        .into_iter()
        .filter(|layout| curves.iter().any(|(cell, _)| cell.layout == *layout))
        .collect();
    let charts = layouts.len().max(1) as u32;
    let area = SVGBackend::new(file, (SIZE.0, SIZE.1 * charts)).into_drawing_area();
    area.fill(&WHITE)?;
    for (part, layout) in area.split_evenly((charts as usize, 1)).iter().zip(layouts) {
        let curves: Vec<_> = curves
            .iter()
            .filter(|(cell, _)| cell.layout == layout)
            .collect();
        let most = curves
            .iter()
            .flat_map(|(_, curve)| curve)
            .copied()
            .fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(part)
            .caption(format!("Latency: {}", layout.name()), ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..LAST, (0.05..most * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .x_labels(9)
            .x_label_formatter(&|at| label(*at))
            .y_desc("ms")
            .y_label_formatter(&|ms| format!("{ms}"))
            .draw()?;
        for (cell, curve) in curves {
            let colour = colour(cell.system);
            let points = SHARES
                .iter()
                .zip(curve)
                // Zero has no place on a logarithmic axis.
                .map(|(share, latency)| (position(*share), latency.max(0.05)));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(cell.system.name())
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use umcg_notes::load::{Latencies, Report};

    use super::*;

    #[test]
    fn each_nine_is_as_wide_as_the_one_before() {
        assert_eq!(position(0.0), 0.0);
        assert!((position(0.99) - 2.0).abs() < 1e-9);
        assert!(SHARES.is_sorted_by(|a, b| position(*a) < position(*b)));
        assert_eq!(label(1.0), "90 %");
        assert_eq!(label(3.0), "99.9 %");
        assert_eq!(label(LAST), "max");
    }

    #[test]
    fn each_system_that_has_results_is_drawn() {
        let mut cells = [
            Cell::new(Layout::Both, System::Umcg),
            Cell::new(Layout::Both, System::Tokio),
        ];
        cells[0].reports.push(Report {
            all: Latencies {
                curve: vec![0.0; SHARES.len()],
                ..Latencies::default()
            },
            kinds: Vec::new(),
            unanswered: 0,
            service: None,
            idle: None,
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plot.svg");
        draw(&cells, &file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("umcg") && !text.contains("tokio"), "{text}");
    }
}
