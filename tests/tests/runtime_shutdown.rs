//! The three ways to end a runtime, with workers that are blocked for ever, and the ways that
//! nobody chose.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, JoinHandle, Runtime};
use umcg_tests::fault::{Dam, apart, eventually, overlap, threads};

/// As many servers as `UMCG_SERVERS` says, or one a CPU.
fn any_runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

fn runtime(servers: usize) -> Runtime {
    Builder::new().servers(servers).build().expect("a runtime")
}

/// Counts the values of it that were dropped.
#[derive(Clone)]
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Tasks that are blocked until the dam is opened, some of them futures.
fn blocked_for_ever(runtime: &Runtime, tasks: usize) -> (Arc<Dam>, Vec<JoinHandle<usize>>) {
    let dam = Arc::new(Dam::new());
    let handles = (0..tasks)
        .map(|i| {
            let dam = Arc::clone(&dam);
            if i % 2 == 0 {
                runtime.spawn_blocking(move || {
                    dam.wait();
                    i
                })
            } else {
                runtime.spawn(async move {
                    dam.wait();
                    i
                })
            }
        })
        .collect();
    eventually("all are blocked", || dam.waiting() == tasks);
    (dam, handles)
}

/// After a runtime was left with blocked workers: they come back, see that it is over, and go.
fn late_unblock(dam: &Dam, handles: Vec<JoinHandle<usize>>, before: usize) {
    dam.open();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().expect("what has begun runs to its end"), i);
    }
    // Sentinel and monitor may stay for the process.
    eventually("the workers are gone", || threads::count() <= before + 4);
}

#[test]
fn shutdown_timeout_returns_in_time_whatever_is_blocked() {
    apart(60, || {
        for servers in [1, 2] {
            let before = threads::count();
            let runtime = runtime(servers);
            let (dam, handles) = blocked_for_ever(&runtime, 6);
            let begun = Instant::now();
            runtime.shutdown_timeout(Duration::from_millis(100));
            let took = begun.elapsed();
            assert!(
                took >= Duration::from_millis(90),
                "there was nothing to wait for? {took:?}"
            );
            assert!(took < Duration::from_secs(5), "{took:?}");
            late_unblock(&dam, handles, before);
        }
    });
}

#[test]
fn shutdown_timeout_returns_as_soon_as_all_is_done() {
    apart(60, || {
        let runtime = any_runtime();
        overlap(&runtime, 40);
        let begun = Instant::now();
        runtime.shutdown_timeout(Duration::from_secs(30));
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn shutdown_background_returns_at_once_whatever_is_blocked() {
    apart(60, || {
        for servers in [1, 2] {
            let before = threads::count();
            let runtime = runtime(servers);
            let (dam, handles) = blocked_for_ever(&runtime, 6);
            let begun = Instant::now();
            runtime.shutdown_background();
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{:?}",
                begun.elapsed()
            );
            late_unblock(&dam, handles, before);
        }
    });
}

/// The call may come at any moment of the server's loop, also between two of its looks.
#[test]
fn servers_leave_at_once_whatever_is_blocked() {
    apart(110, || {
        let spins = |n: usize| (0..n).for_each(|_| std::hint::spin_loop());
        for round in 0..400 {
            let runtime = runtime(1);
            let (dam, handles) = blocked_for_ever(&runtime, 1);
            let short = runtime.spawn(async {});
            short.join().expect("it runs");
            // The server goes to sleep just now.
            drop(runtime.spawn(async {}));
            spins(round * 37 % 4000);
            if round % 4 == 0 {
                // The server is asleep again between the two steps of this.
                runtime.shutdown_timeout(Duration::from_millis(1));
            } else {
                runtime.shutdown_background();
            }
            eventually("the server is gone", || threads::named("umcg-s0") == 0);
            assert_eq!(dam.waiting(), 1);
            dam.open();
            for handle in handles {
                drop(handle.join());
            }
        }
    });
}

#[test]
fn drop_waits_for_what_runs_and_for_what_is_blocked() {
    apart(60, || {
        let before = threads::count();
        let runtime = any_runtime();
        let (dam, handles) = blocked_for_ever(&runtime, 6);
        let over = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&over);
        let dropping = thread::spawn(move || {
            drop(runtime);
            tells.store(true, SeqCst);
        });
        thread::sleep(Duration::from_millis(100));
        assert!(!over.load(SeqCst), "tasks are blocked still");
        late_unblock(&dam, handles, before + 1);
        dropping.join().unwrap();
        eventually("no worker is left", || threads::count() <= before + 4);
    });
}

/// Many tasks that never come to run because the workers are all blocked.
fn queued_tasks_are_cancelled(end: impl FnOnce(Runtime)) {
    let runtime = Builder::new().servers(1).max_workers(2).build().unwrap();
    let (dam, handles) = blocked_for_ever(&runtime, 2);
    let drops = Arc::new(AtomicUsize::new(0));
    let queued: Vec<_> = (0..100)
        .map(|i| {
            let dropped = Dropped(Arc::clone(&drops));
            if i % 2 == 0 {
                runtime.spawn_blocking(move || drop(dropped))
            } else {
                runtime.spawn(async move { drop(dropped) })
            }
        })
        .collect();
    assert_eq!(drops.load(SeqCst), 0);
    let opens = Arc::clone(&dam);
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(150));
        opens.open();
    });
    end(runtime);
    for task in queued {
        let error = task.join().expect_err("it never began");
        assert!(error.is_cancelled());
    }
    assert_eq!(drops.load(SeqCst), 100);
    for handle in handles {
        handle.join().expect("what has begun runs to its end");
    }
    opener.join().unwrap();
}

#[test]
fn queued_tasks_are_cancelled_by_drop() {
    apart(60, || queued_tasks_are_cancelled(drop));
}

#[test]
fn queued_tasks_are_cancelled_by_a_timeout() {
    apart(60, || {
        queued_tasks_are_cancelled(|runtime| runtime.shutdown_timeout(Duration::from_millis(20)));
    });
}

#[test]
fn queued_tasks_are_cancelled_in_the_background() {
    apart(60, || {
        queued_tasks_are_cancelled(Runtime::shutdown_background)
    });
}

fn suspended_tasks_are_cancelled(end: impl FnOnce(Runtime)) {
    let runtime = any_runtime();
    let drops = Arc::new(AtomicUsize::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..100)
        .map(|i| {
            let (dropped, begun) = (Dropped(Arc::clone(&drops)), Arc::clone(&begun));
            runtime.spawn(async move {
                begun.fetch_add(1, SeqCst);
                match i % 3 {
                    0 => std::future::pending::<()>().await,
                    1 => umcg::time::sleep(Duration::from_secs(3600)).await,
                    _ => loop {
                        umcg::yield_now().await;
                    },
                }
                drop(dropped);
            })
        })
        .collect();
    eventually("all have begun", || begun.load(SeqCst) == 100);
    end(runtime);
    for task in tasks {
        assert!(task.join().expect_err("it cannot end").is_cancelled());
    }
    assert_eq!(drops.load(SeqCst), 100);
}

#[test]
fn suspended_tasks_are_cancelled_by_drop() {
    apart(60, || suspended_tasks_are_cancelled(drop));
}

#[test]
fn suspended_tasks_are_cancelled_by_a_timeout() {
    apart(60, || {
        suspended_tasks_are_cancelled(|runtime| runtime.shutdown_timeout(Duration::from_secs(20)));
    });
}

#[test]
fn suspended_tasks_are_cancelled_in_the_background() {
    apart(60, || {
        suspended_tasks_are_cancelled(Runtime::shutdown_background)
    });
}

/// Tasks that others wait for, in each of the runtime's own waits, while it ends: nobody hangs.
#[test]
fn waits_for_cancelled_tasks_end() {
    apart(60, || {
        let runtime = Builder::new().servers(1).max_workers(2).build().unwrap();
        let (dam, handles) = blocked_for_ever(&runtime, 2);
        let never = runtime.spawn_blocking(|| ());
        let joins = runtime.handle().clone();
        let waiting = thread::spawn(move || {
            let _entered = joins.enter();
            assert!(never.join().unwrap_err().is_cancelled());
            // And a task that comes too late.
            assert!(
                umcg::spawn_blocking(|| ())
                    .join()
                    .unwrap_err()
                    .is_cancelled()
            );
            assert!(umcg::spawn(async {}).join().unwrap_err().is_cancelled());
        });
        runtime.shutdown_background();
        waiting.join().unwrap();
        late_unblock(&dam, handles, 4);
    });
}

#[test]
fn a_runtime_may_be_dropped_inside_its_own_worker() {
    apart(60, || {
        for servers in [1, 2] {
            for way in 0..4 {
                let before = threads::count();
                let runtime = runtime(servers);
                let handle = runtime.handle().clone();
                let (done, ends) = mpsc::channel();
                let body = move || {
                    match way {
                        0 => drop(runtime),
                        1 => runtime.shutdown_timeout(Duration::from_millis(10)),
                        2 => runtime.shutdown_background(),
                        _ => drop(Arc::new(runtime)),
                    }
                    done.send(()).unwrap();
                };
                if way % 2 == 0 {
                    drop(handle.spawn_blocking(body));
                } else {
                    drop(handle.spawn(async move { body() }));
                }
                ends.recv().expect("it goes on after the drop");
                eventually("all is gone", || threads::count() <= before + 4);
            }
        }
    });
}

/// Dropped in a task of another runtime: an ordinary wait there.
#[test]
fn a_runtime_may_be_dropped_inside_another_one() {
    apart(60, || {
        let outer = runtime(1);
        let inner = runtime(1);
        let (begins, begun) = mpsc::channel();
        let slow = inner.spawn_blocking(move || {
            begins.send(()).unwrap();
            thread::sleep(Duration::from_millis(100));
            3
        });
        begun.recv().unwrap();
        let dropping = outer.spawn_blocking(move || drop(inner));
        overlap(&outer, 40);
        dropping.join().unwrap();
        assert_eq!(slow.join().unwrap(), 3);
    });
}

#[test]
fn a_handle_outlives_its_runtime_and_says_so() {
    apart(60, || {
        let runtime = any_runtime();
        let handle = runtime.handle().clone();
        drop(runtime);
        assert!(handle.spawn(async { 1 }).join().unwrap_err().is_cancelled());
        assert!(
            handle
                .spawn_blocking(|| 1)
                .join()
                .unwrap_err()
                .is_cancelled()
        );
        assert!(handle.try_spawn(async { 1 }).unwrap_err().is_shut_down());
        // The caller's own thread polls this one.
        assert_eq!(handle.block_on(async { 2 }), 2);
        assert_eq!(handle.metrics().workers.total, 0);
    });
}

/// The waker of a task of a runtime that is gone.
#[test]
fn a_waker_outlives_its_runtime() {
    apart(60, || {
        let runtime = runtime(1);
        let (gives, waker) = mpsc::channel();
        let task = runtime.spawn(std::future::poll_fn(move |cx| {
            gives.send(cx.waker().clone()).unwrap();
            std::task::Poll::<()>::Pending
        }));
        let waker = waker.recv().unwrap();
        drop(runtime);
        waker.wake_by_ref();
        assert!(task.join().unwrap_err().is_cancelled());
        waker.wake();
    });
}

/// Destructors that use the runtime while it cancels their tasks.
#[test]
fn destructors_of_cancelled_tasks_may_spawn_and_block() {
    struct Busy(umcg::Handle, Arc<AtomicUsize>);
    impl Drop for Busy {
        fn drop(&mut self) {
            drop(self.0.spawn(async {}));
            thread::sleep(Duration::from_millis(1));
            umcg::thread::yield_now();
            self.1.fetch_add(1, SeqCst);
        }
    }
    apart(60, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let runtime = any_runtime();
        let begun = Arc::new(AtomicUsize::new(0));
        for _ in 0..40 {
            let busy = Busy(runtime.handle().clone(), Arc::clone(&drops));
            let begun = Arc::clone(&begun);
            drop(runtime.spawn(async move {
                begun.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
                drop(busy);
            }));
        }
        eventually("all have begun", || begun.load(SeqCst) == 40);
        drop(runtime);
        assert_eq!(drops.load(SeqCst), 40);
    });
}
