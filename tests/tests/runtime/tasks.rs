//! Tasks on the real scheduler: join, abort, sets, timers, tokio's types.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{Barrier, Mutex, Notify, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use umcg::{JoinSet, Runtime};
use umcg_tests::fault::{Dam, apart, eventually};

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

#[test]
fn many_tasks_are_awaited_and_joined() {
    apart(60, || {
        let runtime = runtime();
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

/// A chain in which each task joins the next one, blocking: as many workers as links.
#[test]
fn a_chain_of_blocking_joins() {
    apart(60, || {
        fn chain(depth: u32) -> u32 {
            if depth == 0 {
                return 0;
            }
            1 + umcg::spawn_blocking(move || chain(depth - 1))
                .join()
                .unwrap()
        }
        let runtime = runtime();
        assert_eq!(runtime.spawn_blocking(|| chain(100)).join().unwrap(), 100);
    });
}

#[test]
fn a_detached_task_runs_to_its_end() {
    apart(60, || {
        let runtime = runtime();
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
fn abort_of_suspended_queued_blocked_and_finished_tasks() {
    apart(60, || {
        let runtime = runtime();
        for _ in 0..50 {
            let suspended = runtime.spawn(std::future::pending::<()>());
            suspended.abort();
            assert!(suspended.join().unwrap_err().is_cancelled());

            let timed = runtime.spawn(umcg::time::sleep(Duration::from_secs(3600)));
            timed.abort_handle().abort();
            assert!(timed.join().unwrap_err().is_cancelled());

            let finished = runtime.spawn(async { 3 });
            eventually("it is done", || finished.is_finished());
            finished.abort();
            assert_eq!(finished.join().unwrap(), 3);
        }
        // A closure that has begun runs to its end; a future that blocks, to its next await.
        let dam = Arc::new(Dam::new());
        let (theirs, others) = (Arc::clone(&dam), Arc::clone(&dam));
        let closure = runtime.spawn_blocking(move || {
            theirs.wait();
            4
        });
        let future = runtime.spawn(async move {
            others.wait();
            std::future::pending::<()>().await;
        });
        eventually("both are blocked", || dam.waiting() == 2);
        closure.abort();
        future.abort();
        dam.open();
        assert_eq!(closure.join().unwrap(), 4);
        assert!(future.join().unwrap_err().is_cancelled());
    });
}

/// Aborts from many threads at once, at whatever the tasks are doing: each ends exactly once.
#[test]
fn aborts_race_with_everything() {
    apart(60, || {
        let runtime = runtime();
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
    apart(60, || {
        let runtime = runtime();
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

            // One that is late comes last.
            let dam = Arc::new(Dam::new());
            let theirs = Arc::clone(&dam);
            set.spawn_blocking(move || {
                theirs.wait();
                0
            });
            set.spawn(async { 1 });
            assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
            dam.open();
            assert_eq!(set.join_next().await.unwrap().unwrap(), 0);

            set.spawn(std::future::pending());
            set.shutdown().await;
            assert!(set.is_empty());
        });
    });
}

#[test]
fn timers_fire_late_rather_than_early_and_in_order() {
    apart(60, || {
        let runtime = runtime();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tasks: Vec<_> = [80_u64, 20, 140, 50, 110]
            .into_iter()
            .map(|ms| {
                let order = Arc::clone(&order);
                runtime.spawn(async move {
                    let begun = Instant::now();
                    umcg::time::sleep(Duration::from_millis(ms)).await;
                    assert!(begun.elapsed() >= Duration::from_millis(ms));
                    order.lock().unwrap().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        let order = order.lock().unwrap();
        assert_eq!(*order, [20, 50, 80, 110, 140]);
    });
}

#[test]
fn a_timer_fires_while_other_tasks_block_or_compute() {
    apart(60, || {
        let runtime = umcg::Builder::new().servers(1).build().unwrap();
        let dam = Arc::new(Dam::new());
        let theirs = Arc::clone(&dam);
        let blocked = runtime.spawn(async move { theirs.wait() });
        eventually("it is blocked", || dam.waiting() == 1);
        let begun = Instant::now();
        let timed = runtime.spawn(umcg::time::sleep(Duration::from_millis(20)));
        timed.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5));
        dam.open();
        blocked.join().unwrap();
    });
}

#[test]
fn timeouts() {
    apart(60, || {
        let runtime = runtime();
        runtime.block_on(async {
            let late = umcg::time::timeout(Duration::from_millis(10), std::future::pending::<()>());
            assert!(late.await.is_err());
            let quick = umcg::time::timeout(Duration::from_secs(3600), async {
                umcg::time::sleep(Duration::from_millis(1)).await;
                5
            });
            assert_eq!(quick.await.unwrap(), 5);
        });
        // Far more timers than threads, all cancelled but one.
        let done = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..2_000)
            .map(|_| {
                let done = Arc::clone(&done);
                runtime.spawn(async move {
                    let mut timer = pin!(umcg::time::sleep(Duration::from_secs(3600)));
                    poll_fn(|cx| {
                        assert!(timer.as_mut().poll(cx).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    umcg::time::sleep(Duration::from_millis(30)).await;
                    done.store(true, SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(done.load(SeqCst));
    });
}

#[test]
fn timers_of_a_runtime_under_a_stream_of_tasks() {
    apart(60, || {
        let runtime = umcg::Builder::new().servers(2).build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stream: Vec<_> = (0..6)
            .map(|_| {
                let stop = Arc::clone(&stop);
                runtime.spawn(async move {
                    while !stop.load(SeqCst) {
                        umcg::yield_now().await;
                    }
                })
            })
            .collect();
        let ticks = runtime.spawn(async {
            for _ in 0..100 {
                umcg::time::sleep(Duration::from_millis(1)).await;
            }
        });
        ticks.join().unwrap();
        stop.store(true, SeqCst);
        for task in stream {
            task.join().unwrap();
        }
    });
}

#[test]
fn channels_of_tokio_carry_everything() {
    apart(60, || {
        let runtime = runtime();
        runtime.block_on(async {
            let (sender, mut receiver) = mpsc::channel(4);
            for producer in 0..8_u64 {
                let sender = sender.clone();
                if producer % 2 == 0 {
                    drop(umcg::spawn(async move {
                        for i in 0..200 {
                            sender.send(producer * 1_000 + i).await.unwrap();
                        }
                    }));
                } else {
                    // The blocking half of the API blocks a worker like anything else.
                    drop(umcg::spawn_blocking(move || {
                        for i in 0..200 {
                            sender.blocking_send(producer * 1_000 + i).unwrap();
                        }
                    }));
                }
            }
            drop(sender);
            let mut seen = Vec::new();
            while let Some(value) = receiver.recv().await {
                seen.push(value);
            }
            seen.sort_unstable();
            let want: Vec<_> = (0..8)
                .flat_map(|p| (0..200).map(move |i| p * 1_000 + i))
                .collect();
            assert_eq!(seen, want);

            let (ask, mut asked) = mpsc::unbounded_channel::<(u64, oneshot::Sender<u64>)>();
            let server = umcg::spawn(async move {
                while let Some((number, answer)) = asked.recv().await {
                    answer.send(number * number).unwrap();
                }
            });
            for i in 0..200 {
                let (answer, answered) = oneshot::channel();
                ask.send((i, answer)).unwrap();
                assert_eq!(answered.await.unwrap(), i * i);
            }
            drop(ask);
            server.await.unwrap();
        });
    });
}

#[test]
fn locks_of_tokio_exclude_and_wake() {
    apart(60, || {
        let runtime = runtime();
        runtime.block_on(async {
            let (mutex, reads) = (Arc::new(Mutex::new(0_u64)), Arc::new(RwLock::new(0_u64)));
            let (semaphore, barrier) = (Arc::new(Semaphore::new(3)), Arc::new(Barrier::new(40)));
            let inside = Arc::new(AtomicUsize::new(0));
            let mut set = JoinSet::new();
            for i in 0..40 {
                let (mutex, reads) = (Arc::clone(&mutex), Arc::clone(&reads));
                let (semaphore, barrier) = (Arc::clone(&semaphore), Arc::clone(&barrier));
                let inside = Arc::clone(&inside);
                set.spawn(async move {
                    barrier.wait().await;
                    for _ in 0..10 {
                        let permit = semaphore.acquire().await.unwrap();
                        assert!(inside.fetch_add(1, SeqCst) < 3);
                        if i % 4 == 0 {
                            thread::sleep(Duration::from_micros(100));
                        }
                        inside.fetch_sub(1, SeqCst);
                        drop(permit);
                        let mut held = mutex.lock().await;
                        umcg::yield_now().await;
                        *held += 1;
                        drop(held);
                        if i % 2 == 0 {
                            *reads.write().await += 1;
                        } else {
                            assert!(*reads.read().await <= 200);
                        }
                    }
                });
            }
            while let Some(result) = set.join_next().await {
                result.unwrap();
            }
            assert_eq!((*mutex.lock().await, *reads.read().await), (400, 200));
        });
    });
}

#[test]
fn watch_broadcast_and_notify_of_tokio() {
    apart(60, || {
        let runtime = runtime();
        runtime.block_on(async {
            let (shows, mut seen) = watch::channel(0);
            let (casts, mut hears) = broadcast::channel(200);
            let notify = Arc::new(Notify::new());
            let notified = Arc::clone(&notify);
            let watcher = umcg::spawn(async move {
                while *seen.borrow_and_update() < 100 {
                    seen.changed().await.unwrap();
                }
            });
            let listener = umcg::spawn(async move {
                let mut sum = 0;
                while let Ok(value) = hears.recv().await {
                    sum += value;
                }
                sum
            });
            let waiter = umcg::spawn(async move { notified.notified().await });
            for i in 1..=100 {
                shows.send(i).unwrap();
                casts.send(i).unwrap();
                umcg::yield_now().await;
            }
            drop(casts);
            notify.notify_one();
            watcher.await.unwrap();
            assert_eq!(listener.await.unwrap(), 5_050);
            waiter.await.unwrap();
        });
    });
}
