//! What can be said without a simulation: how often a word is written, and how often it can be.

use std::fmt::Write as _;

use super::line::{Fabric, NS};

/// A word, and what it is written for.
struct Count {
    word: &'static str,
    /// One of these ...
    event: &'static str,
    /// ... writes the line so often.
    writes: f64,
    /// One line for all CPUs; else one for each server or for each of many shards.
    global: bool,
}

const COUNTS: [Count; 15] = [
    Count {
        word: "count of `Arc<Shared>`",
        event: "task, from its making to its end",
        writes: 2.0,
        global: true,
    },
    Count {
        word: "the same",
        event: "`umcg::spawn` on a thread that is no worker of the runtime",
        writes: 4.0,
        global: true,
    },
    Count {
        word: "the same",
        event: "wait of the runtime's own on a worker, at least",
        writes: 2.0,
        global: true,
    },
    Count {
        word: "injector head",
        event: "task from outside",
        writes: 1.0,
        global: true,
    },
    Count {
        word: "injector tail",
        event: "task from outside",
        writes: 1.0,
        global: true,
    },
    Count {
        word: "`OutsideCounts`",
        event: "task from outside",
        writes: 1.0,
        global: true,
    },
    Count {
        word: "`Sleep::word`",
        event: "server that is claimed, runs and idles again",
        writes: 4.0,
        global: true,
    },
    Count {
        word: "the same",
        event: "push while a server is being woken",
        writes: 1.0,
        global: true,
    },
    Count {
        word: "`Cap`: own waits",
        event: "wait of the runtime's own on a worker",
        writes: 2.0,
        global: true,
    },
    Count {
        word: "lock of the timers",
        event: "`umcg::time::sleep`",
        writes: 4.0,
        global: true,
    },
    Count {
        word: "task id counter",
        event: "spawn",
        writes: 1.0 / 128.0,
        global: true,
    },
    Count {
        word: "lock of an arena's free list, of `Life`",
        event: "thread that comes or goes",
        writes: 2.0,
        global: true,
    },
    Count {
        word: "`OwnedTasks` shard",
        event: "future that suspends, from its first suspension to its end",
        writes: 4.0,
        global: false,
    },
    Count {
        word: "provider's record of a server: pins",
        event: "look of the monitor",
        writes: 2.0,
        global: false,
    },
    Count {
        word: "LIFO slot and waiting workers",
        event: "look of the monitor behind a worker that runs",
        writes: 2.0,
        global: false,
    },
];

/// The table: how many events a second one line bears at these distances, and the CPUs at which
/// that is reached if each has an event every 10 us.
pub(crate) fn table(fabric: &Fabric) -> String {
    let mut text = String::from(
        "| word | written for | writes | M events/s at 8 CPUs | at 64 | at 256 | \
         full with an event each 10 us and CPU at |\n|---|---|--:|--:|--:|--:|--:|\n",
    );
    for count in COUNTS {
        let ceilings = fabric.transfer.map(|transfer| {
            let each = (transfer + fabric.rmw) as f64 / NS as f64;
            1e3 / each / count.writes
        });
        let writes = if count.writes < 1.0 {
            format!("1/{:.0}", 1.0 / count.writes)
        } else {
            format!("{:.0}", count.writes)
        };
        let _ = write!(text, "| {} | {} | {writes} |", count.word, count.event);
        if count.global {
            for ceiling in ceilings {
                let _ = write!(text, " {ceiling:.1} |");
            }
            // 0.1 M events a second of a CPU.
            let cpus = [8.0, fabric.socket as f64, f64::INFINITY]
                .into_iter()
                .zip(ceilings)
                .map(|(limit, ceiling)| (limit, ceiling / 0.1))
                .find(|(limit, cpus)| cpus <= limit)
                .map_or(f64::INFINITY, |(_, cpus)| cpus);
            let _ = writeln!(text, " {cpus:.0} CPUs |");
        } else {
            text.push_str(" a line each | | | |\n");
        }
    }
    text
}
