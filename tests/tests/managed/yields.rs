//! `sched_yield` is a yield of the worker.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
};

use umcg_tests::{
    isolated,
    runtime::{SERVERS, runtime_with},
};

use crate::support::managed;

/// The first task can end only if the second one, which is queued behind it, runs.
#[test]
fn a_spin_with_yields_lets_the_queued_task_run_that_ends_it() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            if !managed(&runtime) {
                return;
            }
            let spinners: Vec<_> = (0..servers + 1)
                .map(|_| {
                    runtime.spawn_blocking(|| {
                        let flag = Arc::new(AtomicBool::new(false));
                        let sets = Arc::clone(&flag);
                        let other = umcg::spawn_blocking(move || sets.store(true, SeqCst));
                        while !flag.load(SeqCst) {
                            hint::spin_loop();
                            thread::yield_now();
                        }
                        other.join().expect("it sets the flag");
                    })
                })
                .collect();
            for spinner in spinners {
                spinner.join().expect("the spin ends");
            }
        }
    });
}

/// As C code calls it, and with a return value.
#[test]
fn tasks_that_take_turns_by_sched_yield_all_end() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            if !managed(&runtime) {
                return;
            }
            let turn = Arc::new(AtomicU32::new(0));
            let count = 4;
            let tasks: Vec<_> = (0..count)
                .map(|me| {
                    let turn = Arc::clone(&turn);
                    runtime.spawn_blocking(move || {
                        for _ in 0..50 {
                            while turn.load(SeqCst) % count != me {
                                // SAFETY: no arguments.
                                assert_eq!(unsafe { libc::sched_yield() }, 0);
                            }
                            turn.fetch_add(1, SeqCst);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.join().expect("it has had its turns");
            }
            assert_eq!(turn.load(SeqCst), 50 * count);
        }
    });
}
