//! The end of a registration: the thread is an ordinary one again, and nobody uses the memory of
//! its task any more (trace A11).

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
    /// Makes the calling worker an ordinary thread: out of its slot, on no list, in no run word.
    ///
    /// 1. It takes its spare back, leaves its slot and becomes PLAIN.
    /// 2. The record is closed: no new guards, and the last one is waited for.
    /// 3. No run word names the worker as a spare any more.
    /// 4. It waits until it is on no list.
    /// 5. The record is free.
    pub(crate) fn unregister_worker(&self, own: OwnTask<'_>) {
        let (index, user) = (own.index(), own.task());
        loop {
            // The spare goes back to its server, unless a judge has consumed it.
            if let Some(spare) = self.disarm(user.tid()) {
                self.requeue(spare);
            }
            let run = own.run();
            match run.phase() {
                Phase::Plain => break,
                // A thread that ends after it left RUNNING, and has been dispatched since. It will
                // not come to its gate, so it takes the slot here, and gives it back.
                Phase::Dispatched | Phase::Successor => {
                    self.acknowledge(&own, run);
                }
                // Out of the slot, as a dispatcher would take the worker out.
                _ => {
                    if let Ok(out) = self.take_out(index) {
                        // Fails if the worker has been dispatched meanwhile.
                        let _ = own.step(out, out.to(Phase::Plain));
                    }
                }
            }
        }
        self.close(index);
        // A server that arms the worker holds a guard on it, so none is doing that now.
        self.forget_as_spare(index);
        // A late report may still have put the worker on a list. The server takes it off when it
        // drains. A server that is gone has taken all its events off.
        let mut turns = 0;
        while user.is_linked(List::Blocked) || user.is_linked(List::Runnable) {
            if let Some(server) = self.server(user.server_tid()) {
                self.wake_server(&server);
            }
            // The list may be that of a server that the worker belonged to earlier.
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

    /// Makes the calling server an ordinary thread. Its workers become ordinary threads, and their
    /// events are dropped.
    pub(crate) fn unregister_server(&self, own: OwnTask<'_>) {
        let (index, user) = (own.index(), own.task());
        let tid = own.tid.load(SeqCst);
        // From here on nobody can get a guard on this server, so there are no new events; those who
        // had a guard have finished.
        self.close(index);
        // The worker that holds the slot.
        let slot = Slot(own.slot.swap(Slot::DEAD.0, SeqCst));
        if slot.tag() == Tag::Held {
            self.detach_holder(slot.index(), slot.epoch());
        }
        // The status was set, now look for workers that are OUT. A worker in `sleep_in_gate` is
        // OUT, then looks at the status. The fences in between are those of `close` and `guard`
        // here, and of `guard` there.
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
        // Unlinks the workers that were pushed.
        drop(user.take(List::Runnable));
        drop(user.take(List::Blocked));
        clear_user_state(user);
        self.release(index);
    }

    /// Makes the worker that held the slot of a server which is gone, by its dispatch `epoch`, an
    /// ordinary thread. A worker that has moved on is left alone.
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
