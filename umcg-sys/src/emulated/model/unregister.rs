//! The end of a task, against everybody who may still have it in hand.

use loom::thread;

use super::{Judge, Model, Phase, Tag, check, check_large, check_with_stops, status};
use crate::{state, sync::SeqCst};

/// A worker unregisters while it is judged, and while the judge books its block: afterwards
/// nobody uses its memory.
#[test]
fn a11_nobody_touches_a_worker_that_has_unregistered() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.unregister_worker(m.own(2));
                m.scribble(2);
                m.end();
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

/// The same with a sentinel that stops anywhere and goes on when the record is another worker's:
/// its verdict is about the dead one, and changes nothing.
#[test]
fn a11_a_late_judge_changes_nothing_for_the_next_in_the_record() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.unregister_worker(m.own(2));
                let (task, tid) = (m.tasks[2], 2);
                m.task(2).set_server_tid(1);
                assert_eq!(m.registry.open(task, tid, status::WORKER), Some(2));
                m.registry.enqueue_self(&m.own(2)).unwrap();
                m.one_task(2);
            })
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}

/// A late booking puts a worker on the list of the server that it belonged to before: its
/// unregister gets that server to drain.
#[test]
fn a11_a_late_event_on_an_earlier_servers_list_is_taken_off() {
    check(|| {
        let m = Model::new(2, &[1]);
        m.runs_in(3, 2);
        m.task(3).set_server_tid(2);
        m.sleeps(2);
        // SAFETY: tasks live as long as the model.
        unsafe { m.task(1).push(crate::List::Blocked, m.task(3)) };
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.unregister_worker(m.own(3));
                m.scribble(3);
                m.end();
            })
        };
        let other = {
            let m = m.clone();
            thread::spawn(move || m.serve(2, &[], 1))
        };
        // It has drained already, and idles.
        m.task(1).begin_drain();
        m.registry.wait_server(&m.own(1), None).unwrap();
        m.serve(1, &[], 1);
        worker.join().unwrap();
        other.join().unwrap();
    });
}

/// A worker unregisters with a spare armed: it is its server's afterwards, or a judge consumes it
/// on the way. Either way it runs.
#[test]
fn end_of_a_worker_leaves_its_spare_to_the_server() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.unregister_worker(m.own(2));
                m.scribble(2);
                m.end();
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
        m.all_out();
    });
}

/// A server goes while its worker runs, leaves, and waits: the worker becomes an ordinary thread.
#[test]
fn end_a_worker_on_its_way_into_the_gate_sees_that_its_server_is_gone() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                let gone = if m.task(2).leave() {
                    m.registry.wait_worker(&m.own(2), None)
                } else {
                    m.registry.checkpoint(&m.own(2))
                };
                assert_eq!(gone.unwrap_err().0, libc::ESRCH);
                assert_eq!(m.run(2).phase(), Phase::Plain);
                assert_eq!(m.task(2).state(), state::RUNNING);
            })
        };
        m.registry.unregister_server(m.own(1));
        m.scribble(1);
        worker.join().unwrap();
    });
}

/// A server goes while a worker unblocks and queues up for it.
#[test]
fn end_a_worker_that_unblocks_sees_that_its_server_is_gone() {
    check(|| {
        let m = Model::new(1, &[1]);
        m.judged_in(2, 1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                let gone = m.registry.checkpoint(&m.own(2));
                assert_eq!(gone.unwrap_err().0, libc::ESRCH);
                assert_eq!(m.run(2).phase(), Phase::Plain);
            })
        };
        m.registry.unregister_server(m.own(1));
        m.scribble(1);
        worker.join().unwrap();
        assert!(!m.task(2).is_linked(crate::List::Runnable));
    });
}

/// A server goes while a sentinel consumes the spare of the worker in its slot, and stops
/// anywhere: both workers become ordinary threads.
#[test]
fn end_a_spare_sees_that_its_server_is_gone() {
    check_with_stops(4, |steps| {
        let m = Model::new(1, &[1, 1]);
        m.runs_armed(2, 1, 3);
        let spare = {
            let m = m.clone();
            thread::spawn(move || {
                // It may have run in the slot before the server went.
                if m.registry.sleep_in_gate(&m.own(3)).is_ok() {
                    m.registry.checkpoint(&m.own(3)).err();
                    while m.run(3).phase() != Phase::Plain {
                        thread::yield_now();
                    }
                }
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.sentinel(1, steps))
        };
        m.registry.unregister_server(m.own(1));
        m.scribble(1);
        spare.join().unwrap();
        judge.join().unwrap();
        assert_eq!(m.run(3).phase(), Phase::Plain);
    });
}

/// A worker has left RUNNING and published itself, and its thread ends without `wait`; its server
/// picks it meanwhile: the slot comes back.
#[test]
fn end_of_a_worker_that_was_picked_gives_the_slot_back() {
    check(|| {
        let m = Model::new(1, &[1]);
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.registry.unregister_worker(m.own(2)))
        };
        m.task(1).begin_drain();
        m.task(1).set_next_tid(2);
        if let Err((errno, why)) = m.registry.wait_server(&m.own(1), None) {
            assert_eq!(errno, libc::ESRCH, "{why}");
        }
        worker.join().unwrap();
        assert_eq!(m.slot(1).tag(), Tag::Server);
    });
}

/// The provider's part of the pool's rule: a worker in a wait of the runtime's own is blocked
/// like any other, and the slot serves the child that it waits for.
#[test]
fn a12_a_worker_that_joins_a_queued_child_gives_its_slot_to_it() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let finished = loom::sync::Arc::new(crate::sync::Futex32::new(0));
        let joins = {
            let (m, finished) = (m.clone(), finished.clone());
            thread::spawn(move || {
                while finished.load(SeqCst) == 0 {
                    finished.wait(0, None);
                }
                m.one_checkpoint(2);
            })
        };
        let child = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(3)).unwrap();
                finished.store(1, SeqCst);
                finished.wake();
                m.finish(3);
            })
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.look(1, Judge::Sentinel))
        };
        m.serve(1, &[3], 2);
        joins.join().unwrap();
        child.join().unwrap();
        judge.join().unwrap();
        m.all_out();
    });
}
