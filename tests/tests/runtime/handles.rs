//! Handles: spawning from outside, nested calls, and several runtimes in one process.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use umcg::{Builder, Handle, Runtime};
use umcg_tests::{
    eventually, isolated,
    runtime::{block_tasks, join_all, run_mixed_tasks},
};

#[test]
fn several_runtimes_work_together_in_one_process() {
    isolated(60, || {
        let runtimes: Vec<_> = (1..=3)
            .map(|servers| Builder::new().servers(servers).build().unwrap())
            .collect();
        // Each task hands work to the next runtime: futures are awaited and closures joined across
        // runtimes.
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
        // A runtime whose workers are all blocked stops no other one.
        let (gate, blocked) = block_tasks(&runtimes[0], 4);
        for runtime in &runtimes {
            run_mixed_tasks(runtime, 40);
        }
        gate.open();
        for handle in blocked {
            handle.join().unwrap();
        }
        drop(runtimes);
    });
}

#[test]
fn current_is_the_runtime_that_runs_the_task() {
    isolated(60, || {
        assert!(Handle::try_current().is_err());
        let (a, b) = (
            Builder::new().servers(1).build().unwrap(),
            Builder::new().servers(1).build().unwrap(),
        );
        let handle = b.handle().clone();
        let answer = a.spawn(async move {
            // On a worker of another runtime.
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
    isolated(60, || {
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
    isolated(60, || {
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

/// One task at a time, while the runtime is otherwise idle: each is a wake-up that must not be
/// lost.
#[test]
fn every_spawn_wakes_an_idle_runtime() {
    isolated(60, || {
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
    isolated(60, || {
        let runtime = Builder::new()
            .servers(1)
            .max_workers(2)
            .queue_limit(3)
            .build()
            .unwrap();
        let (gate, blocked) = block_tasks(&runtime, 2);
        eventually("nothing is queued", || runtime.metrics().queue_depth() == 0);
        let handle = runtime.handle();
        let mut queued = vec![handle.try_spawn_blocking(|| 1).unwrap()];
        queued.extend((0..2).map(|_| handle.try_spawn(async { 1 }).unwrap()));
        let refused = handle.try_spawn(async { 1 }).unwrap_err();
        assert!(refused.is_full());
        assert!(!refused.to_string().is_empty());
        assert!(handle.try_spawn_blocking(|| 1).unwrap_err().is_full());
        // `spawn` has no limit.
        queued.push(runtime.spawn(refused.into_inner()));
        gate.open();
        for task in queued {
            assert_eq!(task.join().unwrap(), 1);
        }
        join_all(blocked);
        let again = handle.try_spawn(async { 2 }).unwrap();
        assert_eq!(again.join().unwrap(), 2);
    });
}
