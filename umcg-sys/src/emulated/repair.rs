//! What a judge that was stopped half-way left undone, done by the monitor.

use super::{
    packed::{Index, Phase, Run, Slot, Tag},
    registry::{RecordGuard, Registry},
};
use crate::{state, sync::SeqCst};

/// What a look at a slot that stayed the same for a tick, with work waiting, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// Nobody is there.
    Gone,
    /// Something goes on.
    Progress,
    /// Something that was owed has been done.
    Done,
    /// Nothing is owed: the holder runs, or sleeps, by this run word. Read before any
    /// confirmation (trace A1).
    Runs(Run),
}

impl Registry {
    /// Does whatever a judge owed to this slot. Idempotent, as all that it does.
    pub(crate) fn repair(&self, server: &RecordGuard<'_>, slot: Slot) -> Repair {
        match slot.tag() {
            Tag::Dead => Repair::Gone,
            // A judge gave the slot back and was stopped before it rang, or the server drains. One
            // that sleeps makes itself RUNNING for that slot; one that drains must not be made
            // RUNNING, or its `wait` would switch to nobody, at each of our looks.
            Tag::Server => {
                if server.task().state() == state::RUNNABLE {
                    server.wake_to_recheck();
                }
                Repair::Progress
            }
            Tag::Idle => {
                if server.task().state() == state::RUNNABLE {
                    self.notify_server(server);
                    return Repair::Done;
                }
                Repair::Progress
            }
            Tag::Held => self.repair_dispatch(server, slot),
        }
    }

    fn repair_dispatch(&self, server: &RecordGuard<'_>, slot: Slot) -> Repair {
        let holder = self.record(slot.index());
        let run = holder.run();
        match run.phase() {
            // Named by the slot and not dispatched: a judge was stopped between the two.
            Phase::Out => {
                self.complete_dispatch(server, slot, self.predecessor_of(server, slot.index()));
                Repair::Done
            }
            // Dispatched for a tick and not running: its wake-up may never have been made.
            Phase::Dispatched | Phase::Successor => {
                holder.run.wake();
                Repair::Progress
            }
            // The verdict was given, the slot not yet.
            Phase::Judged | Phase::Switched => {
                self.apply_verdict(server.index(), slot.index(), run);
                self.wake_server_after(server.index(), slot.index(), run);
                Repair::Done
            }
            Phase::Acked if run.epoch() == slot.epoch() => Repair::Runs(run),
            Phase::Acked | Phase::Adopting => Repair::Progress,
            // Named by a judge that was stopped before it saw that this one is an ordinary thread
            // by now: who had a slot gives it back before it is PLAIN.
            Phase::Plain => {
                if server.move_slot(slot, Slot::SERVER) {
                    self.wake_server(server);
                }
                Repair::Done
            }
        }
    }

    /// The worker whose block consumed `armed`: its verdict still says so. A walk over all
    /// records, for the rare case of a judge that was stopped between the slot and the armed
    /// worker.
    fn predecessor_of(&self, server: &RecordGuard<'_>, armed: Index) -> Index {
        self.indices()
            .find(|&index| {
                let record = self.record(index);
                let run = record.run();
                run.phase() == Phase::Switched
                    && run.index() == armed
                    && record.host.load(SeqCst) == server.index()
            })
            .unwrap_or(0)
    }
}
