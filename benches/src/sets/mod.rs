//! The sets, each of which has several groups.

mod blocking;
mod contention;
mod executor;
mod files;
mod growth;
pub(crate) mod handover;
mod held_lock;
mod hidden;
mod idle;
mod locks;
mod neighbour;
mod talk;
mod threads;
pub mod work;

use crate::{report::Row, runner::Effort, system::Systems};

/// A set of groups.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// The name on the command line.
    pub name: &'static str,
    /// A description for `--list`.
    pub about: &'static str,
    /// Workers, servers or threads of each system. `None` means the number of the run. A set with
    /// its own number is not part of the targets.
    pub workers: Option<usize>,
    run: fn(&Systems, &Effort) -> Vec<Row>,
}

impl Set {
    /// Runs all its groups.
    pub fn run(&self, systems: &Systems, effort: &Effort) -> Vec<Row> {
        let mut rows = (self.run)(systems, effort);
        for row in &mut rows {
            row.set = self.name.into();
        }
        rows
    }
}

/// All sets.
pub const SETS: &[Set] = &[
    Set {
        name: "executor",
        about: "futures: tokio's rt_multi_threaded, async-executor's suite (P5)",
        workers: None,
        run: executor::run,
    },
    Set {
        name: "executor-one",
        about: "the groups of P5 with one worker for each system",
        workers: Some(1),
        run: executor::one,
    },
    Set {
        name: "blocking",
        about: "tasks and closures that sleep (P2, P3)",
        workers: None,
        run: blocking::run,
    },
    Set {
        name: "files",
        about: "files in async tasks (P1)",
        workers: None,
        run: files::run,
    },
    Set {
        name: "handover",
        about: "from a block to the next worker (P4)",
        workers: None,
        run: handover::run,
    },
    Set {
        name: "threads",
        about: "threads that talk, spawn and join (P6, P7)",
        workers: None,
        run: threads::run,
    },
    Set {
        name: "neighbour",
        about: "lateness of a ticker beside tasks that block or compute (P8)",
        workers: None,
        run: neighbour::run,
    },
    Set {
        name: "talk",
        about: "socket pairs, a TCP server, name look-ups",
        workers: None,
        run: talk::run,
    },
    Set {
        name: "locks",
        about: "locks in tasks, held across blocking calls (S9)",
        workers: None,
        run: locks::run,
    },
    Set {
        name: "growth",
        about: "nested waits at the limit of threads, memory of tasks and workers",
        workers: None,
        run: growth::run,
    },
    Set {
        name: "hidden",
        about: "growth of the descriptor table, page faults",
        workers: None,
        run: hidden::run,
    },
    Set {
        name: "idle",
        about: "the cost of being idle, and how long threads stay (P10)",
        workers: None,
        run: idle::run,
    },
    Set {
        name: "contention",
        about: "a file, futures and threads beside a busy process (P9)",
        workers: None,
        run: contention::run,
    },
    Set {
        name: "contention-blocking",
        about: "tasks and closures that sleep, beside a busy process (P9)",
        workers: None,
        run: contention::blocking,
    },
];

/// The set of that name.
pub fn named(name: &str) -> Option<&'static Set> {
    SETS.iter().find(|set| set.name == name)
}

/// Runs one group for CI, with the systems that CI compares.
pub(crate) fn check(id: &str, systems: &Systems, effort: &Effort) -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut groups = vec![files::warm(systems, folder.path())];
    groups.extend(blocking::groups(systems, effort));
    groups.extend(executor::targeted(systems, effort));
    groups.extend(threads::groups());
    groups
        .into_iter()
        .filter(|group| group.id() == id)
        .flat_map(|mut group| {
            group.keep(&[
                "umcg",
                "umcg::thread",
                "umcg::thread, one server",
                "tokio",
                "tokio spawn_blocking",
                "tokio spawn_blocking, cold",
                "std thread",
                "std threads",
                "std::thread",
            ]);
            group.run(effort)
        })
        .collect()
}

/// Runs the probe with these arguments in this process. Returns false if there is no such probe.
pub fn probe(arguments: &[String]) -> bool {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse().unwrap_or(1);
    match words[..] {
        ["lock_and_join", system] => locks::lock_and_join(system),
        ["cap_nested", system] => growth::cap_nested(system),
        ["memory_blocked", system, workers, count] => {
            growth::memory_blocked(system, number(workers), number(count));
        }
        ["memory_idle", workers] => growth::memory_idle(number(workers)),
        ["memory_task", system, workers] => growth::memory_task(system, number(workers)),
        ["fd_table", system, workers] => hidden::fd_table(system, number(workers)),
        ["burst", system, workers] => idle::burst(system, number(workers)),
        ["idle", system, workers, seconds] => {
            idle::idle(system, number(workers), number(seconds) as u64);
        }
        _ => return false,
    }
    true
}
