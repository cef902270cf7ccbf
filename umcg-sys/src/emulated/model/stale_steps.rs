//! Steps of an earlier verdict that come late (reports, switches, disarmings) and meet a worker
//! that has moved on.

use loom::thread;

use super::{Judge, Model, Phase, Run, Slot, check};
use crate::{List, state, sync::SeqCst};

impl Model {
    /// Waits until a worker has queued itself for this server.
    fn until_enqueued(&self, server: u32) {
        while self.inboxes[server as usize].load(SeqCst) == 0 {
            thread::yield_now();
        }
    }

    /// The loop of a server that picks one worker again and again until it has finished. `drained`
    /// runs after each `begin_drain`.
    fn pick_until_done(&self, server: u32, worker: u32, mut drained: impl FnMut()) {
        while !self.all_done(1) {
            self.task(server).begin_drain();
            self.task(server).set_next_tid(worker);
            drained();
            // Refused if the worker has been picked already, or has ended.
            if self.registry.wait_server(&self.own(server), None).is_err() {
                thread::yield_now();
            }
        }
    }
}

/// A worker queues while the last steps of its adopter and of an earlier judge, which write its
/// user state, are still to come: the state must be RUNNABLE in the end, or no server could pick
/// the worker.
#[test]
fn stale_user_states_do_not_undo_the_queueing_of_a_worker() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.judged_in(2, 1);
        let out = m.run(2).to(Phase::Out);
        m.registry.record(2).run.store(out.0, SeqCst);
        let late_steps = [
            (state::BLOCKED, state::RUNNING),
            (state::RUNNING, state::BLOCKED),
        ]
        .map(|(from, to)| {
            m.spawn(move |m| {
                let _ = m.task(2).transition(from, to);
            })
        });
        m.registry.enqueue_self(&m.own(2)).unwrap();
        let guard = m.registry.worker(2).unwrap();
        m.registry
            .claim(&guard, 1)
            .expect("a worker that is queued");
        drop(guard);
        m.join(late_steps);
    });
}

/// A report that began before the worker returned, queued and was picked again writes BLOCKED over
/// the state of a running worker. That costs one checkpoint at most: `wait` of a worker that did
/// not leave returns as it does in RUNNING, and the next `leave` succeeds.
#[test]
fn stale_report_makes_no_call_of_a_running_worker_fail() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let judge = m.spawn_judge(1, Judge::Monitor);
        let worker = m.spawn(|m| {
            m.registry.checkpoint(&m.own(2)).unwrap();
            m.registry
                .wait_worker(&m.own(2), None)
                .expect("RUNNING, or judged");
            m.registry.checkpoint(&m.own(2)).unwrap();
            assert!(!m.registry.has_left(&m.own(2)), "of a worker that did not");
            m.registry.unregister_worker(m.own(2));
            m.end();
        });
        m.serve_to_the_end(&[], 1, [judge, worker]);
    });
}

/// The spare that a block consumed runs and ends, and its record may be another worker's: the
/// blocked worker's `next_tid` names neither of them when it returns.
#[test]
fn stale_return_finds_no_spare_that_has_ended() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        let run = m.runs_armed(2, 1, 3);
        m.sleeps(1);
        assert!(m.registry.judge(2, run, Judge::Sentinel));
        let spare = m.spawn(|m| {
            m.registry.sleep_in_gate(&m.own(3)).unwrap();
            m.registry.unregister_worker(m.own(3));
            m.end();
        });
        let worker = m.spawn(|m| {
            m.registry.checkpoint(&m.own(2)).unwrap();
            assert_eq!(m.task(2).next_tid(), 0);
            m.finish(2);
        });
        m.serve_to_the_end(&[], 2, [spare, worker]);
    });
}

/// A successor stays in its gate for so long that its predecessor has returned, was armed again,
/// blocked, consumed that spare as well, and returned once more: the successor's report leaves the
/// next arming of its predecessor alone.
#[test]
fn stale_successor_leaves_the_next_arming_alone() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        // Worker 2 has consumed worker 4 by now, after worker 3.
        let verdict = m.runs_armed(2, 1, 4).to(Phase::Switched);
        m.registry.record(2).run.store(verdict.0, SeqCst);
        let successor = m.spawn(|m| m.registry.report_block_of_predecessor(2, 3));
        // Worker 2 returns, and its server arms worker 4 once more.
        m.registry.clear_consumed_spare(2, verdict);
        let out = verdict.naming(0).to(Phase::Out);
        m.registry.record(2).step(verdict, out).unwrap();
        m.task(2).set_next_tid(4);
        m.registry.record(2).step(out, out.naming(4)).unwrap();
        successor.join().unwrap();
        assert_eq!(m.task(2).next_tid(), 4, "its spare is forgotten");
    });
}

/// A thread that carries out an old switch finds the spare long after it has run, blocked and
/// returned, as it is about to take its idle server's slot by itself. The late thread completes
/// that dispatch, to SUCCESSOR, and the worker runs all the same.
#[test]
fn stale_verdict_may_complete_a_self_dispatch() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        // Worker 2 consumed worker 3, and sleeps on. Later worker 3 was judged too.
        let verdict = m.runs_armed(2, 1, 3).to(Phase::Switched);
        m.registry.record(2).run.store(verdict.0, SeqCst);
        m.task(2).set_next_tid(0);
        m.registry.record(1).slot.store(Slot::SERVER.0, SeqCst);
        m.judged_in(3, 1);
        let late = m.spawn(move |m| m.registry.apply_verdict(1, 2, verdict));
        let spare = m.spawn(|m| m.one_checkpoint(3));
        m.serve_to_the_end(&[], 1, [late, spare]);
    });
}

/// A worker is judged while its spare is taken back: the judge reports the block, also when the
/// server has looked for a block too early to see this one.
#[test]
fn stale_disarming_leaves_the_report_of_a_block() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let run = m.runs_armed(2, 1, 3);
        m.sleeps(1);
        // A worker waits to be picked, so the block does not consume the spare.
        m.registry.enqueue_self(&m.own(4)).unwrap();
        let judge = m.spawn(move |m| {
            let verdict = run.to(Phase::Judged);
            if m.registry.record(2).step(run, verdict).is_ok() {
                m.registry.report_block(2, verdict);
            }
        });
        let spare = m.registry.disarm(2);
        judge.join().unwrap();
        assert_eq!(spare, Some(3));
        if m.run(2).is_judged() {
            assert_eq!(m.task(2).state(), state::BLOCKED, "not reported");
            assert!(m.task(2).is_linked(List::Blocked));
        }
    });
}

/// A `disarm` has not ended when the worker leaves its slot, another server picks it and arms it
/// again, and that spare is taken back as well: the last step of the first `disarm` does not touch
/// the second arming.
#[test]
fn stale_end_of_a_disarming_leaves_the_next_one_alone() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let run = m.runs_armed(2, 1, 3);
        // The first `disarm` has marked the run word and cleared `next_tid`, and goes on now.
        m.task(2).set_next_tid(0);
        let marked = run.naming(2);
        m.registry.record(2).run.store(marked.0, SeqCst);
        let late = m.spawn(move |m| m.registry.end_disarm(2, marked));
        // The worker was picked again, with worker 4 armed, by its next epoch.
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

/// A server unregisters while a worker of it that was refused a switch sleeps in its gate. Another
/// server owns the worker by then and will pick it, perhaps only after the first server is gone.
#[test]
fn stale_pick_of_a_refused_worker_does_not_hold_up_its_old_server() {
    check(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 1);
        m.sleeps(2);
        let worker = m.spawn(|m| {
            assert!(m.task(3).leave());
            // A server is no target: EBUSY.
            m.task(3).set_next_tid(2);
            m.enqueue(3, 2);
            // Ok if the worker was picked before it came here, ESRCH if its old server is gone.
            if let Err((errno, why)) = m.registry.wait_worker(&m.own(3), None) {
                assert!(matches!(errno, libc::EBUSY | libc::ESRCH), "{why}");
            }
            m.task(3).set_next_tid(0);
            m.done.fetch_add(1, super::Plain);
            m.registry.preempt(2).unwrap();
        });
        let ends = m.spawn(|m| m.registry.unregister_server(m.own(1)));
        m.until_enqueued(2);
        // The worker is server 2's from here on. A switch to it that fails: it is claimed, and the
        // claim is given up.
        m.task(3).set_server_tid(2);
        let guard = m.registry.worker(3).unwrap();
        if m.registry.claim(&guard, 2).is_ok() {
            m.registry.unclaim(&guard);
        }
        drop(guard);
        ends.join().unwrap();
        m.pick_until_done(2, 3, || {});
        worker.join().unwrap();
    });
}

/// A worker whose spare was consumed becomes another server's before any thread has carried that
/// verdict out, and is armed again: either the worker gets the new spare back, or its server is
/// told of it.
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
                m.enqueue(3, 2);
                m.wait(3);
                let mine = m.registry.disarm(3) == Some(5);
                m.finish(3);
                mine
            })
        };
        m.until_enqueued(2);
        m.task(3).set_server_tid(2);
        m.task(3).set_next_tid(5);
        let is_told = || {
            let mut events = m.task(2).take(List::Runnable);
            events.any(|worker| m.tid_of(worker) == 5)
        };
        let mut told = false;
        m.pick_until_done(2, 3, || told |= is_told());
        let mine = worker.join().unwrap();
        told |= is_told();
        assert!(mine ^ told, "its owners: worker {mine}, server {told}");
    });
}

/// A worker is adopted while two threads take its spare back: one of them gets the spare.
#[test]
fn stale_disarming_keeps_its_mark_from_an_adopter() {
    check(|| {
        let m = Model::new(1, &[1, 1, 1]);
        let judged = m.judged_in(2, 1).naming(3);
        m.registry.record(2).run.store(judged.0, SeqCst);
        m.task(2).set_next_tid(3);
        m.runs_in(4, 1);
        let monitor = m.spawn(|m| {
            m.adopt(1);
        });
        let server = {
            let m = m.clone();
            thread::spawn(move || m.registry.disarm(2))
        };
        let owners = [m.registry.disarm(2), server.join().unwrap()];
        monitor.join().unwrap();
        assert_eq!(owners.iter().flatten().count(), 1, "{owners:?}");
    });
}
