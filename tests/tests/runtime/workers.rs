//! The pool of workers and who may use it: growth, shrinkage, idleness, queues, several runtimes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Handle, Runtime};
use umcg_tests::{
    fault::{Dam, apart, blocks_are_seen, eventually, overlap, threads, wrong_verdicts},
    skip,
};

fn blocked_tasks(runtime: &Runtime, tasks: usize) -> (Arc<Dam>, Vec<umcg::JoinHandle<()>>) {
    let dam = Arc::new(Dam::new());
    let handles = (0..tasks)
        .map(|_| {
            let dam = Arc::clone(&dam);
            runtime.spawn_blocking(move || dam.wait())
        })
        .collect();
    eventually("all are blocked", || dam.waiting() == tasks);
    (dam, handles)
}

#[test]
fn the_pool_grows_by_what_is_blocked_and_shrinks_after_keep_alive() {
    apart(60, || {
        let runtime = Builder::new()
            .servers(2)
            .keep_alive(Duration::from_millis(100))
            .min_idle_workers(1)
            .build()
            .unwrap();
        let before = threads::count();
        for _ in 0..3 {
            let (dam, handles) = blocked_tasks(&runtime, 40);
            let metrics = runtime.metrics();
            assert!(metrics.workers.total >= 40, "{metrics:?}");
            assert!(threads::count() >= 40);
            assert!(
                wrong_verdicts() || metrics.workers.total <= 40 + 12,
                "{metrics:?}"
            );
            dam.open();
            for handle in handles {
                handle.join().unwrap();
            }
            // One spare a server.
            eventually("the idle workers leave", || {
                runtime.metrics().workers.total <= 4
            });
            eventually("and so do their threads", || threads::count() <= before + 6);
            overlap(&runtime, 10);
        }
    });
}

#[test]
fn max_workers_bounds_the_threads() {
    apart(60, || {
        let runtime = Builder::new().servers(2).max_workers(8).build().unwrap();
        let dam = Arc::new(Dam::new());
        let handles: Vec<_> = (0..50)
            .map(|_| {
                let dam = Arc::clone(&dam);
                runtime.spawn_blocking(move || dam.wait())
            })
            .collect();
        eventually("the pool is full", || dam.waiting() == 8);
        let metrics = runtime.metrics();
        assert!(metrics.workers.total <= 8, "{metrics:?}");
        dam.open();
        for handle in handles {
            handle.join().unwrap();
        }
        overlap(&runtime, 50);
    });
}

/// Nobody wakes up in a runtime without work: no thread of it goes to sleep a second time.
#[test]
fn an_idle_runtime_does_not_wake_up() {
    apart(60, || {
        if wrong_verdicts() {
            skip!("the thread that makes wrong verdicts wakes up");
        }
        let runtime = Builder::new()
            .servers(2)
            .keep_alive(Duration::from_millis(50))
            .build()
            .unwrap();
        overlap(&runtime, 100);
        blocks_are_seen(&runtime);
        runtime
            .spawn(async { umcg::time::sleep(Duration::from_millis(5)).await })
            .join()
            .unwrap();
        // The surplus of idle workers leaves first.
        threads::stay_asleep(Duration::from_secs(2));
    });
}

/// The same while tasks are blocked: they are not polled for.
#[test]
fn a_runtime_whose_tasks_are_all_blocked_does_not_wake_up() {
    apart(60, || {
        if wrong_verdicts() {
            skip!("the thread that makes wrong verdicts wakes up");
        }
        let runtime = Builder::new()
            .servers(2)
            .keep_alive(Duration::from_millis(50))
            .build()
            .unwrap();
        let (dam, handles) = blocked_tasks(&runtime, 10);
        threads::stay_asleep(Duration::from_secs(2));
        dam.open();
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

/// The same with the pool full and tasks queued: nothing can be done for them until one unblocks.
#[test]
fn a_full_pool_with_tasks_queued_does_not_wake_up() {
    apart(60, || {
        if wrong_verdicts() {
            skip!("the thread that makes wrong verdicts wakes up");
        }
        let runtime = Builder::new()
            .servers(2)
            .max_workers(8)
            .keep_alive(Duration::from_millis(50))
            .build()
            .unwrap();
        let (dam, blocked) = blocked_tasks(&runtime, 8);
        let queued: Vec<_> = (0..40).map(|i| runtime.spawn(async move { i })).collect();
        threads::stay_asleep(Duration::from_secs(2));
        dam.open();
        for handle in blocked {
            handle.join().unwrap();
        }
        for (i, handle) in queued.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i);
        }
    });
}

#[test]
fn several_runtimes_in_one_process() {
    apart(60, || {
        let runtimes: Vec<_> = (1..=3)
            .map(|servers| Builder::new().servers(servers).build().unwrap())
            .collect();
        // Each hands on to the next: futures awaited and closures joined across runtimes.
        let handles: Vec<Handle> = runtimes.iter().map(|r| r.handle().clone()).collect();
        let tasks: Vec<_> = (0..90_usize)
            .map(|i| {
                let (other, third) = (handles[(i + 1) % 3].clone(), handles[(i + 2) % 3].clone());
                handles[i % 3].spawn(async move {
                    let awaited = other.spawn(async move {
                        thread::sleep(Duration::from_millis(1));
                        i
                    });
                    let joined = third.spawn_blocking(move || i);
                    joined.join().unwrap() + awaited.await.unwrap()
                })
            })
            .collect();
        for (i, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.join().unwrap(), 2 * i);
        }
        // One that is blocked altogether stops no other.
        let (dam, blocked) = blocked_tasks(&runtimes[0], 4);
        for runtime in &runtimes {
            overlap(runtime, 40);
        }
        dam.open();
        for handle in blocked {
            handle.join().unwrap();
        }
        drop(runtimes);
    });
}

#[test]
fn runtimes_come_and_go() {
    apart(60, || {
        let before = threads::count();
        for i in 0..30 {
            let runtime = Builder::new().servers(1 + i % 3).build().unwrap();
            if i % 2 == 0 {
                overlap(&runtime, 8);
            }
            drop(runtime);
        }
        // The sentinels and the monitor may stay; servers and workers may not.
        eventually("the threads are gone", || threads::count() <= before + 8);
    });
}

#[test]
fn current_is_the_runtime_that_runs_the_task() {
    apart(60, || {
        assert!(Handle::try_current().is_none());
        let (a, b) = (
            Builder::new().servers(1).build().unwrap(),
            Builder::new().servers(1).build().unwrap(),
        );
        let handle = b.handle().clone();
        let answer = a.spawn(async move {
            // Entered on a worker of another runtime.
            let inner = {
                let _entered = handle.enter();
                umcg::spawn_blocking(|| 1)
            };
            inner.await.unwrap() + umcg::spawn(async { 2 }).await.unwrap()
        });
        assert_eq!(answer.join().unwrap(), 3);
        let _entered = a.enter();
        assert_eq!(umcg::spawn(async { 4 }).join().unwrap(), 4);
    });
}

#[test]
fn block_on_nests_on_a_worker() {
    apart(60, || {
        for servers in [1, 2] {
            let runtime = Builder::new().servers(servers).build().unwrap();
            fn nested(depth: u32) -> u32 {
                if depth == 0 {
                    return 0;
                }
                Handle::current().block_on(async move {
                    umcg::yield_now().await;
                    let below = umcg::spawn(async move { nested(depth - 1) }).await.unwrap();
                    1 + below
                })
            }
            assert_eq!(runtime.block_on(async { nested(10) }), 10);
            assert_eq!(runtime.spawn_blocking(|| nested(10)).join().unwrap(), 10);
        }
    });
}

#[test]
fn threads_from_outside_spawn_all_at_once() {
    apart(60, || {
        let runtime = Runtime::new().unwrap();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..6_usize {
                let (runtime, done) = (&runtime, &done);
                scope.spawn(move || {
                    let handles: Vec<_> = (0..500_usize)
                        .map(|i| match i % 2 {
                            0 => runtime.spawn(async move { thread * i }),
                            _ => runtime.spawn_blocking(move || thread * i),
                        })
                        .collect();
                    for (i, handle) in handles.into_iter().enumerate() {
                        assert_eq!(handle.join().unwrap(), thread * i);
                        done.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.load(SeqCst), 3_000);
    });
}

/// One at a time, with the runtime idle in between: each is a wake-up that must not be lost.
#[test]
fn every_spawn_wakes_an_idle_runtime() {
    apart(60, || {
        let runtime = Runtime::new().unwrap();
        for i in 0..3_000 {
            assert_eq!(runtime.spawn(async move { i }).join().unwrap(), i);
            if i % 100 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn a_full_queue_is_an_error_that_gives_the_task_back() {
    apart(60, || {
        let runtime = Builder::new()
            .servers(1)
            .max_workers(2)
            .queue_limit(10)
            .build()
            .unwrap();
        let (dam, blocked) = blocked_tasks(&runtime, 2);
        let mut queued = Vec::new();
        let begun = Instant::now();
        let refused = loop {
            match runtime.handle().try_spawn_blocking(|| 1) {
                Ok(handle) => queued.push(handle),
                Err(error) => break error,
            }
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "it is never full"
            );
        };
        assert!(
            (10..=12).contains(&queued.len()),
            "{} were queued",
            queued.len()
        );
        assert!(!refused.to_string().is_empty());
        assert!(runtime.handle().try_spawn(async { 1 }).is_err());
        dam.open();
        for handle in queued {
            assert_eq!(handle.join().unwrap(), 1);
        }
        for handle in blocked {
            handle.join().unwrap();
        }
        assert_eq!(
            runtime
                .handle()
                .try_spawn(async { 2 })
                .unwrap()
                .join()
                .unwrap(),
            2
        );
    });
}

#[test]
fn hooks_are_called_once_for_each_worker() {
    apart(60, || {
        let (started, start) = mpsc::channel();
        let (stopped, stop) = mpsc::channel();
        let runtime = Builder::new()
            .servers(2)
            .on_worker_start(move |id| started.send(id).unwrap())
            .on_worker_stop(move |id| stopped.send(id).unwrap())
            .build()
            .unwrap();
        let (dam, blocked) = blocked_tasks(&runtime, 10);
        dam.open();
        for handle in blocked {
            handle.join().unwrap();
        }
        drop(runtime);
        let (mut began, mut ended): (Vec<_>, Vec<_>) =
            (start.iter().collect(), stop.iter().collect());
        began.sort_unstable();
        ended.sort_unstable();
        assert!(began.len() >= 10);
        assert_eq!(began, ended);
    });
}

#[test]
fn names_and_numbers_of_the_builder_are_kept() {
    apart(60, || {
        let runtime = Builder::new()
            .servers(2)
            .thread_name("named")
            .thread_stack_size(1 << 20)
            .build()
            .unwrap();
        overlap(&runtime, 20);
        assert!(threads::named("named") >= 2);
        // A stack of a megabyte has room for this.
        let deep = runtime
            .spawn_blocking(|| {
                fn down(depth: usize) -> usize {
                    let page = std::hint::black_box([depth as u8; 1024]);
                    if depth == 0 {
                        0
                    } else {
                        down(depth - 1) + usize::from(page[0] != 0).min(1)
                    }
                }
                down(400)
            })
            .join()
            .unwrap();
        assert!(deep > 300);
    });
}

#[test]
fn metrics_add_up() {
    apart(60, || {
        let runtime = Builder::new().servers(2).build().unwrap();
        let (dam, blocked) = blocked_tasks(&runtime, 6);
        eventually("the blocks are counted", || {
            runtime.metrics().workers.blocked >= 5
        });
        let metrics = runtime.metrics();
        assert_eq!(metrics.servers.len(), 2);
        assert!(metrics.workers.total >= 6, "{metrics:?}");
        assert!(
            metrics.blocks_kernel + metrics.blocks_sentinel + metrics.blocks_monitor >= 4,
            "{metrics:?}"
        );
        dam.open();
        for handle in blocked {
            handle.join().unwrap();
        }
        overlap(&runtime, 50);
        eventually("nobody is blocked", || {
            runtime.metrics().workers.blocked == 0
        });
        assert!(runtime.metrics().spawned >= 56, "{:?}", runtime.metrics());
    });
}
