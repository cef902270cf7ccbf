//! Giving a slot to a worker, and the gate in which a worker without a slot sleeps.
//!
//! A dispatch is one CAS of the slot word, SERVER or IDLE or the last holder to {worker, e+1},
//! where e is the epoch in the worker's run word. All that follows ([`Registry::complete_dispatch`]) can be
//! derived from the two words and may be done by anyone, any number of times.

use super::{
    failure::{Failure, NO_SERVER, NOT_RUNNABLE, OTHER_SERVER},
    packed::{Index, Phase, Run, Slot, Tag},
    record::{Counts, Record, status},
    registry::{RecordGuard, Registry},
};
use crate::{List, state, sync::SeqCst};

impl Registry {
    /// Takes a RUNNABLE worker for the slot of the server `tid`: one CAS, exactly one winner.
    pub(crate) fn claim(&self, worker: &RecordGuard<'_>, server_tid: u32) -> Result<(), Failure> {
        if worker.task().server_tid() != server_tid {
            return Err(OTHER_SERVER);
        }
        worker
            .task()
            .transition(state::RUNNABLE, state::RUNNING | state::CLAIMED)
            .map_err(|_| NOT_RUNNABLE)
    }

    /// Gives a claim up. The worker has not passed its gate meanwhile: its run word is OUT.
    pub(crate) fn unclaim(&self, worker: &RecordGuard<'_>) {
        // Fails only for a worker that became an ordinary thread under the claim.
        let _ = worker
            .task()
            .transition(state::RUNNING | state::CLAIMED, state::RUNNABLE);
    }

    /// The worker leaves the slot that it held by `run`; the server gets it and is woken.
    /// Called by whoever took the run word out of ACKED;
    /// `host` was read before that.
    pub(crate) fn release_slot(&self, host: Index, index: Index, run: Run) {
        let held = Slot::held(index, run.epoch());
        if self
            .record(host)
            .move_slot(held, Slot::after(index, run.epoch()))
        {
            self.wake_server_after(host, index, run);
        }
    }

    /// Wakes the server whose slot became its own when the worker left it by `run`, unless the
    /// slot has gone on since. Whoever finds it so may do it, so that a judge that stopped
    /// between the slot and the wake loses nothing.
    pub(crate) fn wake_server_after(&self, host: Index, index: Index, run: Run) {
        if self.record(host).slot() == Slot::after(index, run.epoch()) {
            if let Some(server) = self.guard(host, status::SERVER) {
                self.wake_server(&server);
            }
        }
    }

    /// RUNNABLE to RUNNING and the bell. Nothing if it is awake.
    pub(crate) fn wake_server(&self, server: &RecordGuard<'_>) {
        if server
            .task()
            .transition(state::RUNNABLE, state::RUNNING)
            .is_ok()
        {
            server.wake_to_recheck();
        }
    }

    /// Wakes the server for an event that was just pushed, unless a worker runs in its slot
    /// (decision G1): then that worker, or the server's own deadline, will see it.
    ///
    /// True: a worker runs there.
    pub(crate) fn notify_server(&self, server: &RecordGuard<'_>) -> bool {
        // After the push, which like the drain is a read-modify-write of the list: either the
        // drain has our event, or it came first, and we see all that the server had seen by then,
        // the slot that had become SERVER included. No fence is needed for that.
        loop {
            let slot = server.slot();
            match slot.tag() {
                Tag::Held => return true,
                Tag::Dead => return false,
                Tag::Server => break,
                Tag::Idle => {
                    if server.move_slot(slot, Slot::SERVER) {
                        break;
                    }
                }
            }
        }
        self.wake_server(server);
        false
    }

    /// Puts a runnable event of `worker` on the list of `server`: the token that it is to be
    /// picked. True: a worker runs in the server's slot, so it was not woken.
    pub(crate) fn push_runnable(&self, server: &RecordGuard<'_>, worker: &RecordGuard<'_>) -> bool {
        // SAFETY: both are pinned; a worker's unregister waits for its links, a server's takes
        // all its events.
        unsafe { server.task().push(List::Runnable, worker.task()) };
        // After the push; pairs with the clear-then-look in `wait`.
        server.runnable_waiting.store(1, SeqCst);
        self.notify_server(server)
    }

    /// Gives the slot, which is `from`, to a worker that the caller has claimed and that is OUT
    /// by `run`. False: it was not given, because the slot was not `from` any more (this server
    /// went away) or because the worker became an ordinary thread (its old server did); the
    /// slot is then the server's.
    pub(crate) fn give_slot(
        &self,
        server: &RecordGuard<'_>,
        from: Slot,
        worker: &RecordGuard<'_>,
        run: Run,
    ) -> bool {
        // Before the slot names the worker: who reads the slot may read the host.
        worker.host.store(server.index(), SeqCst);
        let held = Slot::held(worker.index(), run.epoch() + 1);
        if !server.move_slot(from, held) {
            return false;
        }
        self.complete_dispatch(server, held, 0);
        // OUT led to DISPATCHED by `complete_dispatch`, with the next epoch, or to PLAIN with this one. (PLAIN
        // with a later one is a worker that was dispatched, ran, and ended already.)
        let now = worker.run();
        if now.phase() == Phase::Plain && now.epoch() == run.epoch() {
            server.move_slot(held, Slot::SERVER);
            return false;
        }
        true
    }

    /// Finishes the dispatch `slot`, if the server's slot says so and it is unfinished: run word
    /// OUT to DISPATCHED, wake. Idempotent; for anyone, sentinels included. A caller that was
    /// stopped and comes late finds another slot word, or another epoch.
    ///
    /// `relieved`: the worker whose block made this dispatch, 0 = none.
    pub(crate) fn complete_dispatch(&self, server: &Record, slot: Slot, relieved: Index) {
        if server.slot() != slot {
            return;
        }
        let worker = self.record(slot.index());
        let run = worker.run();
        let pending =
            run.phase() == Phase::Out && Slot::held(slot.index(), run.epoch() + 1) == slot;
        if !pending {
            return;
        }
        let to = if relieved == 0 {
            Run::new(slot.epoch(), run.index(), Phase::Dispatched)
        } else {
            Run::new(slot.epoch(), relieved, Phase::Successor)
        };
        if worker.step(run, to).is_ok() {
            Counts::bump(&server.counts.dispatches);
            worker.run.wake();
        }
    }

    /// `wake`: ends the `wait` of a server.
    pub(crate) fn wake(&self, server_tid: u32) -> Result<(), Failure> {
        let Some(server) = self.server(server_tid) else {
            return Err(NO_SERVER);
        };
        // Before the state, so that no worker takes the slot of a server that is on its way.
        server.move_slot(Slot::IDLE, Slot::SERVER);
        self.wake_server(&server);
        Ok(())
    }

    /// The worker that holds the slot of a server.
    pub(crate) fn current(&self, server_tid: u32) -> Option<u32> {
        let slot = self.server(server_tid)?.slot();
        if !slot.is_held() {
            return None;
        }
        let tid = self.record(slot.index()).tid.load(SeqCst);
        (tid != 0).then_some(tid)
    }
}
