//! A judged worker that is awake gets the slot of the one that sleeps.

use loom::thread;

use super::{Judge, Model, Phase, check, check_large, status};

impl Model {
    /// The monitor adopts into the slot of the server, whoever holds it.
    pub(super) fn adopt(&self, server: u32) -> bool {
        let guard = self.registry.guard(server, status::SERVER).unwrap();
        let slot = guard.slot();
        let run = self.run(slot.index());
        slot.is_held()
            && run.phase() == Phase::Acked
            && run.epoch() == slot.epoch()
            && self.registry.adopt(&guard, slot.index(), run, |_| true)
    }
}

/// The worker reaches its checkpoint while it is being adopted.
#[test]
fn b06_an_adopted_worker_may_be_at_its_checkpoint() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        // Blocked for ever: no thread.
        m.runs_in(3, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(2))
        };
        let monitor = {
            let m = m.clone();
            thread::spawn(move || {
                // Not adopted: then somebody blocked as ever.
                if !m.adopt(1) {
                    m.look(1, Judge::Monitor);
                }
            })
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        monitor.join().unwrap();
        m.all_out();
    });
}

/// The holder wakes and leaves while another is adopted into its slot.
#[test]
fn b06_the_holder_may_leave_during_an_adoption() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.runs_in(3, 1);
        m.sleeps(1);
        let adopted = {
            let m = m.clone();
            thread::spawn(move || {
                m.one_checkpoint(2);
            })
        };
        let holder = {
            let m = m.clone();
            thread::spawn(move || {
                m.hand_over(3, 1);
                m.finish(3);
            })
        };
        let monitor = {
            let m = m.clone();
            thread::spawn(move || m.adopt(1))
        };
        m.serve(1, &[], 2);
        adopted.join().unwrap();
        holder.join().unwrap();
        monitor.join().unwrap();
        m.all_out();
    });
}

/// The worker calls its adoption off, and another server takes it over, before the adopter goes
/// on: what the adopter does then touches neither.
#[test]
fn b06_an_adoption_that_was_called_off_leaves_a_stolen_worker_alone() {
    check(|| {
        let m = Model::new(2, &[1, 1]);
        m.judged_in(3, 1);
        m.runs_in(4, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(3))
        };
        let monitor = {
            let m = m.clone();
            thread::spawn(move || {
                if !m.adopt(1) {
                    m.look(1, Judge::Monitor);
                }
            })
        };
        // The thief drains the first server's list, as its own scheduler would, and takes what it
        // finds over.
        let mut ready = Default::default();
        while !m.all_done(1) {
            m.drain(1, &mut ready);
            let Some(pick) = ready.pop_front() else {
                thread::yield_now();
                continue;
            };
            m.task(pick).set_server_tid(2);
            m.task(2).begin_drain();
            m.task(2).set_next_tid(pick);
            m.registry.wait_server(&m.own(2), None).unwrap();
        }
        worker.join().unwrap();
        monitor.join().unwrap();
        assert!(!m.slot(2).is_held(), "{:?}", m.slot(2));
    });
}
