//! The work, in sets that can be chosen.

mod blocking;
mod executor;
mod files;
mod handover;
mod threads;
pub mod work;

use crate::{report::Row, runner::Effort, system::Systems};

/// A set of pieces of work.
#[derive(Clone, Copy, Debug)]
pub struct Set {
    /// What the command line calls it.
    pub name: &'static str,
    /// What is in it.
    pub about: &'static str,
    run: fn(&Systems, &Effort) -> Vec<Row>,
}

impl Set {
    /// Runs it.
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
        about: "plain async: tokio's rt_multi_threaded, async-executor's suite (P5)",
        run: executor::run,
    },
    Set {
        name: "blocking",
        about: "tasks and closures that sleep (P2, P3, B3)",
        run: blocking::run,
    },
    Set {
        name: "files",
        about: "files from async tasks (P1, B2)",
        run: files::run,
    },
    Set {
        name: "handover",
        about: "from a block to the next worker running (P4)",
        run: handover::run,
    },
    Set {
        name: "threads",
        about: "threads that talk, spawn and join (P6, P7)",
        run: threads::run,
    },
];
