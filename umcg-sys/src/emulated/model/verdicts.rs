//! Dispatch, acknowledgement, verdict, checkpoint, with a judge that stops anywhere.

use loom::{sync::atomic::AtomicBool, thread};

use super::{Judge, Model, Repair, check, check_large, check_large_with_stops, check_with_stops};
use crate::{
    state,
    sync::{Futex32, SeqCst},
};

/// Steps of a sentinel's verdict: run word, slot, bell, wake.
const STEPS: u32 = 4;

/// The confirmation takes as long as it takes: what it says of one dispatch is never held
/// against the next.
#[test]
fn a01_a_confirmation_is_good_for_one_dispatch() {
    check(|| {
        let m = Model::new(1, &[1]);
        let first = m.runs_in(2, 1);
        m.sleeps(1);
        let asleep = loom::sync::Arc::new(AtomicBool::new(true));
        let again = loom::sync::Arc::new(Futex32::new(0));
        let worker = {
            let (m, asleep, again) = (m.clone(), asleep.clone(), again.clone());
            thread::spawn(move || {
                asleep.store(false, SeqCst);
                m.hand_over(2, 1);
                again.store(1, SeqCst);
                again.wake();
                m.finish(2);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || {
                let judged = m.look_and(1, Judge::Sentinel, |_| {
                    // A read-modify-write reads what is true now. What it says is old by the
                    // time that it is used.
                    let confirmed = asleep.fetch_and(true, SeqCst);
                    while confirmed && again.load(SeqCst) == 0 {
                        again.wait(0, None);
                    }
                    confirmed
                });
                assert!(!judged, "{first:?} was over, and {:?} judged", m.run(2));
            })
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// A judge that acts as soon as it sees anything judges a dispatch only after the worker itself
/// has said that it runs.
#[test]
fn a01_a_dispatch_is_judged_only_once_it_runs() {
    check(|| {
        let m = Model::new(1, &[1]);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(2)).unwrap();
                m.one_checkpoint(2);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        m.serve(1, &[2], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// A judge is stopped for ever anywhere in its verdict while the worker returns and queues up:
/// the worker is picked, and nobody is left in the slot.
#[test]
fn a04_a_verdict_that_stops_anywhere_is_finished_by_the_worker() {
    check_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(2))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.sentinel(1, steps))
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// The same while another worker waits to be picked, and is judged too.
#[test]
fn a04_an_overtaken_verdict_touches_no_later_dispatch() {
    check_large_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let returns = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(2))
        };
        let next = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.sentinel(1, steps))
        };
        m.serve(1, &[3], 2);
        returns.join().unwrap();
        next.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// The worker sleeps for ever, and so does its judge: a tick of the monitor, and the next worker
/// runs, and the block is booked.
#[test]
fn a05_a_verdict_that_stops_anywhere_is_finished_by_the_monitor() {
    check_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let next = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || {
                m.sentinel(1, steps);
                if let Repair::Runs(run) = m.tick(1) {
                    m.registry.judge(2, run, Judge::Monitor);
                }
            })
        };
        m.serve(1, &[3], 1);
        next.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.task(2).state(), state::BLOCKED, "not booked");
        m.all_out();
    });
}

/// Two judges at once, one of them of normal priority: one verdict.
#[test]
fn a04_two_judges_give_one_verdict() {
    check_large(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(2))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        let preempter = {
            let m = m.clone();
            thread::spawn(move || m.registry.preempt(2).unwrap())
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        preempter.join().unwrap();
        m.all_out();
    });
}

/// A worker is judged on its way from `leave` to `wait`, where it has queued itself already: it
/// is picked once, and the server hears of it.
#[test]
fn a08_a_worker_judged_on_its_way_into_wait_is_picked_once() {
    check_large(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.hand_over(2, 1);
                m.finish(2);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.registry.preempt(2).unwrap())
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// The same while it hands its slot to the worker that will queue it again, say the next owner
/// of a lock: that choice is not lost.
#[test]
fn a08_the_choice_of_a_worker_judged_on_its_way_into_wait_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let chooses = {
            let m = m.clone();
            thread::spawn(move || {
                while !m.task(2).leave() {
                    m.registry.checkpoint(&m.own(2)).unwrap();
                }
                m.task(2).set_next_tid(3);
                m.registry.wait_worker(&m.own(2), None).unwrap();
                m.holds(2);
                assert_eq!(m.task(2).next_tid(), 0);
                m.finish(2);
            })
        };
        let chosen = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(3)).unwrap();
                m.holds(3);
                m.inboxes[1].fetch_or(1 << 2, SeqCst);
                m.finish(3);
            })
        };
        m.registry.preempt(2).unwrap();
        m.serve(1, &[], 2);
        chooses.join().unwrap();
        chosen.join().unwrap();
        m.all_out();
    });
}

/// A worker that has left RUNNING is its queue's: a checkpoint on the way to `wait` queues it
/// no second time.
#[test]
fn a08_a_checkpoint_between_leave_and_wait_queues_nothing() {
    check_large(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                while !m.task(2).leave() {
                    m.registry.checkpoint(&m.own(2)).unwrap();
                }
                m.inboxes[1].fetch_or(1 << 2, SeqCst);
                m.registry.checkpoint(&m.own(2)).unwrap();
                m.registry.wait_worker(&m.own(2), None).unwrap();
                m.finish(2);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Monitor))
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// The same beside another worker that takes the slot meanwhile: never two in it.
#[test]
fn a08_wait_without_the_slot_takes_it_from_nobody() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let leaves = {
            let m = m.clone();
            thread::spawn(move || {
                m.hand_over(2, 1);
                m.finish(2);
            })
        };
        let next = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(3)).unwrap();
                m.holds(3);
                m.one_checkpoint(3);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Monitor))
        };
        m.serve(1, &[3], 2);
        leaves.join().unwrap();
        next.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// A spin lock: the waiter of the lock holds the slot, its owner waits to be picked. The
/// server's deadline and `preempt` end it.
#[test]
fn a13_a_preempted_spinner_lets_the_owner_of_the_lock_run() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let locked = loom::sync::Arc::new(AtomicBool::new(true));
        let spinner = {
            let (m, locked) = (m.clone(), locked.clone());
            thread::spawn(move || {
                while locked.load(SeqCst) {
                    thread::yield_now();
                }
                m.one_checkpoint(2);
            })
        };
        let owner = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(3)).unwrap();
                m.holds(3);
                locked.store(false, SeqCst);
                m.finish(3);
            })
        };
        // The deadline passes, with somebody waiting.
        let timeout = m.registry.wait_server(&m.own(1), Some(1)).unwrap_err();
        assert_eq!(timeout.0, libc::ETIMEDOUT);
        m.registry.preempt(2).unwrap();
        m.serve(1, &[3], 2);
        spinner.join().unwrap();
        owner.join().unwrap();
        m.all_out();
    });
}
