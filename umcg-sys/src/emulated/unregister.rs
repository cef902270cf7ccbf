//! The end of a task: an ordinary thread again, with nobody using its memory (trace A11).

use super::{
    packed::{Index, Phase, Slot, Tag},
    record::status,
    registry::{OwnTask, Registry},
    user_state::clear_user_state,
};
use crate::{
    List,
    sync::{SeqCst, pause},
};

impl Registry {
    /// The calling worker becomes an ordinary thread: out of its slot, off all lists, forgotten.
    pub(crate) fn unregister_worker(&self, own: OwnTask<'_>) {
        let (index, user) = (own.index(), own.task());
        loop {
            // A spare that nobody consumed goes to its server. A judge may still consume it up to
            // here.
            if let Some(armed) = self.disarm(user.tid()) {
                self.requeue(armed);
            }
            let run = own.run();
            match run.phase() {
                Phase::Plain => break,
                // A thread that ends after it had left RUNNING, and was picked: it will not come to
                // the gate, so the slot is taken here, to be given back.
                Phase::Dispatched | Phase::Successor => {
                    self.acknowledge(&own, run);
                }
                // Out of the slot as its own dispatcher would take it.
                _ => {
                    if let Ok(out) = self.take_out(index) {
                        // Or picked meanwhile.
                        let _ = own.step(out, out.to(Phase::Plain));
                    }
                }
            }
        }
        self.close(index);
        // Who arms holds a pin: none is under way.
        self.forget_as_spare(index);
        // Late events: the server unlinks them when it drains (trace A11). A server that is gone
        // took all of its own.
        let mut turns = 0;
        while user.is_linked(List::Blocked) || user.is_linked(List::Runnable) {
            if let Some(server) = self.server(user.server_tid()) {
                self.wake_server(&server);
            }
            // A late event may be on the list of a server that it belonged to before.
            if turns > 32 {
                for server in self.indices() {
                    if let Some(server) = self.guard(server, status::SERVER) {
                        self.wake_server(&server);
                    }
                }
            }
            pause(&mut turns);
        }
        clear_user_state(user);
        self.release(index);
    }

    /// The calling server goes: its workers become ordinary threads, their events are dropped.
    pub(crate) fn unregister_server(&self, own: OwnTask<'_>) {
        let (index, user) = (own.index(), own.task());
        let tid = own.tid.load(SeqCst);
        // From here on no pins, so no new events; those who had one are done.
        self.close(index);
        // The holder of the slot.
        let slot = Slot(own.slot.swap(Slot::DEAD.0, SeqCst));
        if slot.tag() == Tag::Held {
            self.detach_holder(slot.index(), slot.epoch());
        }
        // Not alive, then look for workers that are OUT; pairs with `sleep_in_gate`. The fences in between
        // are those of `close` and `pin`.
        for worker in self.indices() {
            let Some(worker) = self.guard(worker, status::WORKER) else {
                continue;
            };
            if worker.task().server_tid() != tid {
                continue;
            }
            let run = worker.run();
            if run.phase() == Phase::Out && worker.step(run, run.to(Phase::Plain)).is_ok() {
                worker.run.wake();
            }
        }
        // Unlinks what was pushed.
        drop(user.take(List::Runnable));
        drop(user.take(List::Blocked));
        clear_user_state(user);
        self.release(index);
    }

    /// The worker that held a dead server's slot by that epoch is an ordinary thread.
    fn detach_holder(&self, index: Index, epoch: u64) {
        let record = self.record(index);
        loop {
            let run = record.run();
            let here = run.epoch() == epoch
                && matches!(
                    run.phase(),
                    Phase::Acked | Phase::Dispatched | Phase::Successor
                )
                || run.phase() == Phase::Out && Slot::held(index, run.epoch() + 1).epoch() == epoch;
            if !here {
                return;
            }
            if record.step(run, run.naming(0).to(Phase::Plain)).is_ok() {
                record.run.wake();
                return;
            }
        }
    }
}
