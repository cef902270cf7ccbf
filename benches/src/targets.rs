//! The targets of the project, and whether a run meets them. `README.md` beside the manifest
//! defines P1 to P10.

use serde::{Deserialize, Serialize};

use crate::report::{Report, Row};

/// A target, and the value that a run has for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Verdict {
    pub id: String,
    pub what: String,
    pub value: f64,
    /// The largest value that meets the target. None: the value is shown and not judged.
    pub limit: Option<f64>,
    pub unit: String,
    /// The peer that the value is a ratio to, or how it was computed.
    pub note: String,
    pub met: bool,
}

/// The systems that umcg is compared with at futures.
const ASYNC_PEERS: [&str; 3] = ["tokio", "async-executor", "futures"];

/// The groups of P5.
pub const P5: [&str; 7] = [
    "spawn_many_local",
    "spawn_many_worker",
    "spawn_many_remote",
    "yield_many",
    "ping_pong",
    "chained_spawn",
    "web_server",
];

/// The groups of P9, the system, and how many times as long each may take beside a busy process.
const P9: [(&str, &str, f64); 13] = [
    ("block_1ms", "umcg", 1.5),
    ("sleep_100us", "umcg", 1.5),
    ("compute_sleep_100us", "umcg", 1.5),
    ("spawn_many_local", "umcg", 1.5),
    ("spawn_many_worker", "umcg", 1.5),
    ("spawn_many_remote", "umcg", 1.5),
    ("yield_many", "umcg", 1.5),
    ("ping_pong", "umcg", 1.5),
    ("chained_spawn", "umcg", 1.5),
    ("web_server", "umcg", 1.5),
    ("read_4k", "umcg", 2.2),
    ("thread_ping_pong", "umcg::thread, one server", 2.2),
    ("thread_spawn_join", "umcg::thread", 2.2),
];

/// The systems that the tickers of P8 are shown beside.
const PLAIN: [&str; 6] = [
    "tokio",
    "tokio spawn_blocking",
    "async-executor",
    "futures",
    "may",
    "std threads",
];

/// Milliseconds of CPU time in ten seconds that count as none: the thread that measures uses about
/// as much.
const IDLE_MS: f64 = 0.5;

/// Seconds after which the threads of a burst must have gone: the keep-alive time and a tenth of
/// it.
const KEEP_ALIVE: f64 = 11.0;

/// Judges the targets that the report has rows for.
pub fn judge(report: &Report) -> Vec<Verdict> {
    let mut found = Vec::new();
    let mut add =
        |id: &str, what: &str, value: Option<f64>, limit: f64, unit: &str, note: String| {
            if let Some(value) = value {
                found.push(Verdict {
                    id: id.into(),
                    what: what.into(),
                    value,
                    limit: limit.is_finite().then_some(limit),
                    unit: unit.into(),
                    note,
                    met: value <= limit,
                });
            }
        };
    let wall = |id: &str, system: &str| report.row(id, system).map(|row| row.wall_us);
    let ratio = |id: &str, ours: &str, theirs: &str| Some(wall(id, ours)? / wall(id, theirs)?);
    let threads = |id: &str| report.row(id, "umcg").map(|row| row.threads as f64);
    let at = |row: Option<&Row>, f: fn(&crate::report::Latency) -> f64| {
        row.and_then(|row| row.latency.as_ref()).map(f)
    };

    add(
        "P1",
        "4 KiB read from an async task",
        ratio("read_4k", "umcg", "std thread"),
        1.1,
        "x",
        "std::fs::read on a thread".into(),
    );
    add(
        "P2",
        "2000 tasks that block for 1 ms, warm pool",
        wall("block_1ms", "umcg"),
        8.0,
        "us",
        String::new(),
    );
    add(
        "P2",
        "the same as a ratio",
        ratio("block_1ms", "umcg", "tokio spawn_blocking, cold"),
        1.0,
        "x",
        "tokio spawn_blocking, cold".into(),
    );
    let pool = format!("threadpool({})", crate::system::THREADPOOL_THREADS);
    add(
        "P3",
        "closures that sleep for 100 us",
        ratio("sleep_100us", "umcg", &pool),
        1.0,
        "x",
        pool.clone(),
    );
    add(
        "P3",
        "its number of threads",
        threads("sleep_100us"),
        128.0,
        "threads",
        String::new(),
    );
    add(
        "P3",
        "the same with 10 us of computing before and after",
        ratio("compute_sleep_100us", "umcg", &pool),
        1.05,
        "x",
        pool.clone(),
    );
    add(
        "P3",
        "its number of threads",
        threads("compute_sleep_100us"),
        128.0,
        "threads",
        String::new(),
    );
    for (what, id, limit) in [
        ("armed spare", "handover_spare", 3.2),
        ("by the server", "handover_server", 5.5),
    ] {
        add(
            "P4",
            &format!("from a block to the next worker, p50, {what}"),
            at(report.row(id, "umcg"), |l| l.p50),
            limit,
            "us",
            at(report.row(id, "umcg"), |l| l.p99)
                .map_or(String::new(), |p99| format!("p99 {p99:.1} us")),
        );
        add(
            "P4",
            &format!("the same beside a busy process, {what}"),
            at(report.row_beside(id, "umcg"), |l| l.p50),
            120.0,
            "us",
            at(report.row_beside(id, "umcg"), |l| l.p99)
                .map_or(String::new(), |p99| format!("p99 {p99:.1} us")),
        );
    }
    let mut logs = Vec::new();
    for id in P5 {
        let Some((peer, best)) = best_peer(report, id) else {
            continue;
        };
        let value = wall(id, "umcg").map(|ours| ours / best);
        logs.extend(value.map(f64::ln));
        add("P5", id, value, 1.0, "x", peer);
    }
    if logs.len() == P5.len() {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        add(
            "P5",
            "geometric mean",
            Some(mean),
            0.8,
            "x",
            "the best peer of each".into(),
        );
    }
    add(
        "P6",
        "a message between two threads",
        wall("thread_ping_pong", "umcg::thread, one server"),
        2.0,
        "us",
        wall("thread_ping_pong", "std threads")
            .map_or(String::new(), |us| format!("std {us:.1} us")),
    );
    add(
        "P7",
        "spawn a thread and join it",
        wall("thread_spawn_join", "umcg::thread"),
        3.5,
        "us",
        wall("thread_spawn_join", "std::thread")
            .map_or(String::new(), |us| format!("std {us:.1} us")),
    );
    add(
        "P7",
        "spawn a thread, the call alone",
        wall("thread_spawn", "umcg::thread"),
        0.3,
        "us",
        wall("thread_spawn", "std::thread").map_or(String::new(), |us| format!("std {us:.1} us")),
    );
    // The limits in microseconds were set on a machine where such a switch takes 1.35 us.
    let switches = |id, system| Some(wall(id, system)? / wall("futex_switch", "bare threads")?);
    let switch = wall("futex_switch", "bare threads")
        .zip(wall("futex_switch", "beside an idle one"))
        .map_or(String::new(), |(bare, idle)| {
            format!("a switch takes {bare:.2} us, {idle:.2} us beside a sentinel")
        });
    add(
        "P6",
        "a message between two threads, in futex switches",
        switches("thread_ping_pong", "umcg::thread, one server"),
        2.0 / 1.35,
        "x",
        switch.clone(),
    );
    add(
        "P7",
        "spawn a thread and join it, in futex switches",
        switches("thread_spawn_join", "umcg::thread"),
        3.5 / 1.35,
        "x",
        switch,
    );
    // P8 is measured and not judged.
    for id in ["ticker_blocked", "ticker_mixed"] {
        let p99 = |system| at(report.row(id, system), |l| l.p99);
        let beside: Vec<String> = PLAIN
            .iter()
            .filter_map(|peer| Some(format!("{peer} {:.0}", p99(peer)?)))
            .collect();
        let what = format!("{id}, lateness, p99");
        add(
            "P8",
            &what,
            p99("umcg"),
            f64::INFINITY,
            "us",
            beside.join(", "),
        );
    }
    for (id, system, limit) in P9 {
        let value = report.row_beside(id, system).and_then(|beside| {
            // The row of the same rounds.
            let alone = report.rows.iter().find(|row| {
                let same = (&row.set, &row.id, &row.system);
                same == (&beside.set, &beside.id, &beside.system) && !row.beside_busy
            })?;
            Some(beside.wall_us / alone.wall_us)
        });
        add(
            "P9",
            &format!("{id} beside a busy process"),
            value,
            limit,
            "x",
            "alone".into(),
        );
    }
    let figure = |id, name: &str| report.row(id, "umcg")?.figures.get(name).copied();
    add(
        "P10",
        "wake-ups in 10 s of idleness",
        figure("idle", "wake-ups"),
        0.0,
        "",
        String::new(),
    );
    add(
        "P10",
        "CPU time in 10 s of idleness",
        figure("idle", "CPU ms"),
        IDLE_MS,
        "ms",
        "includes the measuring thread".into(),
    );
    let burst = figure("burst", "seconds until then");
    add(
        "P10",
        "until the threads of a burst of 5000 blocks are gone",
        burst,
        KEEP_ALIVE,
        "s",
        "the keep-alive time is 10 s".into(),
    );
    found
}

/// The fastest of [`ASYNC_PEERS`] at that work. The pool of `futures` polls a task that yields
/// again at once, and lets no other task run. So it does not do the work of `yield_many`, nor that
/// of `web_server`, whose database task yields for each request, and is left out there.
pub fn best_peer(report: &Report, id: &str) -> Option<(String, f64)> {
    ASYNC_PEERS
        .iter()
        .filter(|peer| !(matches!(id, "yield_many" | "web_server") && **peer == "futures"))
        .filter_map(|peer| Some(((*peer).to_string(), report.row(id, peer)?.wall_us)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::report::tests::{report, row};

    #[test]
    fn ratios_are_to_the_best_peer_that_does_the_work() {
        let mut report = report();
        report
            .rows
            .push(row("executor", "yield_many", "async-executor", 0.4));
        // Left out: see `best_peer`.
        report
            .rows
            .push(row("executor", "yield_many", "futures", 0.1));
        let verdicts = judge(&report);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].note, "async-executor");
        assert!((verdicts[0].value - 1.25).abs() < 1e-9);
        assert!(!verdicts[0].met);
    }

    #[test]
    fn rows_of_one_worker_are_no_target() {
        let mut report = report();
        for row in &mut report.rows {
            row.set = "executor-one".into();
        }
        assert!(judge(&report).is_empty());
    }

    #[test]
    fn beside_is_compared_with_alone_of_the_same_set() {
        let mut report = report();
        report
            .rows
            .push(row("contention", "yield_many", "umcg", 1.0));
        let mut beside = row("contention", "yield_many", "umcg", 1.4);
        beside.beside_busy = true;
        report.rows.push(beside);
        // Another set, which must not be compared with.
        report.rows.push(row("executor", "yield_many", "umcg", 2.0));
        let p9 = judge(&report);
        let p9 = p9.iter().find(|v| v.id == "P9").expect("a verdict");
        assert!((p9.value - 1.4).abs() < 1e-9);
        assert!(p9.met);
    }
}
