//! The tables.

use std::fmt::Write as _;

use super::{
    Args, CASES, Case, EMPTY, Effort, fit, job,
    line::{Fabric, NS, Ps},
    measure::Costs,
    quiet::measured,
    real,
    sim::{Fixes, Local, Outcome, Workload},
    simulate,
    word::{WORDS, Word},
};

/// Shown.
const COLUMNS: [usize; 5] = [1, 2, 8, 64, 256];

/// The place of 64 there.
const AT_64: usize = 3;

/// Where saturation is looked for.
const GRID: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// A word whose busiest line is in use for so long is full.
const FULL: f64 = 0.9;

/// The fixes, one after the other.
fn steps() -> [(&'static str, Fixes); 5] {
    let none = Fixes::default();
    let count = Fixes {
        count: true,
        ..none
    };
    let queue = Fixes {
        queue: true,
        ..count
    };
    let wake = Fixes {
        wake: true,
        ..queue
    };
    let scan = Fixes { scan: true, ..wake };
    [
        ("as it is", none),
        ("tasks do not count references to `Shared`", count),
        (
            "and queues: several at once, back-off, a push looks at the tail alone",
            queue,
        ),
        ("and `Sleep::word` is read before it is written", wake),
        ("and looks at all queues begin at the own one", scan),
    ]
}

/// What was measured.
pub(super) fn costs(costs: &Costs, fabric: &Fabric, args: &Args) -> String {
    // Others on the machine: the figures are no good if there were any.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut text = format!(
        "# Shared words beyond two CPUs\n\n\
         Seed {}, {} rounds, load {}. Nanoseconds, medians.\n\n\
         | measured here | ns |\n|---|--:|\n",
        args.seed,
        args.rounds,
        load.trim()
    );
    for (what, ns) in [
        ("load, one of many, the line is here", costs.load),
        ("locked read-modify-write, the line is here", costs.rmw),
        ("store and SeqCst fence", costs.fence),
        ("clock", costs.clock),
        (
            "read-modify-write of a line that the other CPU wrote",
            costs.rmw_dirty,
        ),
        ("of a line that both have read", costs.rmw_shared),
        ("load of a line that the other CPU wrote", costs.load_dirty),
        ("of many such lines, a line", costs.load_scan),
        ("the same, a fence for each two", costs.load_fenced),
        (
            "from a store to the answering store of the other CPU",
            costs.hand,
        ),
        ("one addition, both CPUs at one word", costs.both_add),
        (
            "one increment by compare-exchange, both at one word",
            costs.both_cas,
        ),
        ("one addition, both CPUs at a word each", costs.both_own),
        (
            "waking a thread on the other CPU, for the waker",
            costs.wake,
        ),
        ("until it runs", costs.wake_latency),
    ] {
        let _ = writeln!(text, "| {what} | {ns:.1} |");
    }
    let _ = writeln!(
        text,
        "\nA multiplication takes {:.2} x as long while the other CPU multiplies as well.",
        costs.pair
    );
    let _ = writeln!(
        text,
        "\n| larger machines | |\n|---|--:|\n\
         | transfer within a cluster of {} CPUs | {:.1} ns, {} |\n\
         | within a socket of {} CPUs | {} ns, assumed |\n\
         | between sockets | {} ns, assumed |\n\
         | loads under way at once when many are looked at | {}, measured |\n\
         | a clean line serves a reader for | {} ns, assumed |",
        args.cluster,
        fabric.transfer[0] as f64 / NS as f64,
        if args.near.is_some() {
            "given"
        } else {
            "measured"
        },
        args.socket,
        args.mid,
        args.far,
        fabric.overlap,
        args.home
    );
    text
}

/// The runtime beside the simulation, on the two CPUs here; prints, and returns the local costs of
/// tasks that compute and of those that block, as fitted.
pub(super) fn check(
    cpus: [usize; 2],
    effort: Effort,
    here: Fabric,
    costs: &Costs,
    seed: u64,
) -> [Local; 2] {
    println!(
        "## Two CPUs: the runtime and the simulation\n\n\
         ns of a CPU for a task, medians of {} runs. Fitted: one server; or, where both CPUs are \
         busy, two runtimes of one server each at the same time. Predicted with the costs \
         measured here.\n\n\
         | workload | servers | runtime | simulation | | stolen | simulated |\n\
         |---|--:|--:|--:|--:|--:|--:|",
        effort.runs
    );
    let row = |what: &str, servers: &str, seen: &real::Seen, predicted: Option<&Outcome>| {
        let (shown, off, stolen) = match predicted {
            Some(outcome) => {
                let ns = 1e9 / outcome.per_cpu;
                (
                    format!("{ns:.0}"),
                    format!("{:+.0} %", (ns / seen.task_ns - 1.0) * 100.0),
                    format!("{:.2}", outcome.stolen),
                )
            }
            None => ("fitted".into(), String::new(), String::new()),
        };
        println!(
            "| {what} | {servers} | {:.0} | {shown} | {off} | {:.2} | {stolen} |",
            seen.task_ns, seen.stolen
        );
    };
    let none = Fixes::default();
    let [spawn, steal, _, outside, block] = &CASES;
    let less = Effort {
        rounds: effort.rounds / 8 + 1,
        ..effort
    };

    let short = job(spawn);
    let alone = measured(|| real::roots(1, 1, short, effort));
    row(spawn.name, "1", &alone, None);
    let local = fit(spawn, alone, here, costs, seed);
    let apart = measured(|| real::apart(short, effort));
    row(spawn.name, "1 + 1", &apart, None);
    let both = fit(spawn, apart, here, costs, seed);
    let seen = measured(|| real::roots(2, 2, short, effort));
    let predicted = simulate(spawn, 2, none, here, both, seed);
    row(spawn.name, "2", &seen, Some(&predicted));
    let seen = measured(|| real::roots(2, 1, short, effort));
    let predicted = simulate(steal, 2, none, here, both, seed);
    row(steal.name, "2", &seen, Some(&predicted));

    let empty = job(&EMPTY);
    let apart = measured(|| real::apart(empty, effort));
    row(EMPTY.name, "1 + 1", &apart, None);
    let nothing = fit(&EMPTY, apart, here, costs, seed);
    let seen = measured(|| real::roots(2, 2, empty, effort));
    let predicted = simulate(&EMPTY, 2, none, here, nothing, seed);
    row(EMPTY.name, "2", &seen, Some(&predicted));

    let long = job(outside);
    let tasks = u64::from(effort.rounds) * 20;
    let seen = measured(|| real::outside(cpus, tasks, long, effort));
    let predicted = simulate(outside, 1, none, here, both, seed);
    row(outside.name, "1", &seen, Some(&predicted));

    let sleeping = job(block);
    let alone = measured(|| real::roots(1, 1, sleeping, less));
    row(block.name, "1", &alone, None);
    let blocking = fit(block, alone, here, costs, seed);
    let apart = measured(|| real::apart(sleeping, less));
    row(block.name, "1 + 1", &apart, None);
    let both = fit(block, apart, here, costs, seed);
    let seen = measured(|| real::roots(2, 2, sleeping, less));
    let predicted = simulate(block, 2, none, here, both, seed);
    row(block.name, "2", &seen, Some(&predicted));
    println!(
        "\nFitted for one server: spawn {} ns, run {} ns, block {} ns, beside what is simulated.\n",
        local.spawn / NS,
        local.run / NS,
        blocking.block / NS
    );
    [local, blocking]
}

fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent < 0.05 {
        "-".into()
    } else if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// The first word that is full, and with how many CPUs.
fn first_full(outcomes: &[(usize, Outcome)]) -> Option<(Word, usize)> {
    outcomes.iter().find_map(|(servers, outcome)| {
        let busy = |word: &Word| outcome.words[*word as usize].0;
        let busiest = WORDS.into_iter().max_by(|a, b| busy(a).total_cmp(&busy(b)));
        busiest
            .filter(|word| busy(word) >= FULL)
            .map(|word| (word, *servers))
    })
}

/// One workload: its table, what is full first, and what changes would bring.
pub(super) fn case(case: &Case, fabric: Fabric, local: Local, seed: u64) -> String {
    let none = Fixes::default();
    let grid = GRID.map(|servers| {
        eprintln!("  {}: {servers} CPUs", case.name);
        (servers, simulate(case, servers, none, fabric, local, seed))
    });
    let columns = COLUMNS.map(|servers| {
        let (_, outcome) = grid.iter().find(|(at, _)| *at == servers).expect("in it");
        outcome
    });
    let lucky = Fabric {
        retries: false,
        ..fabric
    };
    let lucky = COLUMNS.map(|servers| simulate(case, servers, none, lucky, local, seed));
    let outside = matches!((case.workload)(1), Workload::Outside { .. });

    let mut text = format!(
        "### {}\n\n{}. `{} / {}`: how long the busiest line of that word is in use, and the part of \
         the CPUs' time that goes into waiting for it.\n\n| |",
        case.name, case.about, "busy", "lost"
    );
    for servers in COLUMNS {
        let _ = write!(text, " {servers} |");
    }
    let _ = writeln!(
        text,
        " a task's accesses / transfers at 64 |\n|---|{}",
        "--:|".repeat(COLUMNS.len() + 1)
    );
    let mut row = |what: &str, cell: &dyn Fn(usize) -> String, last: &str| {
        let cells: Vec<String> = (0..COLUMNS.len()).map(cell).collect();
        let _ = writeln!(text, "| {what} | {} | {last} |", cells.join(" | "));
    };
    let thousands = |outcome: &Outcome| format!("{:.1}", outcome.per_cpu / 1e3);
    let part = |at: usize| percent(columns[at].per_cpu / columns[0].per_cpu);
    let falling = |at: usize| {
        if columns[at].idled > 0.0 {
            format!("{:.1}", columns[at].falling / 1e3)
        } else {
            "-".into()
        }
    };
    row("1000 tasks/s of a CPU", &|at| thousands(columns[at]), "");
    row(
        "the same if no compare-exchange failed",
        &|at| thousands(&lucky[at]),
        "",
    );
    row("of what one CPU does alone", &part, "");
    row("server asleep", &|at| percent(columns[at].asleep), "");
    row("from an empty queue to sleep, us", &falling, "");
    row("monitor busy", &|at| percent(columns[at].monitor), "");
    if outside {
        row(
            "outside thread busy",
            &|at| percent(columns[at].outside),
            "",
        );
    }
    for word in WORDS {
        let of = |at: usize| columns[at].words[word as usize];
        if (0..COLUMNS.len()).any(|at| of(at).0 >= 0.05 || of(at).1 >= 0.01) {
            let (accesses, transfers) = columns[AT_64].per_task[word as usize];
            row(
                &word.to_string(),
                &|at| format!("{} / {}", percent(of(at).0), percent(of(at).1)),
                &format!("{accesses:.2} / {transfers:.2}"),
            );
        }
    }
    match first_full(&grid) {
        Some((word, servers)) => {
            let _ = writeln!(text, "\nFull first: **{word}**, at {servers} CPUs.");
        }
        None => text.push_str("\nNo word is full at 256 CPUs.\n"),
    }
    text.push_str(&changes(case, fabric, local, seed));
    text
}

fn changes(case: &Case, fabric: Fabric, local: Local, seed: u64) -> String {
    let mut text = String::from(
        "\n| 1000 tasks/s of a CPU, with | 8 | 64 | 256 | full first | if no compare-exchange \
         failed: 64 | 256 |\n|---|--:|--:|--:|---|--:|--:|\n",
    );
    let lucky = Fabric {
        retries: false,
        ..fabric
    };
    for (name, fixes) in steps() {
        let outcomes = [8, 16, 32, 64, 128, 256].map(|servers| {
            let outcome = simulate(case, servers, fixes, fabric, local, seed);
            (servers, outcome)
        });
        let at = |place: usize| outcomes[place].1.per_cpu / 1e3;
        let full = first_full(&outcomes).map_or("none".into(), |(word, servers)| {
            format!("{word}, {servers}")
        });
        let lucky = [64, 256]
            .map(|servers| simulate(case, servers, fixes, lucky, local, seed).per_cpu / 1e3);
        let _ = writeln!(
            text,
            "| {name} | {:.1} | {:.1} | {:.1} | {full} | {:.1} | {:.1} |",
            at(0),
            at(3),
            at(5),
            lucky[0],
            lucky[1]
        );
        eprintln!("  {}: {name}", case.name);
    }
    text.push('\n');
    text
}

/// The same with other transfers.
pub(super) fn sensitivity(fabric: Fabric, locals: [Local; 2], seed: u64) -> String {
    let mut text = String::from(
        "### Other transfers\n\n| workload | transfers | full first | 1000 tasks/s of a CPU at 8 | \
         64 | 256 |\n|---|--:|---|--:|--:|--:|\n",
    );
    for case in &CASES {
        let blocks = matches!((case.workload)(1), Workload::Blocking { .. });
        let local = locals[usize::from(blocks)];
        for (name, scale) in [("x 0.5", 0.5), ("x 1", 1.0), ("x 2", 2.0)] {
            let scaled = Fabric {
                transfer: fabric.transfer.map(|time| (time as f64 * scale) as Ps),
                ..fabric
            };
            let outcomes = [2, 4, 8, 16, 32, 64, 128, 256].map(|servers| {
                let none = Fixes::default();
                (servers, simulate(case, servers, none, scaled, local, seed))
            });
            let full = first_full(&outcomes).map_or("none".into(), |(word, servers)| {
                format!("{word}, {servers} CPUs")
            });
            let at = |place: usize| outcomes[place].1.per_cpu / 1e3;
            let _ = writeln!(
                text,
                "| {} | {name} | {full} | {:.1} | {:.1} | {:.1} |",
                case.name,
                at(2),
                at(5),
                at(7)
            );
        }
    }
    text
}
