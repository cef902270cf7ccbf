//! Destructors of cancelled tasks, which run while the runtime ends.

use std::{
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, JoinHandle, Runtime};
use umcg_tests::{
    BlockerGate, eventually, isolated,
    runtime::{block_tasks, default_runtime, runtime_with},
    threads,
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
        eventually("all are suspended", || {
            runtime.metrics().num_suspended_tasks() == 40
        });
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
    eventually("it is suspended", || {
        runtime.metrics().num_suspended_tasks() == 1
    });
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

/// The tasks that are queued, by their index.
type Handles = Arc<Mutex<Vec<Option<JoinHandle<()>>>>>;

/// What a task does when it is dropped.
type Part = Box<dyn FnOnce(&Handles) + Send>;

/// A part that joins the task with this index.
fn joins(index: usize) -> Part {
    Box::new(move |handles| {
        let handle = handles.lock().unwrap()[index].take();
        let handle = handle.expect("joined once");
        assert!(handle.join().unwrap_err().is_cancelled());
    })
}

/// A runtime whose only worker is blocked at the gate, with tasks that are queued in this order.
/// Each task does its part when it is dropped. The counter counts the parts that are done.
fn with_queued(parts: Vec<Part>) -> (Runtime, Arc<BlockerGate>, Arc<AtomicUsize>) {
    let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
    let (gate, _) = block_tasks(&runtime, 1);
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
    (runtime, gate, done)
}

/// A destructor may join a task that was dropped before it, and may wait for time to pass.
#[test]
fn a_destructor_may_join_tasks_that_are_dropped_already() {
    isolated(60, || {
        let nap = || umcg::block_on(umcg::time::sleep(Duration::from_millis(20)));
        for end in [drop as fn(Runtime), Runtime::shutdown_background] {
            let first: Part = Box::new(move |_| nap());
            let parts: Vec<_> = [first].into_iter().chain((0..50).map(joins)).collect();
            let count = parts.len();
            let (runtime, gate, done) = with_queued(parts);
            let ending = thread::spawn(move || end(runtime));
            // The queued tasks are dropped before the blocked one is back.
            eventually("all of them are dropped", || done.load(SeqCst) == count);
            gate.open();
            eventually("the end", || ending.is_finished());
            ending.join().expect("no panic");
        }
    });
}

/// A destructor waits for a task that the same thread would drop after its own, which it must not
/// do. It waits until another thread drops that task, and nothing else waits with it.
#[test]
fn a_destructor_that_waits_for_a_task_behind_it_hangs_nothing_else() {
    fn stuck() -> (Runtime, Arc<BlockerGate>, Arc<AtomicUsize>) {
        with_queued(vec![joins(1), Box::new(|_| ())])
    }
    fn released(gate: &BlockerGate, done: &AtomicUsize) {
        let other = runtime_with(1);
        other.spawn(async {}).join().expect("another runtime runs");
        drop(other);
        umcg::block_on(umcg::time::sleep(Duration::from_millis(1)));
        assert_eq!(done.load(SeqCst), 0, "the destructor waits");
        // The worker comes back, and drops the queued tasks on its way out.
        gate.open();
        eventually("each task is dropped once", || done.load(SeqCst) == 2);
    }
    isolated(60, || {
        let (runtime, gate, done) = stuck();
        let begun = Instant::now();
        runtime.shutdown_background();
        assert!(begun.elapsed() < Duration::from_secs(5));
        released(&gate, &done);

        let (runtime, gate, done) = stuck();
        let begun = Instant::now();
        runtime.shutdown_timeout(Duration::from_millis(100));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        released(&gate, &done);

        let (runtime, gate, done) = stuck();
        let ending = thread::spawn(move || drop(runtime));
        released(&gate, &done);
        eventually("the end", || ending.is_finished());
        ending.join().expect("no panic");
        eventually("the threads end", || threads::named("umcg-w") == 0);
    });
}

/// The runtime and the task that a destructor finds itself in.
type Context = (Option<String>, Option<umcg::task::Id>);

/// Sends its context when it is dropped.
struct TellContext(mpsc::Sender<Context>);

impl Drop for TellContext {
    fn drop(&mut self) {
        let runtime = umcg::Handle::try_current().ok();
        let runtime = runtime.map(|handle| format!("{handle:?}"));
        let _ = self.0.send((runtime, umcg::task::try_id()));
    }
}

/// Whichever thread cancels a task: its destructors run inside of the runtime and of the task.
#[test]
fn destructors_of_cancelled_tasks_run_in_the_context_of_their_task() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).max_workers(1).build().unwrap();
        let handle = runtime.handle().clone();
        let own = format!("{handle:?}");
        let (tell, told) = mpsc::channel();
        let context = || TellContext(tell.clone());
        let (future, closure, late) = (context(), context(), context());
        let suspended = runtime.spawn(async move {
            let _context = future;
            pending::<()>().await;
        });
        eventually("it is suspended", || {
            runtime.metrics().num_suspended_tasks() == 1
        });
        let (gate, _blocked) = block_tasks(&runtime, 1);
        let queued = runtime.spawn_blocking(move || drop(closure));
        let mut expected = vec![suspended.id(), queued.id()];
        let ending = thread::spawn(move || drop(runtime));
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (runtime, task) = told.recv().unwrap();
            assert_eq!(runtime.as_ref(), Some(&own), "the context of a sweep");
            seen.push(task.expect("a destructor runs inside of its task"));
        }
        expected.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, expected);
        gate.open();
        ending.join().unwrap();
        // A task that comes too late is dropped on this thread, where no runtime is entered.
        let late = handle.spawn(async move { drop(late) });
        assert_eq!(told.recv().unwrap(), (Some(own), Some(late.id())));
        assert!(umcg::Handle::try_current().is_err());
    });
}
