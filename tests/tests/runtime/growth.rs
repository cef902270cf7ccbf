//! When workers are added, when not, and when they leave.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg::{Builder, Handle};

use crate::common::{SERVERS, eventually, skipped, threads, within, wrong_verdicts};

const LIMIT: Duration = Duration::from_secs(60);

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn work_for_the_cpu_alone_does_not_grow_the_pool() {
    if wrong_verdicts() {
        return skipped(
            "runtime::growth::work_for_the_cpu_alone_does_not_grow_the_pool",
            "with wrong verdicts on purpose, running workers count as blocked",
        );
    }
    for servers in [1, 2] {
        within(LIMIT, "spinning tasks", move || {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let tasks: Vec<_> = (0..200)
                .map(|_| runtime.spawn_blocking(|| spin(Duration::from_millis(1))))
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            let metrics = runtime.metrics();
            // Preempted by other processes a worker may be taken for blocked (no `/proc`, or
            // stopped just so): a few more are no growth with the number of tasks.
            assert!(metrics.workers_peak <= 2 * servers + 4, "{metrics:#?}");
        });
    }
}

#[test]
fn blocked_workers_are_replaced_and_leave_when_idle() {
    for servers in SERVERS {
        within(LIMIT, "growing and shrinking", move || {
            let name = format!("grow{servers}");
            let runtime = Builder::new()
                .servers(servers)
                .thread_name(&name)
                .keep_alive(Duration::from_millis(200))
                .build()
                .unwrap();
            let tasks: Vec<_> = (0..100)
                .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(100))))
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            let metrics = runtime.metrics();
            assert!(metrics.workers_peak >= 20, "{metrics:#?}");
            let handle = runtime.handle().clone();
            eventually("idle ones leave", || {
                handle.metrics().workers.total <= servers
            });
            // Servers, the maker of workers, and the idle ones.
            eventually("so do their threads", || {
                threads(&name).len() <= 2 * servers + 1
            });
            assert_eq!(runtime.spawn_blocking(|| 7).join().unwrap(), 7);
        });
    }
}

/// Each leaves when it has rested for `keep_alive`, not up to twice that; with room for a machine
/// that is busy with others.
#[test]
fn idle_workers_leave_after_keep_alive() {
    const KEEP_ALIVE: Duration = Duration::from_secs(2);
    within(LIMIT, "shrinking in time", || {
        let runtime = Builder::new()
            .servers(1)
            .keep_alive(KEEP_ALIVE)
            .build()
            .unwrap();
        // The second burst uses all of them: nobody was idle all the time from the first on.
        for _ in 0..2 {
            let tasks: Vec<_> = (0..50)
                .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(100))))
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
        }
        let rested = Instant::now();
        let workers = runtime.metrics().workers.total;
        assert!(workers > 10, "{workers} workers");
        let handle = runtime.handle().clone();
        eventually("idle ones leave", || handle.metrics().workers.total <= 1);
        let time = rested.elapsed();
        assert!(
            time < KEEP_ALIVE * 7 / 4,
            "the last one left after {time:?}"
        );
        assert!(time > KEEP_ALIVE / 2, "they left after {time:?}");
    });
}

#[test]
fn without_idle_workers_the_next_task_gets_a_new_one() {
    within(LIMIT, "min_idle_workers(0)", || {
        let runtime = Builder::new()
            .servers(2)
            .min_idle_workers(0)
            .keep_alive(Duration::from_millis(50))
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        for _ in 0..3 {
            eventually("all leave", || handle.metrics().workers.total == 0);
            assert_eq!(runtime.spawn_blocking(|| 7).join().unwrap(), 7);
        }
    });
}

#[test]
fn at_the_cap_tasks_wait_and_all_run() {
    for servers in SERVERS {
        within(LIMIT, "tasks at the cap", move || {
            let runtime = Builder::new()
                .servers(servers)
                .max_workers(8)
                .build()
                .unwrap();
            let tasks: Vec<_> = (0..200)
                .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))))
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            let metrics = runtime.metrics();
            assert!(metrics.workers_peak <= 8, "{metrics:#?}");
            assert!(metrics.at_cap > 0, "{metrics:#?}");
            assert_eq!(metrics.beyond_cap, 0);
        });
    }
}

/// Trace A12: with a hard cap all workers wait for tasks that no worker is left to run.
#[test]
fn workers_that_join_queued_children_do_not_count_against_the_cap() {
    fn tree(handle: &Handle, depth: u32) -> usize {
        if depth == 0 {
            return 1;
        }
        let children: Vec<_> = (0..3)
            .map(|_| {
                let next = handle.clone();
                handle.spawn_blocking(move || tree(&next, depth - 1))
            })
            .collect();
        children
            .into_iter()
            .map(|child| child.join().unwrap())
            .sum()
    }
    for servers in SERVERS {
        within(LIMIT, "nested joins", move || {
            let runtime = Builder::new()
                .servers(servers)
                .max_workers(4)
                .build()
                .unwrap();
            let handle = runtime.handle().clone();
            let roots: Vec<_> = (0..8)
                .map(|_| {
                    let next = handle.clone();
                    handle.spawn_blocking(move || tree(&next, 4))
                })
                .collect();
            for root in roots {
                assert_eq!(root.join().unwrap(), 81);
            }
            assert!(runtime.metrics().beyond_cap > 0);
            eventually("surplus workers leave", || {
                handle.metrics().workers.total <= 4 || {
                    // They look when they go idle.
                    handle.spawn(async {}).join().unwrap();
                    false
                }
            });
        });
    }
}

/// The shape of rayon#592: a mutex is held across a wait for a spawned job, and others that
/// want the mutex are queued. On the waiter's stack one of them would deadlock.
#[test]
fn a_mutex_held_across_a_join_does_not_deadlock() {
    for servers in SERVERS {
        within(LIMIT, "a mutex across a join", move || {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let handle = runtime.handle().clone();
            let mutex = Arc::new(Mutex::new(0));
            let tasks: Vec<_> = (0..100)
                .map(|_| {
                    let (handle, mutex) = (handle.clone(), Arc::clone(&mutex));
                    runtime.spawn_blocking(move || {
                        let mut sum = mutex.lock().unwrap();
                        *sum += handle.spawn_blocking(|| 1).join().unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            assert_eq!(*mutex.lock().unwrap(), 100);
        });
    }
}

#[test]
fn ten_thousand_blocked_tasks_pass_through_sixty_four_workers() {
    within(LIMIT, "10000 tasks", || {
        let runtime = Builder::new().servers(2).max_workers(64).build().unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..10_000)
            .map(|_| {
                let done = Arc::clone(&done);
                runtime.spawn_blocking(move || {
                    std::thread::sleep(Duration::from_millis(1));
                    done.fetch_add(1, SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(done.load(SeqCst), 10_000);
        assert!(runtime.metrics().workers_peak <= 64);
    });
}
