//! Destructors of cancelled tasks, which run while the runtime ends.

use std::{
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::{Builder, JoinHandle, Runtime, ThreadPool};
use umcg_tests::{
    BlockerGate, eventually, isolated,
    runtime::{block_tasks, default_runtime, runtime_with},
};

/// Destructors that use the runtime while it cancels their tasks: they spawn, block and yield, and
/// they join a task that they have spawned, which is cancelled.
#[test]
fn destructors_of_cancelled_tasks_may_spawn_and_block() {
    struct Busy(umcg::Handle, Arc<AtomicUsize>);
    impl Drop for Busy {
        fn drop(&mut self) {
            drop(self.0.spawn(async {}));
            thread::sleep(Duration::from_millis(1));
            umcg::thread::yield_now();
            assert!(self.0.spawn(async {}).join().unwrap_err().is_cancelled());
            self.1.fetch_add(1, SeqCst);
        }
    }
    isolated(60, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let runtime = default_runtime();
        for _ in 0..40 {
            let busy = Busy(runtime.handle().clone(), Arc::clone(&drops));
            drop(runtime.spawn(async move {
                let _busy = busy;
                pending::<()>().await;
            }));
        }
        eventually("all are suspended", || runtime.metrics().suspended == 40);
        drop(runtime);
        assert_eq!(drops.load(SeqCst), 40);
    });
}

/// Ends a runtime whose end is held up by a destructor while the task `suspended` is suspended.
/// Calls `meanwhile` at that moment.
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
    let gate = Arc::new(BlockerGate::new());
    drop(runtime.spawn_blocking({
        let gate = Arc::clone(&gate);
        move || gate.wait()
    }));
    eventually("the worker is blocked", || gate.waiting() == 1);
    let (begun, begins) = mpsc::channel();
    let (go, goes) = mpsc::channel();
    let hold_up = HoldUp(begun, goes);
    drop(runtime.spawn(async move { drop(hold_up) }));
    let ending = thread::spawn(move || drop(runtime));
    begins.recv().expect("a queued task is dropped");
    meanwhile();
    drop(go);
    gate.open();
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

/// A timer fires for a task of a runtime that ends. The destructor of the task must not run on the
/// thread of the timers, because it may itself wait for a timer.
#[test]
fn a_destructor_that_sleeps_does_not_stop_the_timers() {
    isolated(60, || {
        let nap = |ms| umcg::time::sleep(Duration::from_millis(ms));
        held_up_in_its_end(
            async move {
                let _on_drop = OnDrop(|| umcg::block_on(nap(10)));
                nap(100).await;
            },
            // A timer that is due later fires after the one of the task.
            || umcg::block_on(nap(150)),
        );
        umcg::block_on(nap(1));
    });
}

/// A task of a runtime that ends is woken under a lock that its destructor takes.
#[test]
fn a_wake_up_drops_nothing_under_the_callers_lock() {
    isolated(60, || {
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

/// A destructor waits for the end of a task that is cancelled after its own, in the order in which
/// the two were suspended.
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
    isolated(60, || {
        let ends: [fn(Runtime); 3] = [drop, Runtime::shutdown_background, |runtime| {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }];
        for end in ends {
            for servers in [1, 2] {
                let runtime = runtime_with(servers);
                let child = Arc::new(Mutex::new(None));
                let joins = Joins(Arc::clone(&child));
                let parent = runtime.spawn(async move {
                    let _joins = joins;
                    pending::<()>().await;
                });
                eventually("the parent is suspended", || {
                    runtime.metrics().suspended == 1
                });
                let handle = runtime.spawn(pending::<()>());
                eventually("the child, too", || runtime.metrics().suspended == 2);
                *child.lock().unwrap() = Some(handle);
                end(runtime);
                assert!(parent.join().unwrap_err().is_cancelled());
            }
        }
    });
}

/// The same for a chain of queued tasks.
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
    isolated(60, || {
        for end in [drop as fn(Runtime), Runtime::shutdown_background] {
            let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
            let gate = Arc::new(BlockerGate::new());
            let blocked = runtime.spawn_blocking({
                let gate = Arc::clone(&gate);
                move || gate.wait()
            });
            eventually("it is blocked", || gate.waiting() == 1);
            // Each task is queued behind the one that it joins.
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
            // The queued tasks are dropped before the blocked one is back.
            eventually("they are cancelled", || joined.load(SeqCst));
            gate.open();
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
/// part when it is dropped. The parts know each other's tasks by their index.
fn end_with_queued(parts: Vec<Part>) {
    end_with_queued_and(parts, |_| ());
}

/// The same, and calls `before` just before the runtime ends.
fn end_with_queued_and(parts: Vec<Part>, before: impl FnOnce(&Handles)) {
    let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
    let (gate, blocked) = block_tasks(&runtime, 1);
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
    gate.open();
    for handle in blocked {
        drop(handle.join());
    }
}

type Handles = Arc<Mutex<Vec<Option<JoinHandle<()>>>>>;

type Part = Box<dyn FnOnce(&Handles) + Send>;

/// A part that waits for the task with this index.
fn joins(place: usize) -> Part {
    Box::new(move |handles| {
        let handle = handles.lock().unwrap()[place].take();
        let handle = handle.expect("joined once");
        assert!(handle.join().unwrap_err().is_cancelled());
    })
}

/// The task in the middle waits for one that is being dropped, and that waits too.
#[test]
fn destructors_that_wait_are_not_nested() {
    isolated(60, || {
        end_with_queued(vec![joins(2), joins(0), Box::new(|_| ())]);
        end_with_queued(vec![joins(1), Box::new(|_| ()), joins(0)]);
        let nap = || umcg::block_on(umcg::time::sleep(Duration::from_millis(20)));
        end_with_queued(vec![Box::new(move |_| nap()), joins(0)]);
        // With a lock held during the wait.
        let lock = Arc::new(Mutex::new(()));
        let other = Arc::clone(&lock);
        end_with_queued(vec![
            Box::new(move |_| {
                let _held = lock.lock().unwrap();
                nap();
            }),
            Box::new(move |_| drop(other.lock().unwrap())),
        ]);
        // More than there are helper threads on one stack.
        let chain: Vec<_> = (1..=150).map(joins).collect();
        end_with_queued(chain.into_iter().chain([nothing()]).collect());
    });

    fn nothing() -> Part {
        Box::new(|_| ())
    }
}

/// A pool with one thread on this runtime, whose job is blocked.
fn full_pool(runtime: &Runtime) -> (ThreadPool, Arc<BlockerGate>) {
    let pool = {
        let _entered = runtime.enter();
        ThreadPool::new(1)
    };
    let gate = Arc::new(BlockerGate::new());
    pool.execute({
        let gate = Arc::clone(&gate);
        move || gate.wait()
    });
    eventually("its job is blocked", || gate.waiting() == 1);
    (pool, gate)
}

/// A job that a pool keeps waits, when it is dropped, for a task that is suspended.
#[test]
fn a_job_of_a_pool_joins_a_suspended_task() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
        let suspended = runtime.spawn(pending::<()>());
        eventually("it is suspended", || runtime.metrics().suspended == 1);
        let (pool, gate) = full_pool(&runtime);
        let mut suspended = Some(suspended);
        let on_drop = OnDrop(move || {
            let suspended = suspended.take().expect("dropped once");
            assert!(suspended.join().unwrap_err().is_cancelled());
        });
        pool.execute(move || drop(on_drop));
        let ending = thread::spawn(move || runtime.shutdown_background());
        eventually("the end", || ending.is_finished());
        ending.join().expect("no panic");
        gate.open();
    });
}

/// Jobs that a pool keeps: the destructor of one waits for that of the next one.
#[test]
fn a_job_of_a_pool_waits_for_the_next_one() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
        let (pool, gate) = full_pool(&runtime);
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
        gate.open();
    });
}

/// A runtime ends inside of the end of another one, and a destructor waits for a task of the outer
/// one.
#[test]
fn a_runtime_ends_inside_of_the_end_of_another() {
    isolated(60, || {
        let inner = Builder::new().servers(1).max_workers(1).build().unwrap();
        let (gate, _blocked) = block_tasks(&inner, 1);
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
        gate.open();
    });
}
