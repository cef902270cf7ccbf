//! The project's first page shows a run, between two markers.

use std::{fmt::Write, fs, io, path::Path};

use super::{
    Report,
    markdown::{figure, verdicts},
};

const BEGIN: &str = "<!-- benches: written by umcg-benches --readme, not by hand -->";
const END: &str = "<!-- benches: end -->";

/// What is shown: the work, its words, and per column the system whose row it is.
const SHOWN: [(&str, &str, [&str; 5]); 11] = [
    (
        "block_1ms",
        "2000 tasks that each block 1 ms, called directly",
        ["umcg", "tokio", "async-executor", "", "std threads"],
    ),
    (
        "block_1ms",
        "the same, told what blocks",
        [
            "umcg",
            "tokio spawn_blocking, cold",
            "async-executor unblock",
            "threadpool(512)",
            "",
        ],
    ),
    (
        "sleep_100us",
        "closures that sleep 100 us",
        [
            "umcg",
            "tokio spawn_blocking",
            "async-executor unblock",
            "threadpool(512)",
            "",
        ],
    ),
    (
        "compute_sleep_100us",
        "the same, computing 10 us before and after",
        [
            "umcg",
            "tokio spawn_blocking",
            "async-executor unblock",
            "threadpool(512)",
            "",
        ],
    ),
    (
        "read_4k",
        "read a file of 4 KiB from a task",
        ["umcg", "tokio::fs", "async-fs", "", "std thread"],
    ),
    (
        "spawn_many_worker",
        "spawn a future from a task",
        ["umcg", "tokio", "async-executor", "", ""],
    ),
    (
        "yield_many",
        "yield",
        ["umcg", "tokio", "async-executor", "", ""],
    ),
    (
        "ping_pong",
        "ping-pong: 2 tasks, 2 channels",
        ["umcg", "tokio", "async-executor", "", ""],
    ),
    (
        "web_server",
        "async-executor's web_server, a request",
        ["umcg", "tokio", "async-executor", "", ""],
    ),
    (
        "thread_ping_pong",
        "std mpsc between two threads, one way",
        ["umcg::thread, one server", "", "", "", "std threads"],
    ),
    (
        "thread_spawn_join",
        "spawn a thread and join it",
        ["umcg::thread", "", "", "", "std::thread"],
    ),
];

/// Replaces what is between the markers of that file.
///
/// # Errors
///
/// No such file, or no markers in it.
pub fn readme(report: &Report, file: &Path) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let (head, rest) = text
        .split_once(BEGIN)
        .ok_or_else(|| io::Error::other(format!("no line {BEGIN}")))?;
    let (_, tail) = rest
        .split_once(END)
        .ok_or_else(|| io::Error::other(format!("no line {END}")))?;
    fs::write(
        file,
        format!("{head}{BEGIN}\n{}{END}{tail}", section(report)),
    )
}

fn section(report: &Report) -> String {
    let m = &report.machine;
    let mut text = format!(
        "\nMicroseconds of wall time for each, medians; {} workers or servers each, all systems \
         of a line in one process and one run. {}, {} CPUs, Linux {}, provider {}.\n\n\
         | work | umcg | tokio | async-executor, blocking | threadpool, 512 threads | std |\n\
         |---|--:|--:|--:|--:|--:|\n",
        m.workers, m.processor, m.cpus, m.kernel, m.provider
    );
    for (id, what, systems) in SHOWN {
        if report.row(id, systems[0]).is_none() {
            continue;
        }
        let _ = write!(text, "| {what} |");
        for system in systems {
            let value = report
                .row(id, system)
                .map_or(String::new(), |row| figure(row.wall_us));
            let _ = write!(text, " {value} |");
        }
        text += "\n";
    }
    for (id, what) in [
        ("ticker_blocked", "8 tasks that block 100 ms"),
        ("ticker_mixed", "these and 2 that compute 100 ms"),
    ] {
        let systems = ["umcg", "tokio", "async-executor", "", "std threads"];
        if report.row(id, "umcg").is_none() {
            continue;
        }
        let _ = write!(text, "| 1 ms ticker beside {what}: p99 lateness |");
        for system in systems {
            let value = report
                .row(id, system)
                .and_then(|row| row.latency)
                .map_or(String::new(), |l| figure(l.p99));
            let _ = write!(text, " {value} |");
        }
        text += "\n";
    }
    text += "\nWhat was to be reached, and what was:\n\n";
    text += &verdicts(&report.verdicts);
    text += "\nEverything that was measured, with CPU time, threads and switches: \
             [benches/results/table.md](benches/results/table.md). Again: \
             `cargo run --release --manifest-path benches/Cargo.toml -- --readme`.\n\n";
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{BEGIN, END, readme};
    use crate::report::tests::report;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("README.md");
        fs::write(&file, format!("head\n{BEGIN}\nold\n{END}\ntail\n")).expect("a file");
        for _ in 0..2 {
            readme(&report(), &file).expect("markers");
            let text = fs::read_to_string(&file).expect("a file");
            assert!(text.starts_with(&format!("head\n{BEGIN}\n")), "{text}");
            assert!(text.ends_with(&format!("{END}\ntail\n")), "{text}");
            assert!(!text.contains("old"), "{text}");
            assert!(text.contains("| yield | 0.50 | 1.00 |"), "{text}");
        }
    }

    #[test]
    fn a_page_without_markers_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("README.md");
        fs::write(&file, "text").expect("a file");
        assert!(readme(&report(), &file).is_err());
        assert_eq!(fs::read_to_string(&file).expect("a file"), "text");
    }
}
