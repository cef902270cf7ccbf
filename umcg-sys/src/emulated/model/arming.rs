//! A spare armed in a worker's `next_tid` has one owner.

use loom::thread;

use super::{
    Judge, Model, Phase, Repair, Slot, Tag, check, check_large, check_large_with_stops,
    check_with_stops,
};
use crate::{state, sync::SeqCst};

/// Steps of a sentinel's verdict that consumes a spare: run word, slot, spare's run word, wake.
const STEPS: u32 = 4;

/// A block consumes the spare while the worker takes it back: one of the two has it.
#[test]
fn a09_a_spare_is_consumed_or_taken_back() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                if let Some(spare) = m.registry.disarm(2) {
                    assert_eq!(spare, 3);
                    assert_eq!(m.run(3).phase(), Phase::Out, "taken back and dispatched");
                    m.inboxes[1].fetch_or(1 << spare, SeqCst);
                }
                assert_eq!(m.registry.disarm(2), None);
                m.one_checkpoint(2);
            })
        };
        let spare = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        m.serve(1, &[], 2);
        worker.join().unwrap();
        spare.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.task(2).next_tid(), 0);
        m.all_out();
    });
}

/// A spare becomes an ordinary thread under the arming, because a server that it belonged to
/// before goes, and the block that consumes it may stop anywhere: the slot is not left to
/// somebody who will never leave it.
#[test]
fn a09_a_spare_that_is_an_ordinary_thread_leaves_the_slot_to_the_server() {
    check_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let going = {
            let m = m.clone();
            thread::spawn(move || {
                let run = m.run(3);
                run.phase() == Phase::Out
                    && m.registry.record(3).step(run, run.to(Phase::Plain)).is_ok()
            })
        };
        m.sentinel(1, steps);
        let plain = going.join().unwrap();
        if m.run(2).phase() == Phase::Acked {
            return;
        }
        for _ in 0..2 {
            m.tick(1);
        }
        if plain {
            assert_eq!(m.slot(1).tag(), Tag::Server);
        } else {
            assert_eq!(m.slot(1).index(), 3);
        }
    });
}

/// The same, and the record of the spare is another worker's by the time of the block.
#[test]
fn a09_the_next_in_the_record_of_a_spare_is_not_armed() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.registry.record(3).armed_in.store(2, SeqCst);
        m.sleeps(1);
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Monitor))
        };
        let run = m.run(3);
        let plain = run.phase() == Phase::Out
            && m.registry.record(3).step(run, run.to(Phase::Plain)).is_ok();
        if plain {
            m.registry.unregister_worker(m.own(3));
            assert_ne!(m.run(2).index(), 3, "armed with whoever comes next");
        }
        judge.join().unwrap();
        if plain {
            assert_ne!(m.slot(1).index(), 3);
        }
    });
}

/// Both who may take a spare back do so: one gets it.
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
            // Consumed: on its way into the slot.
            judge.join().unwrap() && m.run(3).phase() == Phase::Successor,
        ];
        assert_eq!(owners.iter().filter(|&&owns| owns).count(), 1, "{owners:?}");
    });
}

/// A sentinel consumes the spare and is stopped for ever, anywhere, while the worker returns.
#[test]
fn a09_a_switch_that_stops_anywhere_is_finished_by_the_worker() {
    check_large_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.checkpoint(&m.own(2)).unwrap();
                m.holds(2);
                // The verdict may not have been given; then the spare is still here.
                if let Some(spare) = m.registry.disarm(2) {
                    m.inboxes[1].fetch_or(1 << spare, SeqCst);
                }
                m.one_checkpoint(2);
            })
        };
        let spare = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || {
                m.sentinel(1, steps);
                m.tick(1);
            })
        };
        m.serve(1, &[], 2);
        worker.join().unwrap();
        spare.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.task(2).next_tid(), 0);
        m.all_out();
    });
}

/// The worker sleeps for ever, and so does the sentinel that consumes its spare, anywhere: after
/// a tick of the monitor the spare runs, and the block is booked.
#[test]
fn a09_a_switch_that_stops_anywhere_is_finished_by_the_monitor() {
    check_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let spare = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || {
                m.sentinel(1, steps);
                if let Repair::Runs(_) = m.tick(1) {
                    // Stopped before the verdict, or the spare runs.
                    m.look(1, Judge::Monitor);
                }
            })
        };
        m.serve(1, &[], 1);
        spare.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.task(2).state(), state::BLOCKED, "not booked");
        assert_eq!(m.task(2).next_tid(), 0);
        m.all_out();
    });
}

/// A sentinel resumes in the middle of a switch when the slot has long gone on to a worker with a
/// spare of its own: it completes nothing that is not its own.
#[test]
fn a09_a_late_switch_completes_no_other_dispatch() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        // Worker 2 consumed worker 3, which has run and left, all by the first dispatches.
        let named = Slot::held(3, m.run(3).epoch());
        m.task(3).set_next_tid(4);
        let late = {
            let m = m.clone();
            thread::spawn(move || m.registry.complete_dispatch(m.registry.record(1), named, 2))
        };
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(3)).unwrap();
                assert_eq!(m.run(3).index(), 4, "its spare is lost");
                m.finish(3);
            })
        };
        m.serve(1, &[3], 1);
        late.join().unwrap();
        worker.join().unwrap();
        m.all_out();
    });
}

/// The worker hands its slot to its own spare while a block consumes it: the spare runs once,
/// and the worker is not told that it still owns it.
#[test]
fn a09_a_wait_for_ones_own_spare_that_was_consumed_keeps_nothing() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                while !m.task(2).leave() {
                    m.registry.checkpoint(&m.own(2)).unwrap();
                }
                if m.task(2).next_tid() == 3 {
                    m.inboxes[1].fetch_or(1 << 2, SeqCst);
                    match m.registry.wait_worker(&m.own(2), None) {
                        Ok(()) => assert_eq!(m.task(2).next_tid(), 0),
                        Err(failure) => panic!("{failure:?}"),
                    }
                } else {
                    m.inboxes[1].fetch_or(1 << 2, SeqCst);
                    m.registry.wait_worker(&m.own(2), None).unwrap();
                }
                m.holds(2);
                m.finish(2);
            })
        };
        let spare = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        m.look(1, Judge::Sentinel);
        m.serve(1, &[], 2);
        worker.join().unwrap();
        spare.join().unwrap();
        m.all_out();
    });
}

/// Who came before waits: a block does not let the spare overtake it, and the spare stays where
/// it is.
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

/// A worker of another server is no target, and stays what it was.
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
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Monitor))
        };
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                while !m.task(2).leave() {
                    m.registry.checkpoint(&m.own(2)).unwrap();
                }
                m.task(2).set_next_tid(2);
                let (errno, _) = m.registry.wait_worker(&m.own(2), None).unwrap_err();
                assert_eq!(errno, libc::EINVAL);
                assert_ne!(m.task(2).state(), state::RUNNABLE);
                m.one_checkpoint(2);
            })
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}
