//! One property each, on a scheduler that runs only what the test says.

use std::{
    future::{pending, poll_fn, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{block_on::block_on, testing::ManualSched};

/// Counts how often it, or a clone, was dropped.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

impl Drops {
    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }

    fn token(&self) -> Token {
        Token(Arc::clone(&self.0))
    }
}

struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct PanicOnDrop(&'static str);

impl Drop for PanicOnDrop {
    fn drop(&mut self) {
        std::panic::panic_any(self.0);
    }
}

/// A future that hands out its waker, counts its polls, and is ready when told.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<ProbeState>>);

#[derive(Default)]
struct ProbeState {
    polls: usize,
    ready: bool,
    waker: Option<Waker>,
}

impl Probe {
    async fn run(self, token: Token) -> &'static str {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.polls += 1;
            state.waker = Some(cx.waker().clone());
            if state.ready {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        drop(token);
        "output"
    }

    fn polls(&self) -> usize {
        self.0.lock().unwrap().polls
    }

    fn finish(&self) {
        self.0.lock().unwrap().ready = true;
    }

    fn waker(&self) -> Waker {
        self.0.lock().unwrap().waker.clone().unwrap()
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn payload(error: JoinError) -> &'static str {
    error.into_panic().downcast_ref::<&'static str>().unwrap()
}

#[test]
fn output_reaches_the_joiner() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, ready(7));
    assert_eq!(sched.run_all(), 1);
    assert_eq!(handle.join().unwrap(), 7);
}

#[test]
fn closure_runs_once_and_its_output_reaches_the_joiner() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let token = drops.token();
    let handle = spawn_closure(&sched, None, move || {
        drop(token);
        7
    });
    assert_eq!(drops.count(), 0);
    assert_eq!(sched.run_all(), 1);
    assert_eq!(drops.count(), 1);
    assert_eq!(handle.join().unwrap(), 7);
}

#[test]
fn first_schedule_is_a_spawn_and_the_next_a_wake() {
    let sched = ManualSched::new();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(Drops::default().token()));
    assert_eq!(sched.run_one(), Some(Origin::Spawn));
    assert_eq!(sched.ready(), 0);
    probe.waker().wake();
    assert_eq!(sched.run_one(), Some(Origin::Wake));
    drop(handle);
    sched.shutdown();
}

#[test]
fn wake_while_running_reschedules_as_yield() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, yield_now());
    assert_eq!(sched.run_one(), Some(Origin::Spawn));
    assert_eq!(sched.run_one(), Some(Origin::Yield));
    handle.join().unwrap();
}

#[test]
fn wakes_before_the_poll_are_one_poll() {
    let sched = ManualSched::new();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(Drops::default().token()));
    sched.run_all();
    for _ in 0..3 {
        probe.waker().wake();
    }
    assert_eq!(sched.run_all(), 1);
    assert_eq!(probe.polls(), 2);
    drop(handle);
    sched.shutdown();
}

#[test]
fn wake_after_completion_does_nothing() {
    let sched = ManualSched::new();
    let probe = Probe::default();
    probe.finish();
    let handle = spawn_future(&sched, None, probe.clone().run(Drops::default().token()));
    sched.run_all();
    probe.waker().wake();
    assert_eq!(sched.ready(), 0);
    assert_eq!(handle.join().unwrap(), "output");
}

#[test]
fn dropped_handle_detaches() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let probe = Probe::default();
    drop(spawn_future(&sched, None, probe.clone().run(drops.token())));
    sched.run_all();
    assert_eq!((probe.polls(), drops.count()), (1, 0));
    probe.finish();
    probe.waker().wake();
    sched.run_all();
    assert_eq!((probe.polls(), drops.count()), (2, 1));
}

#[test]
fn output_of_a_detached_task_is_dropped_when_it_is_done() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let token = drops.token();
    drop(spawn_closure(&sched, None, move || token));
    sched.run_all();
    assert_eq!(drops.count(), 1);
}

#[test]
fn output_that_nobody_took_goes_with_the_handle() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let token = drops.token();
    let handle = spawn_closure(&sched, None, move || token);
    sched.run_all();
    assert_eq!(drops.count(), 0);
    drop(handle);
    assert_eq!(drops.count(), 1);
}

#[test]
fn panic_in_poll_reaches_the_joiner() {
    let sched = ManualSched::new();
    let handle: JoinHandle<()> = spawn_future(&sched, None, async { panic!("in poll") });
    let id = handle.id();
    sched.run_all();
    let error = block_on(handle).unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    assert_eq!(error.id(), id);
    assert_eq!(
        error.to_string(),
        format!("task {id} panicked with message \"in poll\"")
    );
    assert_eq!(payload(error), "in poll");
}

#[test]
fn panic_in_a_closure_reaches_the_joiner() {
    let sched = ManualSched::new();
    let handle: JoinHandle<()> = spawn_closure(&sched, None, || panic!("in closure"));
    sched.run_all();
    assert_eq!(payload(handle.join().unwrap_err()), "in closure");
}

#[test]
fn panic_of_a_detached_task_stays_in_it() {
    let sched = ManualSched::new();
    drop::<JoinHandle<()>>(spawn_closure(&sched, None, || panic!("unseen")));
    assert_eq!(sched.run_all(), 1);
}

#[test]
fn panicked_future_is_dropped_once() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let token = drops.token();
    let handle: JoinHandle<()> = spawn_future(&sched, None, async move {
        let _token = token;
        panic!("in poll")
    });
    sched.run_all();
    assert_eq!(drops.count(), 1);
    assert!(handle.join().unwrap_err().is_panic());
}

/// Ready at once; panics when dropped.
struct BadFuture(Drops, #[expect(dead_code, reason = "dropped")] PanicOnDrop);

impl Future for BadFuture {
    type Output = Token;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Token> {
        Poll::Ready(self.0.token())
    }
}

#[test]
fn panic_in_the_drop_of_a_finished_future_replaces_its_output() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let future = BadFuture(drops.clone(), PanicOnDrop("in drop"));
    let handle = spawn_future(&sched, None, future);
    sched.run_all();
    assert_eq!(drops.count(), 1, "the output is gone");
    assert_eq!(payload(handle.join().map(drop).unwrap_err()), "in drop");
}

#[test]
fn panic_in_the_drop_of_an_aborted_future_reaches_the_joiner() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, async {
        let _bad = PanicOnDrop("in drop");
        pending::<()>().await;
    });
    sched.run_all();
    handle.abort();
    sched.run_all();
    assert_eq!(payload(handle.join().unwrap_err()), "in drop");
}

#[test]
fn panic_in_the_drop_of_a_cancelled_future_does_not_unwind_into_the_scheduler() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, async {
        let _bad = PanicOnDrop("in drop");
        pending::<()>().await;
    });
    sched.run_all();
    handle.abort();
    drop(sched.take());
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn panic_in_the_drop_of_an_output_does_not_unwind_into_the_scheduler() {
    let sched = ManualSched::new();
    drop(spawn_closure(&sched, None, || PanicOnDrop("output")));
    assert_eq!(sched.run_all(), 1);
}

#[test]
fn panic_payload_that_panics_when_dropped_is_contained() {
    let sched = ManualSched::new();
    drop::<JoinHandle<()>>(spawn_closure(&sched, None, || {
        std::panic::panic_any(PanicOnDrop("payload"))
    }));
    assert_eq!(sched.run_all(), 1);
}

#[test]
fn abort_before_the_first_poll_drops_the_future_unpolled() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(drops.token()));
    handle.abort();
    assert_eq!(drops.count(), 0, "dropped by a worker, not by the aborter");
    assert_eq!(sched.run_all(), 1);
    assert_eq!((probe.polls(), drops.count()), (0, 1));
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn abort_of_a_queued_closure_keeps_it_from_running() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let token = drops.token();
    let handle: JoinHandle<()> = spawn_closure(&sched, None, move || {
        let _token = token;
        panic!("it ran");
    });
    handle.abort();
    sched.run_all();
    assert_eq!(drops.count(), 1);
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn abort_of_a_suspended_task_schedules_and_drops_it() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(drops.token()));
    sched.run_all();
    assert!(!handle.is_finished());
    handle.abort();
    assert_eq!(sched.run_one(), Some(Origin::Wake));
    assert_eq!((probe.polls(), drops.count()), (1, 1));
    assert!(handle.is_finished());
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn abort_while_running_takes_effect_at_the_next_suspension() {
    let sched = ManualSched::new();
    let slot: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
    let theirs = Arc::clone(&slot);
    let handle: JoinHandle<()> = spawn_future(&sched, None, async move {
        theirs.lock().unwrap().as_ref().unwrap().abort();
        yield_now().await;
        panic!("polled after the abort");
    });
    *slot.lock().unwrap() = Some(handle.abort_handle());
    assert_eq!(sched.run_one(), Some(Origin::Spawn));
    assert_eq!(sched.run_one(), Some(Origin::Yield));
    assert_eq!(sched.ready(), 0);
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn abort_while_a_closure_runs_lets_it_finish() {
    let sched = ManualSched::new();
    let slot: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
    let theirs = Arc::clone(&slot);
    let handle = spawn_closure(&sched, None, move || {
        theirs.lock().unwrap().as_ref().unwrap().abort();
        "output"
    });
    *slot.lock().unwrap() = Some(handle.abort_handle());
    sched.run_all();
    assert_eq!(handle.join().unwrap(), "output");
}

#[test]
fn abort_after_completion_keeps_the_output() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, ready(7));
    sched.run_all();
    handle.abort();
    assert_eq!(sched.ready(), 0);
    assert_eq!(handle.join().unwrap(), 7);
}

#[test]
fn abort_handle_outlives_the_task() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, ready(7));
    let (id, abort) = (handle.id(), handle.abort_handle());
    sched.run_all();
    handle.join().unwrap();
    drop(sched);
    let clone = abort.clone();
    clone.abort();
    assert_eq!((abort.id(), clone.id()), (id, id));
}

#[test]
fn abort_handle_does_not_keep_a_detached_task_from_running() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(drops.token()));
    let abort = handle.abort_handle();
    drop(handle);
    sched.run_all();
    abort.abort();
    sched.run_all();
    assert_eq!((probe.polls(), drops.count()), (1, 1));
}

#[test]
fn dropping_the_runnable_is_cancelled() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let handle = spawn_future(&sched, None, Probe::default().run(drops.token()));
    drop(sched.take());
    assert_eq!(drops.count(), 1);
    let id = handle.id();
    let error = handle.join().unwrap_err();
    assert!(error.is_cancelled() && !error.is_panic());
    assert_eq!(error.to_string(), format!("task {id} was cancelled"));
    assert!(error.try_into_panic().is_err());
}

#[test]
fn shutdown_cancels_queued_and_suspended_tasks() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let suspended = spawn_future(&sched, None, Probe::default().run(drops.token()));
    sched.run_all();
    let queued = spawn_future(&sched, None, Probe::default().run(drops.token()));
    sched.shutdown();
    assert_eq!(drops.count(), 2);
    assert!(suspended.join().unwrap_err().is_cancelled());
    assert!(queued.join().unwrap_err().is_cancelled());
}

#[test]
fn task_that_suspends_after_shutdown_cancels_itself() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let handle = spawn_future(&sched, None, Probe::default().run(drops.token()));
    let (task, _) = sched.take().unwrap();
    sched.shutdown();
    task.run();
    assert_eq!(drops.count(), 1);
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn task_that_suspends_again_after_shutdown_cancels_itself() {
    let sched = ManualSched::new();
    let drops = Drops::default();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(drops.token()));
    sched.run_all();
    // Scheduled: the wake of the shutdown finds that and does nothing.
    probe.waker().wake();
    let (task, _) = sched.take().unwrap();
    sched.shutdown();
    task.run();
    assert_eq!(drops.count(), 1);
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn spawn_after_shutdown_is_cancelled() {
    let sched = ManualSched::new();
    sched.shutdown();
    let handle = spawn_future(&sched, None, ready(7));
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn only_suspended_tasks_are_registered_and_they_leave() {
    let sched = ManualSched::new();
    let probe = Probe::default();
    drop(spawn_future(&sched, None, ready(7)));
    drop(spawn_closure(&sched, None, || 7));
    let handle = spawn_future(&sched, None, probe.clone().run(Drops::default().token()));
    assert_eq!(sched.owned().len(), 0);
    sched.run_all();
    assert_eq!(sched.owned().len(), 1);
    probe.waker().wake();
    sched.run_all();
    assert_eq!(sched.owned().len(), 1);
    probe.finish();
    probe.waker().wake();
    sched.run_all();
    assert_eq!(sched.owned().len(), 0);
    handle.join().unwrap();
}

#[test]
fn nothing_is_left_of_a_finished_task() {
    let sched = ManualSched::new();
    let probe = Probe::default();
    let handle = spawn_future(&sched, None, probe.clone().run(Drops::default().token()));
    sched.run_all();
    handle.abort();
    sched.run_all();
    handle.join().unwrap_err();
    drop(probe);
    assert_eq!(
        Arc::strong_count(&sched),
        1,
        "the task's allocation is gone"
    );
}

#[test]
fn large_futures_work() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, async {
        let large = [1_u8; 10_000];
        yield_now().await;
        large.iter().map(|&byte| u32::from(byte)).sum::<u32>()
    });
    sched.run_all();
    assert_eq!(handle.join().unwrap(), 10_000);
}

#[test]
fn is_finished_tells_done_from_not() {
    let sched = ManualSched::new();
    let handle = spawn_future(&sched, None, ready(7));
    assert!(!handle.is_finished());
    sched.run_all();
    assert!(handle.is_finished());
    handle.join().unwrap();
}

#[test]
fn handle_polled_after_completion_panics() {
    let sched = ManualSched::new();
    let mut handle = spawn_future(&sched, None, ready(7));
    sched.run_all();
    assert!(poll(&mut handle).is_ready());
    assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut handle))).is_err());
}

#[test]
fn joins_from_many_threads() {
    let sched = ManualSched::new();
    let handles: Vec<_> = (0..32)
        .map(|i| spawn_closure(&sched, None, move || i))
        .collect();
    std::thread::scope(|scope| {
        let joiners: Vec<_> = handles
            .into_iter()
            .map(|handle| scope.spawn(move || handle.join().unwrap()))
            .collect();
        scope.spawn(|| sched.run_all());
        scope.spawn(|| sched.run_all());
        for (i, joiner) in joiners.into_iter().enumerate() {
            assert_eq!(joiner.join().unwrap(), i);
        }
    });
}

#[test]
fn one_task_joins_another() {
    let sched = ManualSched::new();
    let inner = spawn_future(&sched, None, async {
        yield_now().await;
        7
    });
    let outer = spawn_future(&sched, None, async { inner.await.unwrap() + 1 });
    sched.run_all();
    assert_eq!(outer.join().unwrap(), 8);
}

#[test]
fn id_and_name_are_seen_inside_the_task_and_in_its_destructors() {
    struct Check(Arc<Mutex<Vec<Option<Id>>>>);
    impl Drop for Check {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(try_id());
        }
    }

    let sched = ManualSched::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let check = Check(Arc::clone(&seen));
    let handle = spawn_future(&sched, Some(Arc::new("name".into())), async move {
        let _check = check;
        assert_eq!(name().as_deref(), Some("name"));
        pending::<()>().await;
    });
    let dropped = Check(Arc::clone(&seen));
    let never_run = spawn_closure(&sched, None, move || drop(dropped));
    let never_run_id = never_run.id();
    sched.run_one();
    drop(sched.take());
    handle.abort();
    sched.run_all();
    assert_eq!(
        *seen.lock().unwrap(),
        [Some(never_run_id), Some(handle.id())]
    );
    assert_eq!(try_id(), None);
}
