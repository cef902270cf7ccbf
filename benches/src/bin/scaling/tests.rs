//! The simulation as a whole.

use super::{
    line::{Fabric, NS},
    sim::{Fixes, Local, Outcome, Sim, Span, Workload},
    word::{WORDS, Word},
};

const FABRIC: Fabric = Fabric {
    load: 300,
    rmw: 5 * NS,
    fence: 5 * NS,
    transfer: [25 * NS, 100 * NS, 200 * NS],
    cluster: 8,
    socket: 128,
    overlap: 4,
    home: 4 * NS,
    retries: true,
};

const LOCAL: Local = Local {
    task: 1_000 * NS,
    spawn: 100 * NS,
    run: 100 * NS,
    clock: 20 * NS,
    switch: 1_500 * NS,
    block: 1_000 * NS,
    wake: 7_000 * NS,
    wake_latency: 18_000 * NS,
};

const SPAN: Span = Span {
    warm: 130,
    counted: 520,
};

const WORKLOADS: [Workload; 4] = [
    Workload::Local,
    Workload::Stolen { every: 4 },
    Workload::Outside { tasks: 2_000 },
    Workload::Blocking {
        block: 100_000 * NS,
    },
];

const ALL_FIXES: Fixes = Fixes {
    count: true,
    queue: true,
    wake: true,
    scan: true,
};

fn run(servers: usize, workload: Workload, fixes: Fixes, seed: u64) -> Outcome {
    Sim::new(servers, workload, fixes, FABRIC, LOCAL, seed).run(SPAN)
}

#[test]
fn a_seed_is_a_run() {
    for workload in WORKLOADS {
        let [a, b, other] = [1, 1, 2].map(|seed| run(6, workload, Fixes::default(), seed).per_cpu);
        assert_eq!(a, b, "{workload:?}");
        assert_ne!(a, other, "{workload:?}");
    }
}

/// A wake-up that was lost in the simulation itself would leave tasks behind, and the run would
/// not end.
#[test]
fn every_workload_comes_to_its_end() {
    for workload in WORKLOADS {
        for servers in [1, 2, 3, 17] {
            for fixes in [Fixes::default(), ALL_FIXES] {
                let outcome = run(servers, workload, fixes, 3);
                assert!(outcome.per_cpu > 0.0, "{workload:?} {servers} {fixes:?}");
            }
        }
    }
}

#[test]
fn one_server_waits_for_nobody() {
    let outcome = run(1, Workload::Local, Fixes::default(), 1);
    let lost: f64 = outcome.words.iter().map(|(_, lost)| lost).sum();
    // The monitor looks at it now and then.
    assert!(lost < 0.01, "{lost}");
    assert_eq!(outcome.per_task[Word::SharedCount as usize].1, 0.0);
}

#[test]
fn a_task_counts_its_reference_twice_unless_that_is_fixed() {
    let accesses = |fixes| {
        let outcome = run(4, Workload::Local, fixes, 1);
        outcome.per_task[Word::SharedCount as usize].0
    };
    assert!((1.9..2.1).contains(&accesses(Fixes::default())));
    assert_eq!(accesses(ALL_FIXES), 0.0);
}

#[test]
fn a_word_that_all_write_is_full_sooner_or_later() {
    let busy = |servers| {
        let outcome = run(servers, Workload::Local, Fixes::default(), 1);
        outcome.words[Word::SharedCount as usize].0
    };
    assert!(busy(2) < 0.2 && busy(128) > 0.9);
}

#[test]
fn parts_are_parts() {
    for workload in WORKLOADS {
        let outcome = run(16, workload, Fixes::default(), 1);
        for word in WORDS {
            let (busy, lost) = outcome.words[word as usize];
            assert!((0.0..=1.0).contains(&busy), "{word}: {busy}");
            assert!((0.0..=1.0).contains(&lost), "{word}: {lost}");
        }
        assert!((0.0..=1.0).contains(&outcome.asleep), "{}", outcome.asleep);
    }
}
