//! Arming: a spare has one owner, the run word that it is armed in or the thread that took it back.

use loom::thread;

use super::{
    Judge, Model, Phase, Slot, Tag, check, check_large, check_large_with_stops, check_with_stops,
};
use crate::{state, sync::SeqCst};

impl Model {
    /// Makes a worker an ordinary thread if it is OUT, as a server that goes away does.
    fn become_plain(&self, worker: u32) -> bool {
        let run = self.run(worker);
        run.phase() == Phase::Out
            && self
                .registry
                .record(worker)
                .step(run, run.to(Phase::Plain))
                .is_ok()
    }
}

/// A block consumes the spare while the worker takes it back: one of the two has it.
#[test]
fn a09_a_spare_is_consumed_or_taken_back() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            if let Some(spare) = m.registry.disarm(2) {
                assert_eq!(spare, 3);
                assert_eq!(m.run(3).phase(), Phase::Out, "taken back and dispatched");
                m.enqueue(spare, 1);
            }
            assert_eq!(m.registry.disarm(2), None);
            m.one_checkpoint(2);
        });
        let spare = m.spawn(|m| m.one_task(3));
        let judge = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[], 2, [worker, spare, judge]);
        assert_eq!(m.task(2).next_tid(), 0);
    });
}

/// The spare becomes an ordinary thread while it is armed, because a server that it belonged to
/// earlier goes away. The judge that consumes it may be stopped at any step. The slot is not left
/// with a thread that will never leave it.
#[test]
fn a09_a_spare_that_is_an_ordinary_thread_leaves_the_slot_to_the_server() {
    check_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let becomes_plain = {
            let m = m.clone();
            thread::spawn(move || m.become_plain(3))
        };
        m.sentinel(1, steps);
        let plain = becomes_plain.join().unwrap();
        if m.run(2).phase() == Phase::Acked {
            return;
        }
        for _ in 0..2 {
            m.repair(1);
        }
        if plain {
            assert_eq!(m.slot(1).tag(), Tag::Server);
        } else {
            assert_eq!(m.slot(1).index(), 3);
        }
    });
}

/// The same where the spare unregisters, so that its record may be another worker's by the time of
/// the block.
#[test]
fn a09_the_next_in_the_record_of_a_spare_is_not_armed() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.registry.record(3).armed_in.store(2, SeqCst);
        m.sleeps(1);
        let judge = m.spawn_judge(1, Judge::Monitor);
        let plain = m.become_plain(3);
        if plain {
            m.registry.unregister_worker(m.own(3));
            assert_ne!(m.run(2).index(), 3, "armed with the next in this record");
        }
        judge.join().unwrap();
        if plain {
            assert_ne!(m.slot(1).index(), 3);
        }
    });
}

/// Both threads that may take a spare back do so, and a block consumes it: one of the three gets
/// it.
#[test]
fn a09_a_spare_is_taken_back_once() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let other = {
            let m = m.clone();
            thread::spawn(move || m.registry.disarm(2))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        let mine = m.registry.disarm(2);
        let owners = [
            mine == Some(3),
            other.join().unwrap() == Some(3),
            // Consumed, and on its way into the slot.
            judge.join().unwrap() && m.run(3).phase() == Phase::Successor,
        ];
        assert_eq!(owners.iter().filter(|&&owns| owns).count(), 1, "{owners:?}");
    });
}

/// A sentinel consumes the spare and is stopped permanently at any step, while the worker returns.
#[test]
fn a09_a_switch_that_stops_anywhere_is_finished_by_the_worker() {
    check_large_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.registry.checkpoint(&m.own(2)).unwrap();
            m.holds(2);
            // If no verdict was given the spare is still armed.
            if let Some(spare) = m.registry.disarm(2) {
                m.enqueue(spare, 1);
            }
            m.one_checkpoint(2);
        });
        let spare = m.spawn(|m| m.one_task(3));
        let judge = m.spawn(move |m| {
            m.sentinel(1, steps);
            m.repair(1);
        });
        m.serve_to_the_end(&[], 2, [worker, spare, judge]);
        assert_eq!(m.task(2).next_tid(), 0);
    });
}

/// The worker sleeps for ever, and the sentinel that consumes its spare is stopped permanently at
/// any step: after one look of the monitor the spare runs, and the block has been reported.
#[test]
fn a09_a_switch_that_stops_anywhere_is_finished_by_the_monitor() {
    check_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let spare = m.spawn(|m| m.one_task(3));
        let judge = m.spawn(move |m| {
            m.sentinel(1, steps);
            // Either the sentinel was stopped before its verdict, or the spare runs.
            m.repair_or_judge(1);
        });
        m.serve_to_the_end(&[], 1, [spare, judge]);
        assert_eq!(m.task(2).state(), state::BLOCKED, "not reported");
        assert_eq!(m.task(2).next_tid(), 0);
    });
}

/// A sentinel resumes in the middle of a switch when the slot has long gone to another dispatch of
/// the same worker, which has a spare of its own: the sentinel does not complete that dispatch.
#[test]
fn a09_a_late_switch_completes_no_other_dispatch() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        // Worker 2 consumed worker 3, which has run and left, all by the first dispatches.
        let named = Slot::held(3, m.run(3).epoch());
        m.task(3).set_next_tid(4);
        let late = m.spawn(move |m| {
            m.registry.complete_dispatch(m.registry.record(1), named, 2);
        });
        let worker = m.spawn(|m| {
            m.registry.sleep_in_gate(&m.own(3)).unwrap();
            assert_eq!(m.run(3).index(), 4, "its spare is lost");
            m.finish(3);
        });
        m.serve_to_the_end(&[3], 1, [late, worker]);
    });
}

/// The worker hands its slot off to its own spare while a block consumes the spare: the spare runs
/// once, and the worker is not told that it still owns the spare.
#[test]
fn a09_a_wait_for_ones_own_spare_that_was_consumed_keeps_nothing() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = m.spawn(|m| {
            m.leave(2);
            let armed = m.task(2).next_tid() == 3;
            m.enqueue(2, 1);
            m.wait(2);
            if armed {
                assert_eq!(m.task(2).next_tid(), 0);
            }
            m.holds(2);
            m.finish(2);
        });
        let spare = m.spawn(|m| m.one_task(3));
        m.look(1, Judge::Sentinel);
        m.serve_to_the_end(&[], 2, [worker, spare]);
    });
}

/// A worker that came earlier waits to be picked: a block does not consume the spare, which would
/// overtake that worker, and the spare stays armed.
#[test]
fn a09_a_spare_does_not_overtake_who_waits() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let run = m.runs_armed(2, 1, 3);
        m.sleeps(1);
        m.registry.enqueue_self(&m.own(4)).unwrap();
        assert!(m.registry.judge(2, run, Judge::Sentinel));
        assert_eq!(m.run(2).phase(), Phase::Judged);
        assert_eq!(m.run(3).phase(), Phase::Out);
        assert_eq!(m.task(2).next_tid(), 3);
    });
}

/// Neither a worker nor a server can switch to a worker of another server, which stays as it was.
#[test]
fn a09_a_worker_of_another_server_is_refused() {
    check(|| {
        let m = Model::new(2, &[1, 2]);
        m.runs_in(3, 1);
        m.sleeps(2);
        assert!(m.task(3).leave());
        m.task(3).set_next_tid(4);
        let (errno, _) = m.registry.wait_worker(&m.own(3), None).unwrap_err();
        assert_eq!(errno, libc::EBUSY);
        assert_eq!(m.task(3).state(), state::RUNNING);
        assert_eq!(m.task(3).next_tid(), 4);
        assert_eq!(m.task(4).state(), state::RUNNABLE);
        m.task(2).set_next_tid(3);
        assert_eq!(
            m.registry.wait_server(&m.own(2), None).unwrap_err().0,
            libc::EBUSY
        );
        m.holds(3);
    });
}

/// A worker whose target is itself gets EINVAL and runs on, also while it is being judged.
#[test]
fn a10_a_worker_is_not_its_own_target() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let judge = m.spawn_judge(1, Judge::Monitor);
        let worker = m.spawn(|m| {
            m.leave(2);
            m.task(2).set_next_tid(2);
            let (errno, _) = m.registry.wait_worker(&m.own(2), None).unwrap_err();
            assert_eq!(errno, libc::EINVAL);
            assert_ne!(m.task(2).state(), state::RUNNABLE);
            m.one_checkpoint(2);
        });
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}
