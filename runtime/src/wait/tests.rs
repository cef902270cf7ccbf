//! Waits of workers: the slot is handed over, so that no provider has to find out about the block.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::{Builder, Runtime, ThreadPool, thread};

const ROUNDS: u64 = 500;
const LONG: Duration = Duration::from_secs(600);

/// Runs `f` on a worker of a runtime with one server, and checks that fewer blocks were reported
/// than one in ten rounds: a few are those of the test harness, and of a machine under load.
fn without_reports(f: impl FnOnce() + Send + 'static) {
    if std::env::var_os("UMCG_FAULT").is_some() {
        eprintln!("SKIPPED: with wrong verdicts on purpose there are verdicts");
        return;
    }
    let runtime = Builder::new().servers(1).build().unwrap();
    runtime.spawn_blocking(f).join().unwrap();
    let reported = reports(&runtime);
    assert!(
        reported < ROUNDS / 10,
        "{reported} blocks were reported in {ROUNDS} rounds: {:#?}",
        runtime.metrics()
    );
}

fn reports(runtime: &Runtime) -> u64 {
    let seen = runtime.metrics().provider();
    seen.blocks_kernel + seen.blocks_sentinel + seen.blocks_monitor + seen.blocks_sibling
}

#[test]
fn a_park_with_a_timeout_hands_the_slot_over_and_ends_by_an_unpark() {
    without_reports(|| {
        let rounds = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        for round in 1..=ROUNDS {
            let (here, rounds) = (thread::current(), Arc::clone(&rounds));
            drop(crate::spawn_blocking({
                let rounds = Arc::clone(&rounds);
                move || {
                    rounds.fetch_add(1, SeqCst);
                    here.unpark();
                }
            }));
            while rounds.load(SeqCst) < round {
                thread::park_timeout(LONG);
            }
        }
        assert!(begun.elapsed() < LONG, "it was not the unparks");
    });
}

#[test]
fn a_park_with_a_timeout_hands_the_slot_over_and_ends_by_time() {
    without_reports(|| {
        let others = Arc::new(AtomicU64::new(0));
        for round in 1..=ROUNDS {
            let theirs = Arc::clone(&others);
            drop(crate::spawn_blocking(move || theirs.fetch_add(1, SeqCst)));
            // Nobody unparks. The other task has the only server meanwhile.
            let begun = Instant::now();
            while others.load(SeqCst) < round || begun.elapsed() < Duration::from_micros(300) {
                thread::park_timeout(Duration::from_micros(300));
            }
        }
    });
}

#[test]
fn the_join_of_a_pool_hands_the_slot_over() {
    without_reports(|| {
        let pool = ThreadPool::new(2);
        let jobs = Arc::new(AtomicU64::new(0));
        for round in 1..=ROUNDS {
            let theirs = Arc::clone(&jobs);
            pool.execute(move || {
                theirs.fetch_add(1, SeqCst);
            });
            pool.join();
            assert_eq!(jobs.load(SeqCst), round);
        }
    });
}

/// Timed parks of one thread, some of which end by time and some by an unpark just then: no token
/// is lost, and none is left behind.
#[test]
fn unparks_that_meet_the_end_of_the_time_are_not_lost() {
    let runtime = Builder::new().servers(2).build().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let parks = runtime.spawn_blocking({
        let sent = Arc::clone(&sent);
        move || {
            let mut seen = 0;
            while seen < ROUNDS {
                let (here, theirs) = (thread::current(), Arc::clone(&sent));
                drop(crate::spawn_blocking(move || {
                    theirs.fetch_add(1, SeqCst);
                    here.unpark();
                }));
                // The unpark comes for certain, so this ends by it if not by time.
                thread::park_timeout(Duration::from_micros(20));
                while sent.load(SeqCst) <= seen {
                    thread::park();
                }
                seen += 1;
            }
        }
    });
    parks.join().unwrap();
    assert_eq!(sent.load(SeqCst), ROUNDS);
}
