//! Tasks: join, abort and sets of tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use umcg::JoinSet;
use umcg_tests::{BlockerGate, eventually, isolated, runtime::default_runtime};

#[test]
fn many_tasks_are_awaited_and_joined() {
    isolated(60, || {
        let runtime = default_runtime();
        let sum = runtime.block_on(async {
            let handles: Vec<_> = (0..2_000_u64)
                .map(|i| {
                    umcg::spawn(async move {
                        umcg::yield_now().await;
                        let inner = umcg::spawn(async move { i });
                        inner.await.unwrap()
                    })
                })
                .collect();
            let mut sum = 0;
            for handle in handles {
                sum += handle.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 1_999_000);
    });
}

/// A chain in which each task joins the next one and blocks: it needs as many workers as it has
/// links.
#[test]
fn a_chain_of_blocking_joins() {
    isolated(60, || {
        fn chain(depth: u32) -> u32 {
            if depth == 0 {
                return 0;
            }
            1 + umcg::spawn_blocking(move || chain(depth - 1))
                .join()
                .unwrap()
        }
        let runtime = default_runtime();
        assert_eq!(runtime.spawn_blocking(|| chain(100)).join().unwrap(), 100);
    });
}

#[test]
fn a_detached_task_runs_to_its_end() {
    isolated(60, || {
        let runtime = default_runtime();
        let done = Arc::new(AtomicUsize::new(0));
        for i in 0..100 {
            let done = Arc::clone(&done);
            if i % 2 == 0 {
                drop(runtime.spawn(async move {
                    umcg::yield_now().await;
                    done.fetch_add(1, SeqCst);
                }));
            } else {
                drop(runtime.spawn_blocking(move || {
                    thread::sleep(Duration::from_millis(1));
                    done.fetch_add(1, SeqCst);
                }));
            }
        }
        eventually("all are done", || done.load(SeqCst) == 100);
    });
}

#[test]
fn abort_works_in_every_state_of_a_task() {
    isolated(60, || {
        let runtime = default_runtime();
        for _ in 0..50 {
            let suspended = runtime.spawn(std::future::pending::<()>());
            suspended.abort();
            assert!(suspended.join().unwrap_err().is_cancelled());

            let timed = runtime.spawn(umcg::time::sleep(Duration::from_secs(3600)));
            timed.abort_handle().abort();
            assert!(timed.join().unwrap_err().is_cancelled());

            let yielding = runtime.spawn(async {
                loop {
                    umcg::yield_now().await;
                }
            });
            yielding.abort();
            let error: umcg::JoinError = yielding
                .join()
                .map(|never: std::convert::Infallible| match never {})
                .unwrap_err();
            assert!(error.is_cancelled());

            let finished = runtime.spawn(async { 3 });
            eventually("it is done", || finished.is_finished());
            finished.abort();
            assert_eq!(finished.join().unwrap(), 3);
        }
        // A closure that has begun runs to its end. A future that blocks runs to its next await.
        let gate = Arc::new(BlockerGate::new());
        let (theirs, others) = (Arc::clone(&gate), Arc::clone(&gate));
        let closure = runtime.spawn_blocking(move || {
            theirs.wait();
            4
        });
        let future = runtime.spawn(async move {
            others.wait();
            std::future::pending::<()>().await;
        });
        eventually("both are blocked", || gate.waiting() == 2);
        closure.abort();
        future.abort();
        gate.open();
        assert_eq!(closure.join().unwrap(), 4);
        assert!(future.join().unwrap_err().is_cancelled());
    });
}

/// Many threads abort tasks at once, whatever these are doing: each task ends exactly once.
#[test]
fn aborts_race_with_everything() {
    isolated(60, || {
        let runtime = default_runtime();
        for _ in 0..20 {
            let ends = Arc::new(AtomicUsize::new(0));
            struct End(Arc<AtomicUsize>);
            impl Drop for End {
                fn drop(&mut self) {
                    self.0.fetch_add(1, SeqCst);
                }
            }
            let handles: Vec<_> = (0..60)
                .map(|i| {
                    let end = End(Arc::clone(&ends));
                    runtime.spawn(async move {
                        for _ in 0..i % 7 {
                            umcg::yield_now().await;
                        }
                        if i % 5 == 0 {
                            thread::sleep(Duration::from_micros(200));
                            umcg::yield_now().await;
                        }
                        drop(end);
                        i
                    })
                })
                .collect();
            thread::scope(|scope| {
                for part in handles.chunks(20) {
                    scope.spawn(move || part.iter().for_each(umcg::JoinHandle::abort));
                }
            });
            for (i, handle) in handles.into_iter().enumerate() {
                match handle.join() {
                    Ok(value) => assert_eq!(value, i),
                    Err(error) => assert!(error.is_cancelled()),
                }
            }
            eventually("each has ended", || ends.load(SeqCst) == 60);
        }
    });
}

#[test]
fn a_set_gives_its_tasks_in_the_order_in_which_they_finish() {
    isolated(60, || {
        let runtime = default_runtime();
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for i in 0..200_usize {
                if i % 2 == 0 {
                    set.spawn(async move {
                        umcg::yield_now().await;
                        i
                    });
                } else {
                    set.spawn_blocking(move || {
                        thread::sleep(Duration::from_micros(300));
                        i
                    });
                }
            }
            let mut seen = Vec::new();
            while let Some(result) = set.join_next().await {
                seen.push(result.unwrap());
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..200).collect::<Vec<_>>());

            // A task that is late comes last.
            let gate = Arc::new(BlockerGate::new());
            let theirs = Arc::clone(&gate);
            set.spawn_blocking(move || {
                theirs.wait();
                0
            });
            set.spawn(async { 1 });
            assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
            gate.open();
            assert_eq!(set.join_next().await.unwrap().unwrap(), 0);

            for i in 0..10 {
                set.spawn(async move { i });
            }
            assert_eq!(set.join_all().await.into_iter().sum::<usize>(), 45);

            let mut set = JoinSet::new();
            set.spawn(std::future::pending::<()>());
            set.shutdown().await;
            assert!(set.is_empty());
        });
    });
}
