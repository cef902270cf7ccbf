//! Announced blocks: a worker gives its slot away itself, makes its call, and comes back.
//!
//! In each scene worker 2 runs in the slot of server 1 and announces a block. Worker 3 sleeps in
//! its gate: it is what worker 2 hands its slot to, or the spare that is armed in worker 2.

use std::sync::Arc;

use loom::thread;

use super::{Index, Judge, Model, Phase, check, check_large};
use crate::state;

/// Worker 2 runs in the slot of server 1, which sleeps. Worker 3 is RUNNABLE, and owned by worker
/// 2.
fn scene() -> Arc<Model> {
    let m = Model::new(1, &[1, 1]);
    m.runs_in(2, 1);
    m.sleeps(1);
    m
}

impl Model {
    /// A worker announces that it is about to sleep: it hands its slot to `next`, which it owns, or
    /// gives the slot away if `next` is 0. A `next` that was not to be switched to goes to the
    /// server. True: the slot is given away.
    fn announce(&self, worker: Index, next: Index) -> bool {
        let given = self.registry.begin_block(&self.own(worker), next) == Ok(true);
        if !given {
            // A worker whose state said RUNNABLE would pass its checkpoints without a slot.
            assert!(
                !self.registry.has_left(&self.own(worker)),
                "it kept its slot, or lost it by a verdict, and its state is RUNNABLE"
            );
            if next != 0 {
                self.enqueue(next, 1);
                self.registry.wake(1).unwrap();
            }
        }
        given
    }

    /// A worker is awake again, and takes the slot if it is free and `nobody_waits`. Otherwise it
    /// queues, waits until it is picked, and ends. True: it went on at once.
    fn come_back(&self, worker: Index, nobody_waits: bool) -> bool {
        let holds = self
            .registry
            .end_block(&self.own(worker), &|| nobody_waits)
            .expect("the server lives");
        if !holds {
            self.task(worker).leave_judged();
            self.enqueue(worker, 1);
            self.wait(worker);
        }
        self.holds(worker);
        self.finish(worker);
        holds
    }

    /// A worker announces a block, makes its call, and comes back.
    fn block(&self, worker: Index, next: Index) {
        self.announce(worker, next);
        self.come_back(worker, true);
    }
}

/// The slot goes from hand to hand, and the worker that slept is picked once, or takes the slot
/// when it is free.
#[test]
fn a_worker_that_hands_its_slot_off_to_sleep_comes_back_once() {
    check_large(|| {
        let m = scene();
        let sleeper = m.spawn(|m| m.block(2, 3));
        let next = m.spawn(|m| m.one_task(3));
        m.serve_to_the_end(&[], 2, [sleeper, next]);
    });
}

/// While others wait for the slot, the worker that slept queues behind them, even if the slot is
/// free at that moment.
#[test]
fn a_worker_that_comes_back_takes_no_slot_past_those_that_wait() {
    check_large(|| {
        let m = scene();
        let sleeper = m.spawn(|m| {
            assert!(m.announce(2, 3), "nobody else judges it");
            assert!(!m.come_back(2, false), "it overtook those that wait");
        });
        let next = m.spawn(|m| m.one_task(3));
        m.serve_to_the_end(&[], 2, [sleeper, next]);
    });
}

/// The same against a judge that sees the worker in its slot, and against one that preempts it: the
/// choice is dispatched once, by the worker or by the server. If the verdict comes first, the
/// worker is RUNNING again, so that it stops at its next checkpoint.
#[test]
fn an_announcement_against_a_verdict_loses_and_doubles_nobody() {
    for judge in [Judge::Sentinel, Judge::Monitor, Judge::Preempter] {
        check_large(move || {
            let m = scene();
            let sleeper = m.spawn(|m| m.block(2, 3));
            let next = m.spawn(|m| m.one_task(3));
            let judging = m.spawn_judge(1, judge);
            m.serve_to_the_end(&[], 2, [sleeper, next, judging]);
        });
    }
}

/// Without a choice the announcement is a verdict like any other: beside a judge's there is one of
/// the two, and the server hears of it.
#[test]
fn an_announcement_beside_a_verdict_is_one_verdict() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let sleeper = m.spawn(|m| m.block(2, 0));
        let judging = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[], 1, [sleeper, judging]);
    });
}

/// An announcement consumes the spare that is armed in the worker, once.
#[test]
fn an_announcement_switches_to_the_spare() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let sleeper = m.spawn(|m| m.block(2, 0));
        let spare = m.spawn(|m| m.one_task(3));
        m.serve_to_the_end(&[], 2, [sleeper, spare]);
    });
}

/// The server goes while the worker hands its slot off, or sleeps, or comes back: it becomes an
/// ordinary thread, and so does the worker that it chose.
#[test]
fn a_worker_that_sleeps_sees_that_its_server_is_gone() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        let sleeper = m.spawn(|m| {
            let _ = m.registry.begin_block(&m.own(2), 3);
            let gone = loop {
                match m.registry.end_block(&m.own(2), &|| false) {
                    // It still holds the slot of a server that is about to go.
                    Ok(true) => thread::yield_now(),
                    Ok(false) => {
                        m.task(2).leave_judged();
                        break m.registry.wait_worker(&m.own(2), None);
                    }
                    Err(gone) => break Err(gone),
                }
            };
            assert_eq!(gone.unwrap_err().0, libc::ESRCH);
            assert_eq!(m.run(2).phase(), Phase::Plain);
            assert_eq!(m.task(2).state(), state::RUNNING);
        });
        let next = m.spawn(|m| {
            if m.registry.sleep_in_gate(&m.own(3)).is_ok() {
                while m.registry.checkpoint(&m.own(3)).is_ok() {
                    thread::yield_now();
                }
            }
        });
        m.registry.unregister_server(m.own(1));
        m.scribble(1);
        m.join([sleeper, next]);
        assert_eq!(m.run(3).phase(), Phase::Plain);
    });
}
