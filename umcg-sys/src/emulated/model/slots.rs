//! Who gets a slot, and who wakes whom: stealing, an awake server, an idle server.

use loom::thread;

use super::{Judge, Model, check, check_large};
use crate::List;

/// A worker queues itself, and another server dispatches it before it has left its old slot:
/// the old server gets that slot back and is woken.
#[test]
fn a06_a_stolen_worker_leaves_its_old_slot() {
    check(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.hand_over(3, 2);
                // Whoever queued it for the other server wakes that one.
                m.finish(3);
            })
        };
        let thief = {
            let m = m.clone();
            thread::spawn(move || m.serve_busily(2, 1))
        };
        m.registry.wait_server(&m.own(1), None).unwrap();
        assert!(!m.slot(1).is_held(), "{:?}", m.slot(1));
        worker.join().unwrap();
        thief.join().unwrap();
        m.all_out();
    });
}

/// The same with a judge that finds the worker on its way.
#[test]
fn a06_a_stolen_worker_that_is_judged_leaves_its_old_slot() {
    check_large(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.hand_over(3, 2);
                m.finish(3);
            })
        };
        let thief = {
            let m = m.clone();
            thread::spawn(move || m.serve_busily(2, 1))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        thief.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// A server is woken while its worker runs and picks another: EBUSY, and only after it has
/// preempted the one the other runs.
#[test]
fn a07_a_server_that_is_woken_early_switches_only_after_preempting() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let runs = {
            let m = m.clone();
            thread::spawn(move || {
                m.holds(2);
                m.one_checkpoint(2);
            })
        };
        let picked = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let task = m.task(1);
        task.set_next_tid(3);
        // Nothing was drained, so this is the mail's loop after an early wake-up.
        match m.registry.wait_server(&m.own(1), None) {
            Ok(()) => m.serve(1, if task.next_tid() == 3 { &[3] } else { &[] }, 2),
            Err((errno, _)) => {
                assert_eq!(errno, libc::EBUSY);
                assert_eq!(task.next_tid(), 3, "the choice is kept");
                if let Some(current) = m.registry.current(1) {
                    m.registry.preempt(current).unwrap();
                }
                m.serve(1, &[3], 2);
            }
        }
        runs.join().unwrap();
        picked.join().unwrap();
        m.all_out();
    });
}

/// A server that is awake with a worker in its slot decides to sleep on; meanwhile a sentinel
/// gives it the slot. It does not idle on what it knew before.
#[test]
fn a07_a_slot_that_comes_back_during_a_drain_is_an_event() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        // Worker 2 runs, and then blocks for ever: no thread.
        m.runs_in(2, 1);
        let queued = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || {
                while !m.look(1, Judge::Sentinel) {
                    thread::yield_now();
                }
            })
        };
        m.serve(1, &[3], 1);
        queued.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.task(2).state(), crate::state::BLOCKED, "not booked");
        m.all_out();
    });
}

/// A server that is awake beside its worker picks that very worker, which has published itself
/// and is on its way into `wait`: no switch is made, and the pick stays the server's.
#[test]
fn a07_a_pick_of_the_holder_on_its_way_out_is_not_lost() {
    check(|| {
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
        m.serve_picking(1, &[], 1, |_| true);
        worker.join().unwrap();
        m.all_out();
    });
}

/// A worker returns to an idle server, and takes its slot by itself, while an outside thread
/// wakes that server with another worker: both run, one at a time.
#[test]
fn a03_an_idle_slot_is_taken_by_one() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        let returns = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(2))
        };
        let admitted = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.enqueue_self(&m.own(3)).unwrap();
                m.one_task(3);
            })
        };
        m.serve(1, &[], 2);
        returns.join().unwrap();
        admitted.join().unwrap();
        m.all_out();
    });
}

/// Two workers return to an idle server at once.
#[test]
fn a03_two_returning_workers_share_an_idle_slot() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.judged_in(3, 1);
        m.all_come_back(&[2, 3]);
    });
}

/// A worker takes the idle slot, and a sentinel judges it at once.
#[test]
fn a03_a_slot_taken_by_its_worker_can_be_judged() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.judged_in(2, 1);
        let returns = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.checkpoint(&m.own(2)).unwrap();
                m.holds(2);
                m.one_checkpoint(2);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        m.serve(1, &[], 1);
        returns.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// Work from outside, then `preempt(server)`: the server that is about to idle, idles, or is
/// about to run somebody sees it.
#[test]
fn idle_a_wake_up_from_outside_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1]);
        let outside = {
            let m = m.clone();
            thread::spawn(move || {
                m.inboxes[1].fetch_or(1 << 2, crate::sync::SeqCst);
                m.registry.preempt(1).unwrap();
            })
        };
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.one_task(2))
        };
        m.serve(1, &[], 1);
        outside.join().unwrap();
        worker.join().unwrap();
        m.all_out();
    });
}

/// A runnable event is pushed while the slot changes hands from its worker to the server: the
/// pusher wakes the server, or the server finds the event.
#[test]
fn idle_an_event_beside_a_leaving_worker_is_not_lost() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let leaves = {
            let m = m.clone();
            thread::spawn(move || {
                assert!(m.task(2).leave());
                // Parks for good: whoever would wake it does not.
                m.registry.take_out(2).unwrap();
            })
        };
        let admitted = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.enqueue_self(&m.own(3)).unwrap();
                m.one_task(3);
            })
        };
        m.serve(1, &[], 1);
        leaves.join().unwrap();
        admitted.join().unwrap();
        assert!(!m.task(1).has_events(List::Runnable));
        m.all_out();
    });
}
