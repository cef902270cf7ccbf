//! Parts of two pages are written by a run, between markers: the table of results on the project's
//! front page, and the table of targets on the page of the benches.

use std::{fmt::Write, fs, io, path::Path};

use super::{
    Report,
    markdown::{figure, verdicts},
};

const BEGIN: &str = "<!-- benches: written by umcg-benches --readme, not by hand -->";
const END: &str = "<!-- benches: end -->";

/// The rows of the front page: the group, its description, and the system of each column.
const SHOWN: [(&str, &str, [&str; 5]); 8] = [
    (
        "block_1ms",
        "2000 tasks that each block for 1 ms, in a plain call",
        ["umcg", "tokio", "async-executor", "", "std threads"],
    ),
    (
        "block_1ms",
        "the same in the system's own pool for blocking calls",
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
        "100 000 closures that each sleep for 100 us",
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
        "read a file of 4 KiB in a task",
        ["umcg", "tokio::fs", "async-fs", "", "std thread"],
    ),
    (
        "spawn_many_worker",
        "spawn a future in a task",
        ["umcg", "tokio", "async-executor", "", ""],
    ),
    (
        "yield_many",
        "yield",
        ["umcg", "tokio", "async-executor", "", ""],
    ),
    (
        "thread_ping_pong",
        "one message between two threads (std mpsc)",
        ["umcg::thread, one server", "", "", "", "std threads"],
    ),
    (
        "thread_spawn_join",
        "spawn a thread and join it",
        ["umcg::thread", "", "", "", "std::thread"],
    ),
];

/// The tickers of the front page: the group, and what runs beside the ticker.
const TICKERS: [(&str, &str); 2] = [
    ("ticker_blocked", "8 tasks that block for 100 ms"),
    (
        "ticker_mixed",
        "8 tasks that block and 2 that compute for 100 ms",
    ),
];

/// Writes the small table of results into the front page.
///
/// # Errors
///
/// There is no such file, or it has no markers.
pub fn readme(report: &Report, file: &Path) -> io::Result<()> {
    replace(file, &results(report))
}

/// Writes the table of targets into the page of the benches.
///
/// # Errors
///
/// There is no such file, or it has no markers.
pub fn targets(report: &Report, file: &Path) -> io::Result<()> {
    let text = format!("\n{}\n{}\n", conditions(report), verdicts(&report.verdicts));
    replace(file, &text)
}

/// Replaces what is between the markers of that file.
fn replace(file: &Path, new: &str) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let (head, rest) = text
        .split_once(BEGIN)
        .ok_or_else(|| io::Error::other(format!("no line {BEGIN}")))?;
    let (_, tail) = rest
        .split_once(END)
        .ok_or_else(|| io::Error::other(format!("no line {END}")))?;
    fs::write(file, format!("{head}{BEGIN}\n{new}{END}{tail}"))
}

/// On what the run was made, and how.
fn conditions(report: &Report) -> String {
    let m = &report.machine;
    format!(
        "Measured on {} with {} CPUs, Linux {}, the {} provider, and {} workers or servers for \
         each system, by `{}`.\n",
        m.processor, m.cpus, m.kernel, m.provider, m.workers, report.command
    )
}

fn results(report: &Report) -> String {
    let mut text = String::from(
        "\n| microseconds for each | umcg | tokio | async-executor | threadpool | std |\n\
         |---|--:|--:|--:|--:|--:|\n",
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
    for (id, what) in TICKERS {
        let systems = ["umcg", "tokio", "async-executor", "", "std threads"];
        if report.row(id, "umcg").is_none() {
            continue;
        }
        let _ = write!(text, "| lateness (p99) of a 1 ms ticker beside {what} |");
        for system in systems {
            let value = report
                .row(id, system)
                .and_then(|row| row.latency)
                .map_or(String::new(), |l| figure(l.p99));
            let _ = write!(text, " {value} |");
        }
        text += "\n";
    }
    text += "\n";
    text += &conditions(report);
    text += "\n";
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{BEGIN, END, readme, targets};
    use crate::{report::tests::report, targets::judge};

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
    fn the_targets_are_on_the_other_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("README.md");
        fs::write(&file, format!("{BEGIN}\n{END}")).expect("a file");
        let mut report = report();
        report.verdicts = judge(&report);
        targets(&report, &file).expect("markers");
        let text = fs::read_to_string(&file).expect("a file");
        assert!(text.contains("| P5 | yield_many | 0.50 x |"), "{text}");
        readme(&report, &file).expect("markers");
        let text = fs::read_to_string(&file).expect("a file");
        assert!(!text.contains("P5"), "{text}");
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
