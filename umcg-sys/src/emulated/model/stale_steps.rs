//! Steps of an earlier verdict that come late: late_reports, bookings, switches, disarmings.

use loom::thread;

use super::{Judge, Model, Phase, Run, Slot, check};
use crate::{List, state, sync::SeqCst};

/// A worker queues up while the last steps of its adopter and of an earlier judge, which write
/// its report, are still to come: RUNNABLE is what stays, or nobody could pick it.
#[test]
fn stale_user_states_do_not_undo_the_queueing_of_a_worker() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.judged_in(2, 1);
        let out = m.run(2).to(Phase::Out);
        m.registry.record(2).run.store(out.0, SeqCst);
        let late_reports = [
            (state::BLOCKED, state::RUNNING),
            (state::RUNNING, state::BLOCKED),
        ]
        .map(|(from, to)| {
            let m = m.clone();
            thread::spawn(move || {
                let _ = m.task(2).transition(from, to);
            })
        });
        m.registry.enqueue_self(&m.own(2)).unwrap();
        let guard = m.registry.worker(2).unwrap();
        m.registry
            .claim(&guard, 1)
            .expect("a worker that is queued");
        drop(guard);
        for report in late_reports {
            report.join().unwrap();
        }
    });
}

/// A booking that began before the worker returned, queued up and was picked again writes
/// BLOCKED into a running worker. That costs a checkpoint at most: `wait` of a worker that did
/// not leave returns as it does in RUNNING, and the next `leave` succeeds.
#[test]
fn stale_report_makes_no_call_of_a_running_worker_fail() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Monitor))
        };
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.checkpoint(&m.own(2)).unwrap();
                m.registry
                    .wait_worker(&m.own(2), None)
                    .expect("RUNNING, or judged");
                m.registry.checkpoint(&m.own(2)).unwrap();
                assert!(!m.registry.has_left(&m.own(2)), "of a worker that did not");
                m.registry.unregister_worker(m.own(2));
                m.end();
            })
        };
        m.serve(1, &[], 1);
        judge.join().unwrap();
        worker.join().unwrap();
    });
}

/// The spare that a block consumed runs and ends, and its record is the next one's: the blocked
/// worker's `next_tid` names neither when it returns.
#[test]
fn stale_return_finds_no_spare_that_has_ended() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        let run = m.runs_armed(2, 1, 3);
        m.sleeps(1);
        assert!(m.registry.judge(2, run, Judge::Sentinel));
        let spare = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(3)).unwrap();
                m.registry.unregister_worker(m.own(3));
                m.end();
            })
        };
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.checkpoint(&m.own(2)).unwrap();
                assert_eq!(m.task(2).next_tid(), 0);
                m.finish(2);
            })
        };
        m.serve(1, &[], 2);
        spare.join().unwrap();
        worker.join().unwrap();
        m.all_out();
    });
}

/// A spare is in its gate for so long that the worker which it relieved has returned, was armed
/// anew, blocked, and consumed that one as well: the spare's booking leaves the second block's
/// arming alone.
#[test]
fn stale_successor_leaves_the_next_arming_alone() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        // Worker 2 has consumed worker 4 by now, after worker 3.
        let verdict = m.runs_armed(2, 1, 4).to(Phase::Switched);
        m.registry.record(2).run.store(verdict.0, SeqCst);
        let successor = {
            let m = m.clone();
            thread::spawn(move || m.registry.report_block_of_predecessor(2, 3))
        };
        // It returns, and its server arms worker 4 once more.
        m.registry.clear_consumed_spare(2, verdict);
        let out = verdict.naming(0).to(Phase::Out);
        m.registry.record(2).step(verdict, out).unwrap();
        m.task(2).set_next_tid(4);
        m.registry.record(2).step(out, out.naming(4)).unwrap();
        successor.join().unwrap();
        assert_eq!(m.task(2).next_tid(), 4, "its spare is forgotten");
    });
}

/// A settle of an old switch meets its spare when that has long run, blocked, returned, and is
/// about to take its idle server's slot by itself: it completes that dispatch, as SUCCESSOR,
/// and the worker runs all the same.
#[test]
fn stale_verdict_may_complete_a_self_dispatch() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        // Worker 2 consumed worker 3, and sleeps on. Worker 3 was judged in its turn.
        let verdict = m.runs_armed(2, 1, 3).to(Phase::Switched);
        m.registry.record(2).run.store(verdict.0, SeqCst);
        m.task(2).set_next_tid(0);
        m.registry.record(1).slot.store(Slot::SERVER.0, SeqCst);
        m.judged_in(3, 1);
        let late = {
            let m = m.clone();
            thread::spawn(move || m.registry.apply_verdict(1, 2, verdict))
        };
        let spare = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(3))
        };
        m.serve(1, &[], 1);
        late.join().unwrap();
        spare.join().unwrap();
        m.all_out();
    });
}

/// A block is judged, and its spare taken back, at the same time: it is booked by the one who
/// judged, also when the server's own booking has come too early to see it.
#[test]
fn stale_disarming_leaves_the_report_of_a_block() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let run = m.runs_armed(2, 1, 3);
        m.sleeps(1);
        // Somebody waits, so that the block does not consume the spare.
        m.registry.enqueue_self(&m.own(4)).unwrap();
        let judge = {
            let m = m.clone();
            thread::spawn(move || {
                let verdict = run.to(Phase::Judged);
                if m.registry.record(2).step(run, verdict).is_ok() {
                    m.registry.report_block(2, verdict);
                }
            })
        };
        let spare = m.registry.disarm(2);
        judge.join().unwrap();
        assert_eq!(spare, Some(3));
        if m.run(2).is_judged() {
            assert_eq!(m.task(2).state(), state::BLOCKED, "not booked");
            assert!(m.task(2).is_linked(List::Blocked));
        }
    });
}

/// Taking back is under way when the worker leaves its slot, another server picks it and arms it
/// anew, and takes that one back: the end of the first touches nothing of the second.
#[test]
fn stale_end_of_a_disarming_leaves_the_next_one_alone() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let run = m.runs_armed(2, 1, 3);
        // The first one has marked the word, cleared `next_tid`, and goes on now.
        m.task(2).set_next_tid(0);
        let marked = run.naming(2);
        m.registry.record(2).run.store(marked.0, SeqCst);
        let late = {
            let m = m.clone();
            thread::spawn(move || m.registry.end_disarm(2, marked))
        };
        // The worker was picked again, with worker 4 armed, in its next epoch.
        let again = Run::new(run.epoch() + 1, 4, Phase::Acked);
        while m.registry.record(2).step(m.run(2), again).is_err() {}
        m.task(2).set_next_tid(4);
        let other = {
            let m = m.clone();
            thread::spawn(move || m.registry.disarm(2))
        };
        let owners = [m.registry.disarm(2), other.join().unwrap()];
        late.join().unwrap();
        assert_eq!(owners.iter().flatten().count(), 1, "{owners:?}");
    });
}

/// A server ends while a worker that failed to switch sleeps in its gate: another server, whose
/// it is by now, will pick it, and may do so after the first one has ended.
#[test]
fn stale_pick_of_a_refused_worker_does_not_hold_up_its_old_server() {
    check(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 1);
        m.sleeps(2);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                assert!(m.task(3).leave());
                // Another server is no target: EBUSY.
                m.task(3).set_next_tid(2);
                m.inboxes[2].fetch_or(1 << 3, SeqCst);
                // Picked before it got there; or EBUSY, or ESRCH when its old server is gone.
                if let Err((errno, why)) = m.registry.wait_worker(&m.own(3), None) {
                    assert!(matches!(errno, libc::EBUSY | libc::ESRCH), "{why}");
                }
                m.task(3).set_next_tid(0);
                m.done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                m.registry.preempt(2).unwrap();
            })
        };
        let ends = {
            let m = m.clone();
            thread::spawn(move || m.registry.unregister_server(m.own(1)))
        };
        while m.inboxes[2].load(SeqCst) == 0 {
            thread::yield_now();
        }
        // It is the second server's from here on. A switch to it that comes to nothing: claimed,
        // and given up.
        m.task(3).set_server_tid(2);
        let guard = m.registry.worker(3).unwrap();
        if m.registry.claim(&guard, 2).is_ok() {
            m.registry.unclaim(&guard);
        }
        drop(guard);
        ends.join().unwrap();
        while !m.all_done(1) {
            m.task(2).begin_drain();
            m.task(2).set_next_tid(3);
            // It may have taken itself back, and ended by now.
            if m.registry.wait_server(&m.own(2), None).is_err() {
                thread::yield_now();
            }
        }
        worker.join().unwrap();
    });
}

/// A worker whose spare was consumed goes on into another server's hands before anybody has
/// carried that verdict out, and is armed anew: that spare is the worker's, or its server hears
/// of it.
#[test]
fn stale_switch_is_not_taken_for_the_next_arming() {
    check(|| {
        let m = Model::new(2, &[1, 1, 2]);
        let verdict = m.runs_armed(3, 1, 4).to(Phase::Switched);
        m.registry.record(3).run.store(verdict.0, SeqCst);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                assert_eq!(m.registry.disarm(3), None, "consumed");
                assert!(m.task(3).leave());
                m.inboxes[2].fetch_or(1 << 3, SeqCst);
                m.registry.wait_worker(&m.own(3), None).unwrap();
                let mine = m.registry.disarm(3) == Some(5);
                m.finish(3);
                mine
            })
        };
        while m.inboxes[2].load(SeqCst) == 0 {
            thread::yield_now();
        }
        m.task(3).set_server_tid(2);
        m.task(3).set_next_tid(5);
        let is_told = || {
            let mut events = m.task(2).take(List::Runnable);
            events.any(|worker| m.tid_of(worker) == 5)
        };
        let mut told = false;
        while !m.all_done(1) {
            m.task(2).begin_drain();
            m.task(2).set_next_tid(3);
            told |= is_told();
            if m.registry.wait_server(&m.own(2), None).is_err() {
                thread::yield_now();
            }
        }
        let mine = worker.join().unwrap();
        told |= is_told();
        assert!(mine ^ told, "its owners: worker {mine}, server {told}");
    });
}

/// A worker is adopted while its server takes its spare back: one of the two has it.
#[test]
fn stale_disarming_keeps_its_mark_from_an_adopter() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let judged = m.judged_in(2, 1).naming(3);
        m.registry.record(2).run.store(judged.0, SeqCst);
        m.task(2).set_next_tid(3);
        m.runs_in(4, 1);
        let monitor = {
            let m = m.clone();
            thread::spawn(move || m.adopt(1))
        };
        let server = {
            let m = m.clone();
            thread::spawn(move || m.registry.disarm(2))
        };
        let owners = [m.registry.disarm(2), server.join().unwrap()];
        monitor.join().unwrap();
        assert_eq!(owners.iter().flatten().count(), 1, "{owners:?}");
    });
}
