//! The end of a task, against all other threads that may still use it.

use loom::thread;

use super::{Judge, Model, Phase, Tag, check, check_large, check_with_stops, status};
use crate::{
    List, state,
    sync::{Futex32, SeqCst},
};

impl Model {
    /// A worker unregisters, and overwrites its memory.
    fn unregister(&self, worker: u32) {
        self.registry.unregister_worker(self.own(worker));
        self.scribble(worker);
        self.end();
    }

    /// A server unregisters, and overwrites its memory.
    fn unregister_server(&self, server: u32) {
        self.registry.unregister_server(self.own(server));
        self.scribble(server);
    }
}

/// A worker unregisters while it is judged, and while the judge reports its block: afterwards
/// no other thread uses its memory.
#[test]
fn a11_nobody_touches_a_worker_that_has_unregistered() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| m.unregister(2));
        let judge = m.spawn_judge(1, Judge::Monitor);
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}

/// A sentinel stops at any step, and goes on when the record is another worker's: its verdict is
/// about the earlier worker and changes nothing for the later one.
#[test]
fn a11_a_late_judge_changes_nothing_for_the_next_in_the_record() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let judge = m.spawn_judge(1, Judge::Sentinel);
        let worker = m.spawn(|m| {
            m.registry.unregister_worker(m.own(2));
            let (task, tid) = (m.tasks[2], 2);
            m.task(2).set_server_tid(1);
            assert_eq!(m.registry.open(task, tid, status::WORKER), Some(2));
            m.registry.enqueue_self(&m.own(2)).unwrap();
            m.one_task(2);
        });
        m.serve_to_the_end(&[], 1, [worker, judge]);
    });
}

/// A late report puts a worker on the list of a server that it belonged to earlier: the worker's
/// unregister makes that server drain.
#[test]
fn a11_a_late_event_on_an_earlier_servers_list_is_taken_off() {
    check(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 2);
        m.task(3).set_server_tid(2);
        m.sleeps(2);
        // SAFETY: the tasks live as long as the model.
        unsafe { m.task(1).push(List::Blocked, m.task(3)) };
        let worker = m.spawn(|m| m.unregister(3));
        let other = m.spawn(|m| m.serve(2, &[], 1));
        // Server 1 has drained before the push, and idles.
        m.task(1).begin_drain();
        m.registry.wait_server(&m.own(1), None).unwrap();
        m.serve_to_the_end(&[], 1, [worker, other]);
    });
}

/// A worker with a spare unregisters. The spare goes to the server, unless a judge consumes it on
/// the way. In both cases it runs.
#[test]
fn end_of_a_worker_leaves_its_spare_to_the_server() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = m.spawn(|m| m.unregister(2));
        let spare = m.spawn(|m| m.one_task(3));
        let judge = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[], 2, [worker, spare, judge]);
    });
}

/// A server goes away while its worker runs, leaves RUNNING and waits: the worker becomes an
/// ordinary thread.
#[test]
fn end_a_worker_on_its_way_into_the_gate_sees_that_its_server_is_gone() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        let worker = m.spawn(|m| {
            let gone = if m.task(2).leave() {
                m.registry.wait_worker(&m.own(2), None)
            } else {
                m.registry.checkpoint(&m.own(2))
            };
            assert_eq!(gone.unwrap_err().0, libc::ESRCH);
            assert_eq!(m.run(2).phase(), Phase::Plain);
            assert_eq!(m.task(2).state(), state::RUNNING);
        });
        m.unregister_server(1);
        worker.join().unwrap();
    });
}

/// A server goes away while a worker unblocks and queues for its slot.
#[test]
fn end_a_worker_that_unblocks_sees_that_its_server_is_gone() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.judged_in(2, 1);
        let worker = m.spawn(|m| {
            let gone = m.registry.checkpoint(&m.own(2));
            assert_eq!(gone.unwrap_err().0, libc::ESRCH);
            assert_eq!(m.run(2).phase(), Phase::Plain);
        });
        m.unregister_server(1);
        worker.join().unwrap();
        assert!(!m.task(2).is_linked(List::Runnable));
    });
}

/// A server goes away while a sentinel consumes the spare of the worker in its slot and is stopped
/// permanently at any step: both workers become ordinary threads.
#[test]
fn end_a_spare_sees_that_its_server_is_gone() {
    check_with_stops(|steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        let spare = m.spawn(|m| {
            // It may have run in the slot before the server went away.
            if m.registry.sleep_in_gate(&m.own(3)).is_ok() {
                m.registry.checkpoint(&m.own(3)).err();
                while m.run(3).phase() != Phase::Plain {
                    thread::yield_now();
                }
            }
        });
        let judge = m.spawn(move |m| m.sentinel(1, steps));
        m.unregister_server(1);
        spare.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.run(3).phase(), Phase::Plain);
    });
}

/// The thread of a worker ends after the worker has left RUNNING, without `wait`, and the server
/// picks the worker meanwhile: the slot goes back to the server.
#[test]
fn end_of_a_worker_that_was_picked_gives_the_slot_back() {
    check(|| {
        let m = Model::new(1, &[1]);
        let worker = m.spawn(|m| m.registry.unregister_worker(m.own(2)));
        m.task(1).begin_drain();
        m.task(1).set_next_tid(2);
        if let Err((errno, why)) = m.registry.wait_server(&m.own(1), None) {
            assert_eq!(errno, libc::ESRCH, "{why}");
        }
        worker.join().unwrap();
        assert_eq!(m.slot(1).tag(), Tag::Server);
    });
}

/// The provider's part of trace A12: a worker in managed blocking is blocked like any other, and
/// its slot goes to the child that it waits for.
#[test]
fn a12_a_worker_that_joins_a_queued_child_gives_its_slot_to_it() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let finished = loom::sync::Arc::new(Futex32::new(0));
        let joins = {
            let finished = finished.clone();
            m.spawn(move |m| {
                while finished.load(SeqCst) == 0 {
                    finished.wait(0, None);
                }
                m.one_checkpoint(2);
            })
        };
        let child = m.spawn(move |m| {
            m.registry.sleep_in_gate(&m.own(3)).unwrap();
            finished.store(1, SeqCst);
            finished.wake();
            m.finish(3);
        });
        let judge = m.spawn_judge(1, Judge::Sentinel);
        m.serve_to_the_end(&[3], 2, [joins, child, judge]);
    });
}
