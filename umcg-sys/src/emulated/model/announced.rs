//! Announced blocks: a worker gives its slot away itself, makes its call, and comes back.

use loom::thread;

use super::{Index, Judge, Model, Phase, check, check_large};
use crate::{state, sync::SeqCst};

impl Model {
    /// A worker that hands its slot to `next`, which it owns, makes a call that sleeps, and comes
    /// back. `next` goes to the server if it was not to be switched to.
    fn block_with_choice(&self, worker: Index, next: Index) {
        let outcome = self.registry.begin_block(&self.own(worker), next);
        if outcome != Ok(true) {
            self.inboxes[1].fetch_or(1 << next, SeqCst);
            self.registry.wake(1).unwrap();
        }
        self.come_back(worker);
    }

    /// A worker that announces its block, makes its call, and comes back.
    fn block(&self, worker: Index) {
        let _ = self.registry.begin_block(&self.own(worker), 0);
        self.come_back(worker);
    }

    fn come_back(&self, worker: Index) {
        let holds = self
            .registry
            .end_block(&self.own(worker), &|| true)
            .expect("the server lives");
        if !holds {
            self.task(worker).leave_judged();
            self.inboxes[1].fetch_or(1 << worker, SeqCst);
            self.registry
                .wait_worker(&self.own(worker), None)
                .expect("the server lives");
        }
        self.holds(worker);
        self.finish(worker);
    }
}

/// The slot goes from hand to hand, and the worker that slept is picked once, or takes the slot
/// when it is free.
#[test]
fn a_worker_that_hands_its_slot_off_to_sleep_comes_back_once() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let sleeper = {
            let m = m.clone();
            thread::spawn(move || m.block_with_choice(2, 3))
        };
        let next = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        m.serve(1, &[], 2);
        sleeper.join().unwrap();
        next.join().unwrap();
        m.all_out();
    });
}

/// The same against a judge that sees the worker in its slot, and against one that preempts it: the
/// choice is dispatched once, by the worker or by the server.
#[test]
fn an_announcement_against_a_verdict_loses_and_doubles_nobody() {
    for judge in [Judge::Sentinel, Judge::Monitor, Judge::Preempter] {
        check_large(move || {
            let m = Model::new(1, &[1, 1]);
            m.runs_in(2, 1);
            m.sleeps(1);
            let sleeper = {
                let m = m.clone();
                thread::spawn(move || m.block_with_choice(2, 3))
            };
            let next = {
                let m = m.clone();
                thread::spawn(move || m.one_task(3))
            };
            let judging = {
                let m = m.clone();
                thread::spawn(move || m.look(1, judge))
            };
            m.serve(1, &[], 2);
            sleeper.join().unwrap();
            next.join().unwrap();
            judging.join().unwrap();
            m.all_out();
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
        let sleeper = {
            let m = m.clone();
            thread::spawn(move || m.block(2))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        m.serve(1, &[], 1);
        sleeper.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// An announcement consumes the spare that is armed in the worker, once.
#[test]
fn an_announcement_switches_to_the_spare() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let sleeper = {
            let m = m.clone();
            thread::spawn(move || m.block(2))
        };
        let spare = {
            let m = m.clone();
            thread::spawn(move || m.one_task(3))
        };
        m.serve(1, &[], 2);
        sleeper.join().unwrap();
        spare.join().unwrap();
        m.all_out();
    });
}

/// The server goes while the worker hands its slot off, or sleeps, or comes back: it becomes an
/// ordinary thread, and so does the worker that it chose.
#[test]
fn a_worker_that_sleeps_sees_that_its_server_is_gone() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        let sleeper = {
            let m = m.clone();
            thread::spawn(move || {
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
            })
        };
        let next = {
            let m = m.clone();
            thread::spawn(move || {
                if m.registry.sleep_in_gate(&m.own(3)).is_ok() {
                    while m.registry.checkpoint(&m.own(3)).is_ok() {
                        thread::yield_now();
                    }
                }
            })
        };
        m.registry.unregister_server(m.own(1));
        m.scribble(1);
        sleeper.join().unwrap();
        next.join().unwrap();
        assert_eq!(m.run(3).phase(), Phase::Plain);
    });
}
