//! Everything at once and at random, for `UMCG_STRESS_SECONDS` (default 5): every result arrives.
//!
//! `UMCG_STRESS_SEED` repeats the choices of a run, but not its timing.

use std::{
    io::{Read, Write},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Handle, JoinSet};
use umcg_tests::{Random, SpinLock, blockers, eventually, isolated, random::number};

/// What all tasks share.
struct Site {
    mutex: Mutex<u64>,
    changed: Condvar,
    spin: SpinLock<u64>,
    /// The tasks that have begun, and those that have ended, even by a panic.
    begun: AtomicU64,
    ended: AtomicU64,
    /// The runtimes have few workers. A task then blocks for a queued one only in the waits of the
    /// runtime itself: any other wait could deadlock, as in any pool of threads.
    few_workers: bool,
}

/// Counts the end of a task, however it ends.
struct End<'a>(&'a Site);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
    }
}

/// Runs a tree of tasks. Returns the number of tasks in it, which the caller knows.
fn tree(site: &Arc<Site>, handles: &Arc<[Handle]>, random: &mut Random, depth: u32) -> u64 {
    site.begun.fetch_add(1, SeqCst);
    let _end = End(site);
    act(site, random);
    if depth == 0 {
        return 1;
    }
    let mut count = 1;
    for _ in 0..1 + random.below(3) {
        let (theirs, all) = (Arc::clone(site), Arc::clone(handles));
        let handle = &handles[random.below(handles.len() as u64) as usize];
        let mut seed = random.split();
        match random.below(7) {
            0 => {
                let task = handle.spawn_blocking(move || tree(&theirs, &all, &mut seed, depth - 1));
                act(site, random);
                count += task.join().expect("a task of the tree");
            }
            1 => {
                let task = handle.spawn(async move {
                    umcg::yield_now().await;
                    let count = tree(&theirs, &all, &mut seed, depth - 1);
                    umcg::yield_now().await;
                    count
                });
                count += task.join().expect("a future of the tree");
            }
            2 => {
                count += handle.block_on(async {
                    let task =
                        umcg::spawn(async move { tree(&theirs, &all, &mut seed, depth - 1) });
                    umcg::yield_now().await;
                    task.await.expect("an awaited task of the tree")
                });
            }
            3 => {
                count += handle.scope(|scope| {
                    let mut other = random.split();
                    let (a, b) = (Arc::clone(site), Arc::clone(handles));
                    let first = scope.spawn(move || tree(&theirs, &all, &mut seed, depth - 1));
                    let second = scope.spawn(move || tree(&a, &b, &mut other, depth - 1));
                    first.join().expect("a scoped thread") + second.join().expect("another")
                });
            }
            4 => {
                let (site, handles) = (Arc::clone(site), Arc::clone(handles));
                let mut other = random.split();
                let (a, b) = handle.join(
                    || tree(&theirs, &all, &mut seed, depth - 1),
                    || tree(&site, &handles, &mut other, depth - 1),
                );
                count += a + b;
            }
            5 => {
                // Some of them are aborted and return nothing. The others return their count.
                let mut set = JoinSet::new();
                for i in 0..4 {
                    let (theirs, all) = (Arc::clone(&theirs), Arc::clone(&all));
                    let mut seed = seed.split();
                    let abort = set.spawn_on(
                        async move {
                            umcg::yield_now().await;
                            tree(&theirs, &all, &mut seed, 0)
                        },
                        handle,
                    );
                    if i % 2 == 0 {
                        abort.abort();
                    }
                }
                while let Some(result) = set.join_next_blocking() {
                    match result {
                        Ok(one) => count += one,
                        Err(error) => assert!(error.is_cancelled(), "{error}"),
                    }
                }
            }
            _ => {
                let failing = handle.spawn_blocking(move || {
                    act(&theirs, &mut seed);
                    std::panic::resume_unwind(Box::new(17_u32));
                });
                let error = failing.join().expect_err("it panics");
                assert_eq!(error.into_panic().downcast_ref::<u32>(), Some(&17));
            }
        }
    }
    count
}

/// One small action that blocks, waits, computes or yields.
fn act(site: &Site, random: &mut Random) {
    match random.below(16) {
        0 => thread::sleep(Duration::from_micros(random.below(800))),
        1 => umcg::thread::sleep(Duration::from_micros(random.below(300))),
        2 => umcg::thread::yield_now(),
        3 => thread::yield_now(),
        4 => {
            let (mut reader, mut writer) = blockers::pipe();
            let writes = thread::Builder::new().spawn(move || {
                writer.write_all(b"x").expect("a pipe");
            });
            reader.read_exact(&mut [0]).expect("a pipe");
            writes.expect("a thread").join().expect("it writes");
        }
        5 => {
            let mut held = site.mutex.lock().expect("nobody panics with it");
            *held += 1;
            if random.below(8) == 0 {
                thread::sleep(Duration::from_micros(100));
            }
            site.changed.notify_all();
        }
        6 => {
            let held = site.mutex.lock().expect("nobody panics with it");
            let wait = site.changed.wait_timeout(held, Duration::from_micros(500));
            drop(wait.expect("nobody panics with it"));
        }
        7 => site.spin.with(|count| {
            *count += 1;
            if random.below(16) == 0 {
                thread::sleep(Duration::from_micros(50));
            }
        }),
        8 => {
            let (sender, receiver) = mpsc::channel();
            sender.send(1).expect("the receiver is here");
            assert_eq!(receiver.recv(), Ok(1));
        }
        9 => umcg::thread::park_timeout(Duration::from_micros(random.below(300))),
        10 => {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(random.below(300)) {
                std::hint::spin_loop();
            }
        }
        11 => Handle::current().block_on(async {
            umcg::time::sleep(Duration::from_micros(100)).await;
        }),
        12 => {
            let task = umcg::spawn(std::future::pending::<()>());
            task.abort();
            assert!(task.join().expect_err("it never ends").is_cancelled());
        }
        13 if !site.few_workers => {
            let (mut reader, mut writer) = blockers::pipe();
            let writes = umcg::spawn_blocking(move || writer.write_all(b"x").expect("a pipe"));
            reader.read_exact(&mut [0]).expect("a pipe");
            writes.join().expect("it writes");
        }
        14 if !site.few_workers => {
            let (sender, receiver) = mpsc::channel();
            let task = umcg::spawn(async move {
                umcg::yield_now().await;
                sender.send(7).expect("the receiver is here");
            });
            assert_eq!(receiver.recv(), Ok(7));
            task.join().expect("it sends");
        }
        _ => {}
    }
}

fn stress(seconds: u64, mut random: Random) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut tasks) = (0_u64, 0_u64);
    while rounds == 0 || Instant::now() < until {
        let few_workers = random.below(3) == 0;
        let site = Arc::new(Site {
            mutex: Mutex::new(0),
            changed: Condvar::new(),
            spin: SpinLock::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            few_workers,
        });
        let runtimes: Vec<_> = (0..1 + random.below(3))
            .map(|_| {
                Builder::new()
                    .servers(1 + random.below(5) as usize)
                    .max_workers(if few_workers {
                        6
                    } else {
                        32 + random.below(200) as usize
                    })
                    .pin(random.below(3) > 0)
                    .keep_alive(Duration::from_millis(1 + random.below(50)))
                    .build()
                    .expect("a runtime")
            })
            .collect();
        let handles: Arc<[Handle]> = runtimes.iter().map(|r| r.handle().clone()).collect();
        let roots: Vec<_> = (0..4)
            .map(|i| {
                let (site, all) = (Arc::clone(&site), Arc::clone(&handles));
                let mut seed = random.split();
                handles[i % handles.len()].spawn_blocking(move || tree(&site, &all, &mut seed, 3))
            })
            .collect();
        let counted: u64 = roots
            .into_iter()
            .map(|root| root.join().expect("a root"))
            .sum();
        for runtime in &runtimes {
            eventually("all that was spawned is done", || {
                let metrics = runtime.metrics();
                metrics.completed_tasks_count() == metrics.spawned_tasks_count()
            });
        }
        drop(runtimes);
        assert_eq!(
            site.begun.load(SeqCst),
            site.ended.load(SeqCst),
            "a task was lost"
        );
        assert_eq!(site.begun.load(SeqCst), counted, "a result was lost");
        tasks += counted;
        rounds += 1;
    }
    println!("{rounds} rounds, {tasks} tasks of trees");
}

#[test]
fn everything_at_once() {
    let seconds = number("UMCG_STRESS_SECONDS", 5);
    isolated(seconds + 60, || {
        stress(seconds, Random::from_env());
    });
}
