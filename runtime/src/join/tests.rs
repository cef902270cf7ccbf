use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
};

use super::*;
use crate::testing::runtime;

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload.downcast_ref::<&'static str>().copied().unwrap()
}

#[test]
fn gives_both_results_of_closures_that_borrow() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (mut left, mut right) = (vec![2, 1], vec![4, 3]);
    for _ in 0..200 {
        let lens = join(
            || {
                left.sort_unstable();
                left.len()
            },
            || {
                right.sort_unstable();
                right.len()
            },
        );
        assert_eq!(lens, (2, 2));
    }
    assert_eq!((left, right), (vec![1, 2], vec![3, 4]));
}

#[test]
fn second_runs_while_the_first_waits_for_it() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (send, receive) = mpsc::channel();
    let (got, ()) = join(
        move || receive.recv().unwrap(),
        move || send.send(7).unwrap(),
    );
    assert_eq!(got, 7);
}

#[test]
fn caller_waits_for_a_second_that_was_begun() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (begun, seen) = mpsc::channel();
    let ((), there) = join(
        move || seen.recv().unwrap(),
        move || {
            begun.send(()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            std::thread::current().id()
        },
    );
    assert_ne!(there, std::thread::current().id());
}

#[test]
fn second_is_taken_back_when_nobody_runs_it() {
    let runtime = runtime();
    runtime.shared().stop();
    let here = std::thread::current().id();
    let (a, b) = join_on(
        runtime.shared(),
        || std::thread::current().id(),
        || std::thread::current().id(),
    );
    assert_eq!((a, b), (here, here));
}

#[test]
fn joins_nest() {
    fn fib(n: u32) -> u32 {
        if n < 2 {
            return n;
        }
        let (a, b) = join(|| fib(n - 1), || fib(n - 2));
        a + b
    }

    let runtime = runtime();
    let _entered = runtime.enter();
    assert_eq!(fib(9), 34);
}

#[test]
fn panic_of_the_first_wins_and_waits_for_the_second() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (begun, seen) = mpsc::channel();
    let mut done = false;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        join(
            move || {
                seen.recv().unwrap();
                panic!("first");
            },
            || {
                begun.send(()).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(5));
                done = true;
            },
        )
    }))
    .map(|((), ())| ())
    .unwrap_err();
    assert_eq!(message(&*panic), "first");
    assert!(done);
}

#[test]
fn panic_of_the_second_reaches_the_caller() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let panic = catch_unwind(|| join(|| (), || panic!("second")))
        .map(|((), ())| ())
        .unwrap_err();
    assert_eq!(message(&*panic), "second");
}
