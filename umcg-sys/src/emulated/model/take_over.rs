//! Take-over: an unblocked worker takes the slot of one that has blocked in it. And workers that
//! rest without a slot.

use super::{
    Judge, Model, Phase, Run, Slot, Tag, check, check_large, check_large_with_stops, state, status,
};
use crate::sync::SeqCst;

/// The holder returns at the same moment: one of the two has the slot, the other queues, and
/// neither is lost.
#[test]
fn take_over_the_holder_may_come_back_meanwhile() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.runs_in(3, 1);
        m.sleeps_with_take_over(1);
        m.all_come_back([2, 3]);
    });
}

/// Two blocked workers return at the same time: the slot is taken over once for each verdict.
#[test]
fn take_over_by_two_at_once() {
    check_large(|| {
        let m = Model::new(1, &[1, 1, 1]);
        m.judged_in(2, 1);
        m.judged_in(3, 1);
        m.runs_in(4, 1);
        m.sleeps_with_take_over(1);
        m.all_come_back([2, 3]);
    });
}

/// A sentinel judges the holder at the same moment and is stopped permanently at any step. The
/// monitor looks later.
#[test]
fn take_over_with_a_judge_that_stops_anywhere() {
    check_large_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.runs_in(3, 1);
        m.sleeps_with_take_over(1);
        let returns = m.spawn(|m| {
            m.one_checkpoint(2);
            // The holder returns too.
            m.one_checkpoint(3);
        });
        let judge = m.spawn(move |m| {
            m.sentinel(1, steps);
            m.repair_or_judge(1);
        });
        m.serve_to_the_end(&[], 2, [returns, judge]);
    });
}

/// A spare that is armed in the holder stays with the holder, which takes it back.
#[test]
fn take_over_leaves_the_holders_spare_alone() {
    check_large(|| {
        let m = Model::new(1, &[1, 1, 1]);
        m.judged_in(2, 1);
        m.runs_armed(3, 1, 4);
        m.sleeps_with_take_over(1);
        let taker = m.spawn(|m| m.one_checkpoint(2));
        let spare = m.spawn(|m| m.one_task(4));
        let holder = m.spawn(|m| {
            m.registry.checkpoint(&m.own(3)).expect("the server lives");
            m.holds(3);
            if let Some(armed) = m.registry.disarm(3) {
                m.enqueue(armed, 1);
            }
            m.finish(3);
        });
        m.serve_to_the_end(&[], 3, [taker, spare, holder]);
    });
}

/// A worker that cannot have the slot goes to rest without it, while the holder leaves and the
/// server begins to idle: it is picked all the same, once.
#[test]
fn idle_a_worker_that_rests_without_a_slot_is_not_lost() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.runs_in(3, 1);
        m.sleeps_with_take_over(1);
        let rests = m.spawn(|m| {
            m.between_tasks(2, 1);
            m.finish(2);
        });
        let holder = m.spawn(|m| m.finish(3));
        m.serve_to_the_end(&[], 2, [rests, holder]);
    });
}

/// The same beside a monitor that finds the worker awake and adopts it into the slot.
#[test]
fn idle_a_worker_that_goes_to_rest_may_be_adopted() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        let seen = m.runs_in(3, 1);
        m.sleeps(1);
        let rests = m.spawn(|m| {
            m.between_tasks(2, 1);
            m.finish(2);
            m.one_checkpoint(3);
        });
        let monitor = m.spawn(move |m| {
            let server = m.registry.guard(1, status::SERVER).expect("it lives");
            if !m.registry.adopt(&server, 3, seen, |_| true) {
                m.look(1, Judge::Monitor);
            }
        });
        m.serve_to_the_end(&[], 2, [rests, monitor]);
    });
}

/// A worker that unblocked earlier, and waits to be picked, is not overtaken: the slot goes to the
/// server.
#[test]
fn take_over_does_not_overtake_a_waiting_worker() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.runs_in(3, 1);
        m.sleeps_with_take_over(1);
        m.registry.record(1).runnable_waiting.store(1, SeqCst);
        assert_eq!(m.registry.try_checkpoint(&m.own(2), &|| true), Ok(false));
        assert_eq!(m.slot(1).tag(), Tag::Server);
        assert_eq!(m.task(1).state(), state::RUNNING, "the server sleeps on");
        assert_eq!(m.task(3).state(), state::BLOCKED, "not reported");
    });
}

/// Without the server's permission the holder is not judged.
#[test]
fn take_over_needs_the_servers_permission() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        let holder = m.runs_in(3, 1);
        m.sleeps(1);
        assert_eq!(m.registry.try_checkpoint(&m.own(2), &|| true), Ok(false));
        assert_eq!(m.run(3), holder);
    });
}

/// A worker returns from a block that did not consume its spare. It takes the slot, or rests, and
/// in both cases has not waited for its server, which is taking the spare back: one of the two gets
/// the spare.
#[test]
fn idle_a_spare_is_taken_back_once_beside_a_worker_that_waits_for_nobody() {
    for take_over in [true, false] {
        check(move || {
            let m = Model::new(1, &[1, 1, 1]);
            let judged = m.runs_armed(2, 1, 4).to(Phase::Judged);
            m.registry.record(2).run.store(judged.0, SeqCst);
            m.task(2)
                .transition(state::RUNNING, state::BLOCKED)
                .unwrap();
            m.runs_in(3, 1);
            if take_over {
                m.sleeps_with_take_over(1);
            }
            let worker = {
                let m = m.clone();
                loom::thread::spawn(move || {
                    m.registry
                        .try_checkpoint(&m.own(2), &|| true)
                        .expect("the server lives");
                    m.registry.disarm(2)
                })
            };
            let owners = [m.registry.disarm(2), worker.join().unwrap()];
            assert_eq!(
                owners.iter().filter(|owner| **owner == Some(4)).count(),
                1,
                "{owners:?}"
            );
            assert_eq!(m.task(2).next_tid(), 0);
        });
    }
}

/// The holder has left meanwhile and runs in another slot: an outdated slot word is no reason for a
/// verdict on the later dispatch.
#[test]
fn take_over_that_is_stale_judges_no_later_dispatch() {
    check(|| {
        let m = Model::new(2, &[1, 1]);
        m.judged_in(3, 1);
        let earlier = m.runs_in(4, 1);
        let later = Run::new(earlier.epoch() + 1, 0, Phase::Acked);
        m.registry.record(4).run.store(later.0, SeqCst);
        m.registry.record(4).host.store(2, SeqCst);
        let slot = Slot::held(4, later.epoch());
        m.registry.record(2).slot.store(slot.0, SeqCst);
        m.sleeps_with_take_over(1);
        assert_eq!(m.registry.try_checkpoint(&m.own(3), &|| true), Ok(false));
        assert_eq!((m.run(4), m.slot(2)), (later, slot));
    });
}
