//! Locks of std in tasks, held across blocking calls.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::held_lock;
use crate::{
    clock::Clock,
    probe,
    report::Row,
    runner::{Effort, Group},
    system::{BareUmcg, System, Systems},
};

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let mut rows = held(systems, effort).run(effort);
    rows.extend(chain(systems, effort).run(effort));
    for group in held_lock::groups(systems, effort) {
        rows.extend(group.run(effort));
    }
    if effort.takes("lock_and_join") {
        for system in ["umcg", "rayon"] {
            let outcome = probe::run(&["lock_and_join", system], Duration::from_secs(10));
            let title = "a lock held across a nested join of two closures that sleep (the program \
                         of rayon's issue 592); 10 s at most";
            rows.push(probe::row("lock_and_join", title, system, outcome));
        }
    }
    rows
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}

/// Tasks hold one of four locks while they sleep for 100 us. As many short tasks take no lock.
fn held(systems: &Systems, effort: &Effort) -> Group<'static> {
    const LOCKS: usize = 4;
    let count: usize = effort.pick(1000, 300);
    let mut group = Group::new(
        "lock_held",
        format!("{count} tasks take one of {LOCKS} mutexes and sleep 100 us, as many do not"),
        "task",
        count as u64,
    );
    macro_rules! cell {
        ($s:expr, $name:expr, $spawn:ident, $job:ident => $wrapped:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                let locks = Arc::new([const { Mutex::new(0_u64) }; LOCKS]);
                clock.time(|| {
                    let tasks: Vec<_> = (0..2 * count)
                        .map(|i| {
                            let locks = Arc::clone(&locks);
                            let $job = move || {
                                if i % 2 == 0 {
                                    let lock = &locks[i / 2 % LOCKS];
                                    let mut held = lock.lock().expect("nobody panics");
                                    thread::sleep(Duration::from_micros(100));
                                    *held += 1;
                                }
                            };
                            s.$spawn($wrapped)
                        })
                        .collect();
                    s.block_on(async {
                        for task in tasks {
                            task.await;
                        }
                    });
                });
            });
        }};
    }
    cell!(systems.umcg, "umcg", spawn, job => async move { job() });
    cell!(systems.bare_umcg, BareUmcg::NAME, spawn, job => async move { job() });
    cell!(systems.tokio, "tokio", spawn, job => async move { job() });
    cell!(systems.tokio, "tokio spawn_blocking", spawn_blocking, job => job);
    cell!(systems.async_executor, "async-executor unblock", spawn_blocking, job => job);
    cell!(systems.threadpool, "threadpool(512)", spawn_blocking, job => job);
    group
}

/// A token goes round a ring of threads, by a mutex and condition variables.
fn chain(systems: &Systems, effort: &Effort) -> Group<'static> {
    const MEMBERS: usize = 16;
    let rounds: usize = effort.pick(200, 50);
    let mut group = Group::new(
        "condvar_ring",
        format!("a token round a ring of {MEMBERS} tasks that wait at a condvar each"),
        "hop",
        (MEMBERS * rounds) as u64,
    );
    #[derive(Default)]
    struct Ring {
        turn: Mutex<usize>,
        changed: [Condvar; MEMBERS],
    }
    fn member(ring: &Ring, me: usize, rounds: usize) {
        for _ in 0..rounds {
            let turn = ring.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let mut turn = ring.changed[me]
                .wait_while(turn, |turn| *turn != me)
                .unwrap_or_else(PoisonError::into_inner);
            *turn = (me + 1) % MEMBERS;
            ring.changed[*turn].notify_one();
        }
    }
    macro_rules! cell {
        ($s:expr, $name:expr, $spawn:ident, $job:ident => $wrapped:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                clock.time(|| {
                    let ring = Arc::new(Ring::default());
                    let tasks: Vec<_> = (0..MEMBERS)
                        .map(|me| {
                            let ring = Arc::clone(&ring);
                            let $job = move || member(&ring, me, rounds);
                            s.$spawn($wrapped)
                        })
                        .collect();
                    s.block_on(async {
                        for task in tasks {
                            task.await;
                        }
                    });
                });
            });
        }};
    }
    // Plain tokio is left out: it hangs when its two workers wait for the token of a third task.
    cell!(systems.umcg, "umcg", spawn, job => async move { job() });
    cell!(systems.bare_umcg, BareUmcg::NAME, spawn, job => async move { job() });
    cell!(systems.tokio, "tokio spawn_blocking", spawn_blocking, job => job);
    cell!(systems.async_executor, "async-executor unblock", spawn_blocking, job => job);
    cell!(systems.threadpool, "threadpool(512)", spawn_blocking, job => job);
    cell!(systems.std_threads, "std threads", spawn_blocking, job => job);
    group
}

/// The probe: 64 closures hold one lock across a nested join.
pub(super) fn lock_and_join(system: &str) {
    const THREADS: usize = 4;
    const JOBS: usize = 64;
    let lock = Arc::new(Mutex::new(0_u32));
    let sleep = || thread::sleep(Duration::from_micros(100));
    let begin = std::time::Instant::now();
    match system {
        "rayon" => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(THREADS)
                .build()
                .expect("a pool");
            pool.scope(|scope| {
                for _ in 0..JOBS {
                    scope.spawn(|_| {
                        let mut held = lock.lock().expect("nobody panics");
                        rayon::join(sleep, sleep);
                        *held += 1;
                    });
                }
            });
        }
        _ => {
            let runtime = umcg::Builder::new()
                .servers(THREADS)
                .build()
                .expect("a runtime");
            runtime.handle().scope(|scope| {
                for _ in 0..JOBS {
                    scope.spawn(|| {
                        let mut held = lock.lock().expect("nobody panics");
                        umcg::join(sleep, sleep);
                        *held += 1;
                    });
                }
            });
            runtime.shutdown_background();
        }
    }
    assert_eq!(*lock.lock().expect("nobody panics"), JOBS as u32);
    probe::say("ms", begin.elapsed().as_secs_f64() * 1e3);
}
