//! Who gets a slot, and who wakes a server: workers that are stolen, a server that is awake, a
//! server that idles.

use loom::thread;

use super::{Judge, Model, check, check_large};
use crate::{List, state};

/// A worker queues itself, and another server dispatches it before it has left its old slot: the
/// old server gets that slot back and is woken.
#[test]
fn a06_a_stolen_worker_leaves_its_old_slot() {
    check(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.leave_and_wait(3, 2);
            m.finish(3);
        });
        let thief = m.spawn(|m| m.serve_busily(2, 1));
        m.registry.wait_server(&m.own(1), None).unwrap();
        assert!(!m.slot(1).is_held(), "{:?}", m.slot(1));
        m.join([worker, thief]);
    });
}

/// The same beside a judge that finds the worker on its way into `wait`.
#[test]
fn a06_a_stolen_worker_that_is_judged_leaves_its_old_slot() {
    check_large(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.leave_and_wait(3, 2);
            m.finish(3);
        });
        let thief = m.spawn(|m| m.serve_busily(2, 1));
        let judge = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[], 1, [worker, thief, judge]);
    });
}

/// A server is woken while its worker runs, and picks another: that is EBUSY until the server has
/// preempted the first one.
#[test]
fn a07_a_server_that_is_woken_early_switches_only_after_preempting() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let runs = m.spawn(|m| {
            m.holds(2);
            m.one_checkpoint(2);
        });
        let picked = m.spawn(|m| m.one_task(3));
        let task = m.task(1);
        task.set_next_tid(3);
        // The server drains nothing first, so this is the mail's loop after an early wake-up.
        let ready: &[_] = match m.registry.wait_server(&m.own(1), None) {
            Ok(()) if task.next_tid() == 3 => &[3],
            Ok(()) => &[],
            Err((errno, _)) => {
                assert_eq!(errno, libc::EBUSY);
                assert_eq!(task.next_tid(), 3, "the pick is kept");
                if let Some(current) = m.registry.current(1) {
                    m.registry.preempt(current).unwrap();
                }
                &[3]
            }
        };
        m.serve_to_the_end(ready, 2, [runs, picked]);
    });
}

/// A server that is awake while a worker holds its slot decides to sleep on, and at that time a
/// sentinel gives it the slot. The server must not idle on what it saw before.
#[test]
fn a07_a_slot_that_comes_back_during_a_drain_is_an_event() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        // Worker 2 blocks for ever, so it has no thread.
        m.runs_in(2, 1);
        let queued = m.spawn(|m| m.one_task(3));
        let judge = m.spawn(|m| {
            while !m.look(1, Judge::Sentinel) {
                thread::yield_now();
            }
        });
        m.serve_to_the_end(&[3], 1, [queued, judge]);
        assert_eq!(m.task(2).state(), state::BLOCKED, "not reported");
    });
}

/// A server that is awake while a worker holds its slot picks this very worker, which has queued
/// itself and is on its way into `wait`: nothing is switched, and the pick stays the server's.
#[test]
fn a07_a_pick_of_the_holder_on_its_way_out_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.leave_and_wait(2, 1);
            m.finish(2);
        });
        m.serve_picking(1, &[], 1, |_| true);
        m.join([worker]);
    });
}

/// A worker returns to an idle server and takes its slot by itself, while another worker registers
/// and wakes that server: both run, one at a time.
#[test]
fn a03_an_idle_slot_is_taken_by_one() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        let returns = m.spawn(|m| m.one_checkpoint(2));
        let admitted = m.spawn(|m| {
            m.registry.enqueue_self(&m.own(3)).unwrap();
            m.one_task(3);
        });
        m.serve_to_the_end(&[], 2, [returns, admitted]);
    });
}

/// Two workers return to an idle server at the same time.
#[test]
fn a03_two_returning_workers_share_an_idle_slot() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.judged_in(3, 1);
        m.all_come_back([2, 3]);
    });
}

/// A worker takes the idle slot, and a sentinel judges it at once.
#[test]
fn a03_a_slot_taken_by_its_worker_can_be_judged() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.judged_in(2, 1);
        let returns = m.spawn(|m| {
            m.registry.checkpoint(&m.own(2)).unwrap();
            m.holds(2);
            m.one_checkpoint(2);
        });
        let judge = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[], 1, [returns, judge]);
    });
}

/// Work comes from outside, and then `preempt` of the server: the server sees it, whether it is
/// about to idle, idles, or is about to dispatch a worker.
#[test]
fn idle_a_wake_up_from_outside_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1]);
        let outside = m.spawn(|m| {
            m.enqueue(2, 1);
            m.registry.preempt(1).unwrap();
        });
        let worker = m.spawn(|m| m.one_task(2));
        m.serve_to_the_end(&[], 1, [outside, worker]);
    });
}

/// A runnable event is pushed while the slot goes from its worker to the server: the pusher wakes
/// the server, or the server finds the event.
#[test]
fn idle_an_event_beside_a_leaving_worker_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let leaves = m.spawn(|m| {
            assert!(m.task(2).leave());
            // It parks, and is never unparked.
            m.registry.take_out(2).unwrap();
        });
        let admitted = m.spawn(|m| {
            m.registry.enqueue_self(&m.own(3)).unwrap();
            m.one_task(3);
        });
        m.serve_to_the_end(&[], 1, [leaves, admitted]);
        assert!(!m.task(1).has_events(List::Runnable));
    });
}
