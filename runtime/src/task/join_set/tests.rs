//! One property each, on a scheduler that runs only what the test says.

use std::{
    future::{pending, ready},
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::*;
use crate::{
    task::{spawn_closure, spawn_future, yield_now},
    testing::ManualSched,
};

/// A set of which the test does the spawning, on its own scheduler.
fn set(sched: &Arc<ManualSched>, outputs: impl IntoIterator<Item = usize>) -> JoinSet<usize> {
    let mut set = JoinSet::new();
    for output in outputs {
        set.insert(spawn_future(sched, None, ready(output)));
    }
    set
}

#[test]
fn outputs_come_in_the_order_of_completion() {
    let sched = ManualSched::new();
    let mut set = JoinSet::new();
    set.insert(spawn_future(&sched, None, async {
        yield_now().await;
        1
    }));
    set.insert(spawn_future(&sched, None, ready(2)));
    assert!(set.try_join_next().is_none());
    sched.run_all();
    assert_eq!(set.join_next_blocking().unwrap().unwrap(), 2);
    assert_eq!(set.join_next_blocking().unwrap().unwrap(), 1);
    assert!(set.join_next_blocking().is_none());
}

#[test]
fn len_counts_until_joined() {
    let sched = ManualSched::new();
    let mut set = set(&sched, 0..3);
    assert_eq!(set.len(), 3);
    sched.run_all();
    assert_eq!(set.len(), 3);
    assert!(set.try_join_next().is_some());
    assert_eq!(set.len(), 2);
    assert!(!set.is_empty());
}

#[test]
fn joiner_is_woken() {
    let sched = ManualSched::new();
    let mut set = set(&sched, 0..100);
    let mut seen = std::thread::scope(|scope| {
        scope.spawn(|| sched.run_all());
        std::iter::from_fn(|| set.join_next_blocking())
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
}

#[test]
fn joiner_may_be_a_task_of_the_same_scheduler() {
    let sched = ManualSched::new();
    let mut set = set(&sched, 0..10);
    let sum = spawn_future(&sched, None, async move {
        let mut sum = 0;
        while let Some(output) = set.join_next().await {
            sum += output.unwrap();
        }
        sum
    });
    sched.run_all();
    assert_eq!(sum.join().unwrap(), 45);
}

#[test]
fn join_next_with_id_names_the_task() {
    let sched = ManualSched::new();
    let mut set = JoinSet::new();
    let id = set.insert(spawn_closure(&sched, None, || "output")).id();
    sched.run_all();
    assert_eq!(
        block_on(set.join_next_with_id()).unwrap().unwrap(),
        (id, "output")
    );
}

#[test]
fn panic_is_the_error_of_that_task_alone() {
    let sched = ManualSched::new();
    let mut set = set(&sched, [1]);
    let id = set
        .insert(spawn_closure(&sched, None, || panic!("one task")))
        .id();
    sched.run_all();
    assert_eq!(set.join_next_blocking().unwrap().unwrap(), 1);
    let error = set.join_next_blocking().unwrap().unwrap_err();
    assert!(error.is_panic());
    assert_eq!(error.id(), id);
}

#[test]
fn join_all_gives_everything_or_panics() {
    let sched = ManualSched::new();
    let good = set(&sched, 0..3);
    let mut bad = set(&sched, 0..3);
    bad.insert(spawn_closure(&sched, None, || panic!("bad")));
    sched.run_all();
    assert_eq!(block_on(good.join_all()).len(), 3);
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| block_on(bad.join_all()))).is_err());
}

struct Token(Arc<AtomicUsize>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn suspended(sched: &Arc<ManualSched>, drops: &Arc<AtomicUsize>) -> JoinSet<()> {
    let mut set = JoinSet::new();
    for _ in 0..3 {
        let token = Token(Arc::clone(drops));
        set.insert(spawn_future(sched, None, async move {
            let _token = token;
            pending::<()>().await;
        }));
    }
    sched.run_all();
    set
}

#[test]
fn dropped_set_aborts_its_tasks() {
    let (sched, drops) = (ManualSched::new(), Arc::default());
    drop(suspended(&sched, &drops));
    sched.run_all();
    assert_eq!(drops.load(SeqCst), 3);
}

#[test]
fn detached_tasks_run_on() {
    let (sched, drops) = (ManualSched::new(), Arc::default());
    let mut set = suspended(&sched, &drops);
    set.detach_all();
    assert!(set.is_empty());
    drop(set);
    assert_eq!(sched.run_all(), 0);
    assert_eq!(drops.load(SeqCst), 0);
    sched.shutdown();
    assert_eq!(drops.load(SeqCst), 3);
}

#[test]
fn shutdown_waits_until_the_tasks_are_gone() {
    let (sched, drops) = (ManualSched::new(), Arc::default());
    let mut set = suspended(&sched, &drops);
    let mut shutdown = Box::pin(set.shutdown());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(shutdown.as_mut().poll(&mut cx).is_pending());
    sched.run_all();
    assert!(shutdown.as_mut().poll(&mut cx).is_ready());
    drop(shutdown);
    assert_eq!(drops.load(SeqCst), 3);
    assert!(set.is_empty());
}

#[test]
fn stale_wake_of_a_joined_task_does_no_harm() {
    let sched = ManualSched::new();
    let mut set = set(&sched, [1]);
    let stale = set.entries[0].waker.clone();
    sched.run_all();
    assert_eq!(set.try_join_next().unwrap().unwrap(), 1);
    stale.wake_by_ref();
    assert!(set.try_join_next().is_none());
    set.insert(spawn_future(&sched, None, ready(2)));
    stale.wake();
    sched.run_all();
    assert_eq!(set.join_next_blocking().unwrap().unwrap(), 2);
}
