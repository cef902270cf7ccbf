//! The quick subset for CI: ratios to a peer in the same run, with generous bounds.
//!
//! The bounds are about three times the ratios on a quiet machine. They find a regression by a
//! factor, on a machine that does other work as well. The [`targets`](crate::targets) are stricter.

use std::{process::ExitCode, time::Duration};

use crate::{report::Report, runner::Effort, sets, system::Systems};

/// The group, our system, the peer, and the largest ratio of our time to the peer's time.
const BOUNDS: [(&str, &str, &str, f64); 11] = [
    ("read_4k", "umcg", "std thread", 2.0),
    ("block_1ms", "umcg", "tokio spawn_blocking, cold", 4.0),
    ("block_1ms", "umcg", "tokio", 0.3),
    ("sleep_100us", "umcg", "tokio spawn_blocking", 3.0),
    ("spawn_many_local", "umcg", "tokio", 5.0),
    ("spawn_many_worker", "umcg", "tokio", 5.0),
    ("yield_many", "umcg", "tokio", 4.0),
    ("ping_pong", "umcg", "tokio", 8.0),
    ("chained_spawn", "umcg", "tokio", 6.0),
    (
        "thread_ping_pong",
        "umcg::thread, one server",
        "std threads",
        2.0,
    ),
    ("thread_spawn_join", "umcg::thread", "std::thread", 1.5),
];

/// Runs the subset. Fails if a bound is exceeded twice in a row.
pub fn run(workers: usize) -> ExitCode {
    let systems = Systems::start(workers);
    let mut report = Report::empty("check", &systems);
    let mut good = true;
    let mut groups: Vec<&str> = BOUNDS.iter().map(|bound| bound.0).collect();
    groups.dedup();
    for id in groups {
        // Another process may have disturbed the first try, so there is a second one with more
        // rounds.
        for rounds in [5, 9] {
            let effort = Effort {
                rounds,
                budget: Duration::from_millis(600),
                quick: true,
                only: Some(id),
                system: None,
            };
            report.rows.retain(|row| row.id != id);
            report.rows.extend(sets::check(id, &systems, &effort));
            if broken(&report, id).is_empty() {
                break;
            }
        }
        for (ours, peer, ratio, bound) in ratios(&report, id) {
            let word = if ratio <= bound { "ok" } else { "BROKEN" };
            println!("{id:20} {ours} / {peer}: {ratio:.2}, at most {bound}: {word}");
        }
        good &= broken(&report, id).is_empty();
    }
    ExitCode::from(u8::from(!good))
}

fn ratios<'a>(
    report: &'a Report,
    id: &'a str,
) -> impl Iterator<Item = (&'static str, &'static str, f64, f64)> + 'a {
    BOUNDS
        .iter()
        .filter(move |bound| bound.0 == id)
        .map(|&(id, ours, peer, bound)| {
            let wall = |system| report.row(id, system).map_or(f64::NAN, |row| row.wall_us);
            (ours, peer, wall(ours) / wall(peer), bound)
        })
}

/// Our systems that exceed a bound. A ratio without a value counts.
fn broken<'a>(report: &'a Report, id: &'a str) -> Vec<&'static str> {
    ratios(report, id)
        .filter(|&(_, _, ratio, bound)| ratio.is_nan() || ratio > bound)
        .map(|(ours, ..)| ours)
        .collect()
}
