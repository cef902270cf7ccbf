//! Dispatch, acknowledgement, verdict and checkpoint, with a judge that may be stopped at any step.

use loom::{sync::atomic::AtomicBool, thread};

use super::{Judge, Model, check, check_large, check_large_with_stops, check_with_stops};
use crate::{
    state,
    sync::{Futex32, SeqCst},
};

/// However long a confirmation takes, what it says about one dispatch is never used for a verdict
/// on a later one.
#[test]
fn a01_a_confirmation_is_good_for_one_dispatch() {
    check(|| {
        let m = Model::new(1, &[1]);
        let first = m.runs_in(2, 1);
        m.sleeps(1);
        let asleep = loom::sync::Arc::new(AtomicBool::new(true));
        let again = loom::sync::Arc::new(Futex32::new(0));
        let worker = {
            let (asleep, again) = (asleep.clone(), again.clone());
            m.spawn(move |m| {
                asleep.store(false, SeqCst);
                m.leave_and_wait(2, 1);
                again.store(1, SeqCst);
                again.wake();
                m.finish(2);
            })
        };
        let judge = m.spawn(move |m| {
            let judged = m.look_and(1, Judge::Sentinel, |_| {
                // A read-modify-write reads the newest value, as a confirmation does. The judge
                // uses the result only when the worker runs by its next dispatch.
                let confirmed = asleep.fetch_and(true, SeqCst);
                while confirmed && again.load(SeqCst) == 0 {
                    again.wait(0, None);
                }
                confirmed
            });
            assert!(!judged, "{first:?} was over, and {:?} judged", m.run(2));
        });
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}

/// Even a judge that acts as soon as it sees a worker in a slot judges a dispatch only after the
/// worker has acknowledged it.
#[test]
fn a01_a_dispatch_is_judged_only_once_it_runs() {
    check(|| {
        let m = Model::new(1, &[1]);
        let worker = m.spawn(|m| {
            m.registry.sleep_in_gate(&m.own(2)).unwrap();
            m.one_checkpoint(2);
        });
        let judge = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[2], 1, [worker, judge]);
    });
}

/// A judge is stopped permanently at any step of its verdict while the worker returns and queues:
/// the worker is picked, and no worker is left in the slot.
#[test]
fn a04_a_verdict_that_stops_anywhere_is_finished_by_the_worker() {
    check_with_stops(|steps| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| m.one_checkpoint(2));
        let judge = m.spawn(move |m| m.sentinel(1, steps));
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}

/// The same while another worker waits to be picked. The judge may find that one in the slot.
#[test]
fn a04_an_overtaken_verdict_touches_no_later_dispatch() {
    check_large_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let returns = m.spawn(|m| m.one_checkpoint(2));
        let next = m.spawn(|m| m.one_task(3));
        let judge = m.spawn(move |m| m.sentinel(1, steps));
        m.serve_to_the_end(&[3], 2, [returns, next, judge]);
    });
}

/// The worker sleeps for ever, and its judge is stopped permanently at any step: after one look of
/// the monitor the next worker runs, and the block has been reported.
#[test]
fn a05_a_verdict_that_stops_anywhere_is_finished_by_the_monitor() {
    check_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let next = m.spawn(|m| m.one_task(3));
        let judge = m.spawn(move |m| {
            m.sentinel(1, steps);
            m.repair_or_judge(1);
        });
        m.serve_to_the_end(&[3], 1, [next, judge]);
        assert_eq!(m.task(2).state(), state::BLOCKED, "not reported");
    });
}

/// Two judges at the same time, a sentinel and a thread that preempts, give one verdict.
#[test]
fn a04_two_judges_give_one_verdict() {
    check_large(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| m.one_checkpoint(2));
        let judge = m.spawn_judge(1, Judge::Sentinel);
        let preempter = m.spawn(|m| m.registry.preempt(2).unwrap());
        m.serve_to_the_end(&[], 1, [worker, judge, preempter]);
    });
}

/// A worker is judged between `leave` and `wait`, after it has queued itself: it is picked once,
/// and the server is woken.
#[test]
fn a08_a_worker_judged_on_its_way_into_wait_is_picked_once() {
    check_large(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.leave_and_wait(2, 1);
            m.finish(2);
        });
        let judge = m.spawn(|m| m.registry.preempt(2).unwrap());
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}

/// A worker is judged on its way into a `wait` that hands its slot off to the worker which will
/// queue it again, for example the next owner of a lock: that worker is dispatched all the same.
#[test]
fn a08_the_choice_of_a_worker_judged_on_its_way_into_wait_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let chooses = m.spawn(|m| {
            m.leave(2);
            m.task(2).set_next_tid(3);
            m.wait(2);
            m.holds(2);
            assert_eq!(m.task(2).next_tid(), 0);
            m.finish(2);
        });
        let chosen = m.spawn(|m| {
            m.registry.sleep_in_gate(&m.own(3)).unwrap();
            m.holds(3);
            m.enqueue(2, 1);
            m.finish(3);
        });
        m.registry.preempt(2).unwrap();
        m.serve_to_the_end(&[], 2, [chooses, chosen]);
    });
}

/// A worker that has left RUNNING belongs to a queue already: a checkpoint before its `wait` does
/// not queue it a second time.
#[test]
fn a08_a_checkpoint_between_leave_and_wait_queues_nothing() {
    check_large(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.leave(2);
            m.enqueue(2, 1);
            m.registry.checkpoint(&m.own(2)).unwrap();
            m.wait(2);
            m.finish(2);
        });
        let judge = m.spawn_judge(1, Judge::Monitor);
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}

/// A worker without a slot calls `wait` while another worker gets the slot: there are never two in
/// it.
#[test]
fn a08_wait_without_the_slot_takes_it_from_nobody() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let leaves = m.spawn(|m| {
            m.leave_and_wait(2, 1);
            m.finish(2);
        });
        let next = m.spawn(|m| {
            m.registry.sleep_in_gate(&m.own(3)).unwrap();
            m.holds(3);
            m.one_checkpoint(3);
        });
        let judge = m.spawn_judge(1, Judge::Monitor);
        m.serve_to_the_end(&[3], 2, [leaves, next, judge]);
    });
}

/// A spin lock: a worker that spins on it holds the slot, and the lock's owner waits to be picked.
/// The server's deadline and `preempt` end that.
#[test]
fn a13_a_preempted_spinner_lets_the_owner_of_the_lock_run() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let locked = loom::sync::Arc::new(AtomicBool::new(true));
        let spinner = {
            let locked = locked.clone();
            m.spawn(move |m| {
                while locked.load(SeqCst) {
                    thread::yield_now();
                }
                m.one_checkpoint(2);
            })
        };
        let owner = m.spawn(move |m| {
            m.registry.sleep_in_gate(&m.own(3)).unwrap();
            m.holds(3);
            locked.store(false, SeqCst);
            m.finish(3);
        });
        // The deadline passes while the owner waits.
        let timeout = m.registry.wait_server(&m.own(1), Some(1)).unwrap_err();
        assert_eq!(timeout.0, libc::ETIMEDOUT);
        m.registry.preempt(2).unwrap();
        m.serve_to_the_end(&[3], 2, [spinner, owner]);
    });
}
