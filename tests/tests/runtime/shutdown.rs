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

/// A destructor that waits for the end of a task whose own turn comes later, in the order in
/// which the two suspended.
#[test]
fn a_destructor_joins_a_task_that_is_cancelled_after_its_own() {
    struct Joins(Arc<Mutex<Option<JoinHandle<()>>>>);
    impl Drop for Joins {
        fn drop(&mut self) {
            let child = self.0.lock().unwrap().take();
            let child = child.expect("it was spawned");
            assert!(child.join().unwrap_err().is_cancelled());
        }
    }
    apart(60, || {
        let ends: [fn(Runtime); 3] = [drop, Runtime::shutdown_background, |runtime| {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }];
        for end in ends {
            for servers in [1, 2] {
                let runtime = runtime(servers);
                let child = Arc::new(Mutex::new(None));
                let joins = Joins(Arc::clone(&child));
                let parent = runtime.spawn(async move {
                    let _joins = joins;
                    std::future::pending::<()>().await;
                });
                eventually("the parent is suspended", || {
                    runtime.metrics().suspended == 1
                });
                let handle = runtime.spawn(std::future::pending::<()>());
                eventually("the child, too", || runtime.metrics().suspended == 2);
                *child.lock().unwrap() = Some(handle);
                end(runtime);
                assert!(parent.join().unwrap_err().is_cancelled());
            }
        }
    });
}

/// The same with queued tasks, a chain of them.
#[test]
fn destructors_join_each_other() {
    struct Joins(Option<JoinHandle<()>>);
    impl Drop for Joins {
        fn drop(&mut self) {
            if let Some(next) = self.0.take() {
                assert!(next.join().unwrap_err().is_cancelled());
            }
        }
    }
    apart(60, || {
        for end in [drop as fn(Runtime), Runtime::shutdown_background] {
            let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
            let dam = Arc::new(Dam::new());
            let blocked = runtime.spawn_blocking({
                let dam = Arc::clone(&dam);
                move || dam.wait()
            });
            eventually("it is blocked", || dam.waiting() == 1);
            // Each is queued behind the one that it joins, and so dropped after it, or the other
            // way round.
            let mut last = None;
            for _ in 0..50 {
                let joins = Joins(last.take());
                last = Some(runtime.spawn(async move { drop(joins) }));
            }
            let (slot, joined) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
            let later = Later(Arc::clone(&slot), Arc::clone(&joined));
            drop(runtime.spawn(async move { drop(later) }));
            *slot.lock().unwrap() = Some(runtime.spawn(async {}));
            let ending = thread::spawn(move || end(runtime));
            // What is queued has gone before the blocked one is back.
            eventually("they are cancelled", || joined.load(SeqCst));
            dam.open();
            eventually("the end", || ending.is_finished());
            ending.join().expect("no panic");
            drop(blocked.join());
            assert!(last.expect("fifty").join().unwrap_err().is_cancelled());
        }
    });

    struct Later(Arc<Mutex<Option<JoinHandle<()>>>>, Arc<AtomicBool>);
    impl Drop for Later {
        fn drop(&mut self) {
            let next = self.0.lock().unwrap().take();
            let next = next.expect("it was spawned");
            assert!(next.join().unwrap_err().is_cancelled());
            self.1.store(true, SeqCst);
        }
    }
}

/// Ends a runtime of one blocked worker with tasks that are queued in this order. Each does its
/// part when it is dropped, and is known to the others by its place.
fn end_with_queued(parts: Vec<Part>) {
    end_with_queued_and(parts, |_| ());
}

/// The same; `before` it ends.
fn end_with_queued_and(parts: Vec<Part>, before: impl FnOnce(&Handles)) {
    let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
    let (dam, blocked) = blocked_for_ever(&runtime, 1);
    let handles: Handles = Arc::default();
    let done = Arc::new(AtomicUsize::new(0));
    let count = parts.len();
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
    before(&handles);
    let ending = thread::spawn(move || runtime.shutdown_background());
    eventually("all of them are dropped", || done.load(SeqCst) == count);
    eventually("the end", || ending.is_finished());
    ending.join().expect("no panic");
    dam.open();
    for handle in blocked {
        drop(handle.join());
    }
}

type Handles = Arc<Mutex<Vec<Option<JoinHandle<()>>>>>;

type Part = Box<dyn FnOnce(&Handles) + Send>;

/// Waits for the one at that place.
fn joins(place: usize) -> Part {
    Box::new(move |handles| {
        let handle = handles.lock().unwrap()[place].take();
        let handle = handle.expect("joined once");
        assert!(handle.join().unwrap_err().is_cancelled());
    })
}

/// The one in the middle waits for one that is being dropped, and waits.
#[test]
fn destructors_that_wait_are_not_nested() {
    apart(60, || {
        end_with_queued(vec![joins(2), joins(0), Box::new(|_| ())]);
        end_with_queued(vec![joins(1), Box::new(|_| ()), joins(0)]);
        let nap = || umcg::block_on(umcg::time::sleep(Duration::from_millis(20)));
        end_with_queued(vec![Box::new(move |_| nap()), joins(0)]);
        // With a lock held across the wait.
        let lock = Arc::new(Mutex::new(()));
        let other = Arc::clone(&lock);
        end_with_queued(vec![
            Box::new(move |_| {
                let _held = lock.lock().unwrap();
                nap();
            }),
            Box::new(move |_| drop(other.lock().unwrap())),
        ]);
        // More than there are helpers on one stack.
        let chain: Vec<_> = (1..=150).map(joins).collect();
        end_with_queued(chain.into_iter().chain([nothing()]).collect());
    });

    fn nothing() -> Part {
        Box::new(|_| ())
    }
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

/// A job that a pool keeps waits, when it is dropped, for a task that is suspended.
#[test]
fn a_job_of_a_pool_joins_a_suspended_task() {
    apart(60, || {
        let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
        let suspended = runtime.spawn(std::future::pending::<()>());
        eventually("it is suspended", || runtime.metrics().suspended == 1);
        let (pool, dam) = full_pool(&runtime);
        let mut suspended = Some(suspended);
        let on_drop = OnDrop(move || {
            let suspended = suspended.take().expect("dropped once");
            assert!(suspended.join().unwrap_err().is_cancelled());
        });
        pool.execute(move || drop(on_drop));
        let ending = thread::spawn(move || runtime.shutdown_background());
        eventually("the end", || ending.is_finished());
        ending.join().expect("no panic");
        dam.open();
    });
}

/// Jobs that a pool keeps: the destructor of one waits for that of the next.
#[test]
fn a_job_of_a_pool_waits_for_the_next_one() {
    apart(60, || {
        let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
        let (pool, dam) = full_pool(&runtime);
        let latch = Arc::new(AtomicBool::new(false));
        let (waits, sets) = (Arc::clone(&latch), latch);
        let first = OnDrop(move || {
            while !waits.load(SeqCst) {
                umcg::block_on(umcg::time::sleep(Duration::from_millis(1)));
            }
        });
        let second = OnDrop(move || sets.store(true, SeqCst));
        pool.execute(move || drop(first));
        pool.execute(move || drop(second));
        let ending = thread::spawn(move || runtime.shutdown_background());
        eventually("the end", || ending.is_finished());
        ending.join().expect("no panic");
        dam.open();
    });
}

/// A runtime ends inside of the end of another one, where somebody waits for a task of the outer.
#[test]
fn ends_of_two_runtimes_one_inside_of_the_other() {
    apart(60, || {
        let inner = Builder::new().servers(1).max_workers(1).build().unwrap();
        let (dam, _blocked) = blocked_for_ever(&inner, 1);
        let of_outer = Arc::new(Mutex::new(None::<JoinHandle<()>>));
        let theirs = Arc::clone(&of_outer);
        let joins = OnDrop(move || {
            let handle = theirs.lock().unwrap().take();
            let handle = handle.expect("it was spawned");
            assert!(handle.join().unwrap_err().is_cancelled());
        });
        drop(inner.spawn(async move { drop(joins) }));
        let mut inner = Some(inner);
        end_with_queued_and(
            vec![
                Box::new(move |_| inner.take().expect("dropped once").shutdown_background()),
                Box::new(|_| ()),
            ],
            |handles| {
                let last = handles.lock().unwrap()[1].take();
                *of_outer.lock().unwrap() = last;
            },
        );
        dam.open();
    });
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
    eventually("it is suspended", || runtime.metrics().suspended == 1);
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
