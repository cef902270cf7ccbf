//! The three ways to end a runtime, with workers that are blocked for ever, and the ways that
//! nobody chose.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, JoinHandle, Runtime, ThreadPool};
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
        assert_eq!(handle.metrics().workers().total(), 0);
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

/// A runtime whose only worker is blocked, with tasks that are queued in this order. Each does its
/// part when it is dropped, and the others know it by its place. The third value counts the parts
/// that are done.
fn with_queued(parts: Vec<Part>) -> (Runtime, Arc<Dam>, Arc<AtomicUsize>) {
    let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
    let (dam, _) = blocked_for_ever(&runtime, 1);
    let handles: Handles = Arc::default();
    let done = Arc::new(AtomicUsize::new(0));
    for part in parts {
        let (theirs, done) = (Arc::clone(&handles), Arc::clone(&done));
        let mut part = Some(part);
        let on_drop = OnDrop(move || {
            part.take().expect("dropped once")(&theirs);
            done.fetch_add(1, SeqCst);
        });
        let handle = runtime.spawn(async move { drop(on_drop) });
        handles.lock().unwrap().push(Some(handle));
    }
    (runtime, dam, done)
}

type Handles = Arc<Mutex<Vec<Option<JoinHandle<()>>>>>;

type Part = Box<dyn FnOnce(&Handles) + Send>;

/// Waits for the task at that place.
fn joins(place: usize) -> Part {
    Box::new(move |handles| {
        let handle = handles.lock().unwrap()[place].take();
        let handle = handle.expect("joined once");
        assert!(handle.join().unwrap_err().is_cancelled());
    })
}

/// A destructor may join a task that has been dropped, and may wait for time.
#[test]
fn destructors_join_what_is_dropped_already() {
    apart(60, || {
        let nap = || umcg::block_on(umcg::time::sleep(Duration::from_millis(20)));
        for end in [drop as fn(Runtime), Runtime::shutdown_background] {
            let parts: Vec<Part> = [Box::new(move |_: &Handles| nap()) as Part]
                .into_iter()
                .chain((0..50).map(joins))
                .collect();
            let count = parts.len();
            let (runtime, dam, done) = with_queued(parts);
            let ending = thread::spawn(move || end(runtime));
            // What is queued has gone before the blocked one is back.
            eventually("all of them are dropped", || done.load(SeqCst) == count);
            dam.open();
            eventually("the end", || ending.is_finished());
            ending.join().expect("no panic");
        }
    });
}

/// A destructor that waits for a task which is to be dropped after its own, on the same thread. It
/// is not allowed to, and waits until another thread drops that task. Nothing else waits with it.
#[test]
fn a_destructor_that_waits_for_a_task_behind_it_hangs_nothing_else() {
    let stuck = || with_queued(vec![joins(1), Box::new(|_| ())]);
    let released = |dam: &Dam, done: &AtomicUsize| {
        let other = runtime(1);
        other.spawn(async {}).join().expect("another runtime runs");
        drop(other);
        umcg::block_on(umcg::time::sleep(Duration::from_millis(1)));
        assert_eq!(done.load(SeqCst), 0, "the destructor waits");
        // The worker comes back, and drops what is queued on its way out.
        dam.open();
        eventually("each is dropped once", || done.load(SeqCst) == 2);
    };
    apart(60, || {
        let before = threads::count();
        let (runtime, dam, done) = stuck();
        let begun = Instant::now();
        runtime.shutdown_background();
        assert!(begun.elapsed() < Duration::from_secs(5));
        released(&dam, &done);

        let (runtime, dam, done) = stuck();
        let begun = Instant::now();
        runtime.shutdown_timeout(Duration::from_millis(100));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(90), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        released(&dam, &done);

        let (runtime, dam, done) = stuck();
        let ending = thread::spawn(move || drop(runtime));
        released(&dam, &done);
        eventually("the end", || ending.is_finished());
        ending.join().expect("no panic");
        eventually("all is gone", || threads::count() <= before + 4);
    });
}

/// A pool of one on that runtime, whose job is blocked.
fn full_pool(runtime: &Runtime) -> (ThreadPool, Arc<Dam>) {
    let pool = {
        let _entered = runtime.enter();
        ThreadPool::new(1)
    };
    let dam = Arc::new(Dam::new());
    pool.execute({
        let dam = Arc::clone(&dam);
        move || dam.wait()
    });
    eventually("its job is blocked", || dam.waiting() == 1);
    (pool, dam)
}

/// A runtime that is held up in its end by a destructor, `with` another task suspended.
fn held_up_in_its_end(
    suspended: impl Future<Output = ()> + Send + 'static,
    meanwhile: impl FnOnce(),
) {
    struct HoldUp(mpsc::Sender<()>, mpsc::Receiver<()>);
    impl Drop for HoldUp {
        fn drop(&mut self) {
            let _ = self.0.send(());
            let _ = self.1.recv();
        }
    }
    let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
    drop(runtime.spawn(suspended));
    eventually("it is suspended", || {
        runtime.metrics().num_suspended_tasks() == 1
    });
    let dam = Arc::new(Dam::new());
    drop(runtime.spawn_blocking({
        let dam = Arc::clone(&dam);
        move || dam.wait()
    }));
    eventually("the worker is blocked", || dam.waiting() == 1);
    let (begun, begins) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    let hold_up = HoldUp(begun, goes);
    drop(runtime.spawn(async move { drop(hold_up) }));
    let ending = thread::spawn(move || drop(runtime));
    begins.recv().expect("a queued task is dropped");
    meanwhile();
    drop(go);
    dam.open();
    eventually("the end", || ending.is_finished());
    ending.join().expect("no panic");
}

/// Calls a closure when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A timer fires for a task of a runtime that ends: its destructor is not for the thread of the
/// timers, for which it may wait.
#[test]
fn a_destructor_that_sleeps_does_not_stop_the_timers() {
    apart(60, || {
        let nap = |ms| umcg::time::sleep(Duration::from_millis(ms));
        held_up_in_its_end(
            async move {
                let _on_drop = OnDrop(|| umcg::block_on(nap(10)));
                nap(100).await;
            },
            || thread::sleep(Duration::from_millis(200)),
        );
        umcg::block_on(nap(1));
    });
}

/// A task of a runtime that ends is woken under a lock that its destructor takes.
#[test]
fn a_wake_up_drops_nothing_under_the_callers_lock() {
    apart(60, || {
        let waker = Arc::new(Mutex::new(None::<std::task::Waker>));
        let (theirs, dropped) = (Arc::clone(&waker), Arc::clone(&waker));
        let on_drop = OnDrop(move || drop(dropped.lock().unwrap()));
        held_up_in_its_end(
            async move {
                let _on_drop = on_drop;
                std::future::poll_fn(|cx| {
                    *theirs.lock().unwrap() = Some(cx.waker().clone());
                    std::task::Poll::<()>::Pending
                })
                .await;
            },
            || {
                let mut waker = waker.lock().unwrap();
                waker.take().expect("it was polled").wake();
            },
        );
    });
}

#[test]
fn a_runtime_may_be_dropped_in_its_own_hook() {
    static SLOT: Mutex<Option<Runtime>> = Mutex::new(None);
    apart(60, || {
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&dropped);
        let runtime = Builder::new()
            .servers(1)
            .keep_alive(Duration::from_millis(10))
            .on_worker_stop(move |_| {
                let runtime = SLOT.lock().unwrap().take();
                if runtime.is_some() {
                    drop(runtime);
                    tells.store(true, SeqCst);
                }
            })
            .build()
            .unwrap();
        let (dam, handles) = blocked_for_ever(&runtime, 4);
        *SLOT.lock().unwrap() = Some(runtime);
        late_unblock(&dam, handles, threads::count());
        eventually("the hook returns", || dropped.load(SeqCst));
    });
}

/// The end of a runtime is waited for by a worker of another one, which has no other and is to
/// run what the first one waits for.
#[test]
fn the_end_of_a_runtime_is_an_own_wait() {
    apart(60, || {
        let outer = Builder::new().servers(1).max_workers(1).build().unwrap();
        let inner = runtime(1);
        let handle = outer.handle().clone();
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        drop(inner.spawn_blocking(move || {
            begun.send(()).unwrap();
            goes.recv().unwrap_err();
            handle.spawn(async {}).join().expect("it runs");
        }));
        begins.recv().unwrap();
        let ends = outer.spawn_blocking(move || {
            drop(go);
            drop(inner);
        });
        eventually("the end of the inner one", || ends.is_finished());
        ends.join().unwrap();
    });
}

/// A stop hook that waits for a task, where the worker that ends was the only one there may be.
#[test]
fn a_stop_hook_may_wait_for_a_task() {
    apart(60, || {
        let hooks = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&hooks);
        let runtime = Builder::new()
            .servers(1)
            .max_workers(1)
            .min_idle_workers(0)
            .keep_alive(Duration::from_millis(10))
            .on_worker_stop(move |_| {
                if counts.fetch_add(1, SeqCst) == 0 {
                    let task = umcg::Handle::current().spawn(async { 7 });
                    assert_eq!(task.join().unwrap(), 7);
                    counts.fetch_add(10, SeqCst);
                }
            })
            .build()
            .unwrap();
        runtime.spawn(async {}).join().unwrap();
        eventually("the hook returns", || hooks.load(SeqCst) > 10);
    });
}

/// Jobs that a pool keeps beyond its limit go with the runtime, also when those that run are
/// left behind.
#[test]
fn the_queue_of_a_pool_ends_with_its_runtime() {
    apart(60, || {
        let runtime = runtime(1);
        let (pool, dam) = full_pool(&runtime);
        let waits = thread::spawn({
            let pool = pool.clone();
            move || pool.install(|| 7)
        });
        eventually("a job is queued", || pool.queued_count() == 1);
        runtime.shutdown_background();
        eventually("it is told", || waits.is_finished());
        waits.join().expect_err("it was never run");
        // And one that comes late.
        let late = pool.clone();
        let late = thread::spawn(move || late.install(|| 7));
        eventually("it is told as well", || late.is_finished());
        late.join().expect_err("it is not run either");
        dam.open();
        pool.join();
    });
}
