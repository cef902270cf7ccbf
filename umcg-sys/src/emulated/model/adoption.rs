//! Adoption: a judged worker that is awake gets the slot of the worker that sleeps in it.

use loom::thread;

use super::{Judge, Model, Phase, check, check_large, status};

impl Model {
    /// The monitor adopts a worker into the slot of the server, if another worker holds that slot
    /// and runs. True: it adopted one.
    pub(super) fn adopt(&self, server: u32) -> bool {
        let guard = self.registry.guard(server, status::SERVER).unwrap();
        let slot = guard.slot();
        let run = self.run(slot.index());
        slot.is_held()
            && run.phase() == Phase::Acked
            && run.epoch() == slot.epoch()
            && self.registry.adopt(&guard, slot.index(), run, |_| true)
    }

    /// What the monitor does about a holder that sleeps: it adopts a worker, or else judges.
    fn adopt_or_judge(&self, server: u32) {
        if !self.adopt(server) {
            self.look(server, Judge::Monitor);
        }
    }
}

/// The worker reaches its checkpoint while it is being adopted.
#[test]
fn b06_an_adopted_worker_may_be_at_its_checkpoint() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        // Worker 3 blocks for ever, so it has no thread.
        m.runs_in(3, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| m.one_checkpoint(2));
        let monitor = m.spawn(|m| m.adopt_or_judge(1));
        m.serve_to_the_end(&[], 1, [worker, monitor]);
    });
}

/// The holder wakes up and leaves while another worker is adopted into its slot.
#[test]
fn b06_the_holder_may_leave_during_an_adoption() {
    check_large(|| {
        let m = Model::new(1, &[1, 1]);
        m.judged_in(2, 1);
        m.runs_in(3, 1);
        m.sleeps(1);
        let adopted = m.spawn(|m| m.one_checkpoint(2));
        let holder = m.spawn(|m| {
            m.leave_and_wait(3, 1);
            m.finish(3);
        });
        let monitor = m.spawn(|m| {
            m.adopt(1);
        });
        m.serve_to_the_end(&[], 2, [adopted, holder, monitor]);
    });
}

/// The worker calls its adoption off, and another server steals and dispatches it before the
/// adopter goes on: the adopter's last steps touch neither the worker nor that server.
#[test]
fn b06_an_adoption_that_was_called_off_leaves_a_stolen_worker_alone() {
    check(|| {
        let m = Model::new(2, &[1, 1]);
        m.judged_in(3, 1);
        m.runs_in(4, 1);
        m.sleeps(1);
        let worker = m.spawn(|m| m.one_checkpoint(3));
        let monitor = m.spawn(|m| m.adopt_or_judge(1));
        // Server 2 drains the list of server 1, as that one's scheduler would, and dispatches what
        // it finds there.
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
