//! Repair: the monitor completes what a judge that was stopped in the middle left undone.

use super::{
    packed::{Index, Phase, Run, Slot, Tag},
    registry::{RecordGuard, Registry},
};
use crate::{state, sync::SeqCst};

/// What the monitor found at a slot that did not change from one look to the next while work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repair {
    /// The server is gone.
    Gone,
    /// Nothing was owed, and something is under way.
    Progress,
    /// A step that a judge owed has been made.
    Done,
    /// Nothing was owed. The worker in the slot runs or sleeps, ACKED by this run word. It was read
    /// before any confirmation (trace A1).
    Runs(Run),
}

impl Registry {
    /// Makes the step that a judge owes to this slot, if any. Nothing changes if it is repeated.
    pub(crate) fn repair(&self, server: &RecordGuard<'_>, slot: Slot) -> Repair {
        match slot.tag() {
            Tag::Dead => Repair::Gone,
            // Either a judge gave the slot to the server and was stopped before it woke the server;
            // then the server makes itself RUNNING when it sees the slot. Or the server is awake
            // and drains. Then it must not be made RUNNING: each look of the monitor would keep its
            // `wait` from switching.
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

    /// The same for a slot that a worker holds.
    fn repair_dispatch(&self, server: &RecordGuard<'_>, slot: Slot) -> Repair {
        let holder = self.record(slot.index());
        let run = holder.run();
        match run.phase() {
            // The slot names it, its run word does not say so: a judge was stopped in between.
            Phase::Out => {
                self.complete_dispatch(server, slot, self.predecessor_of(server, slot.index()));
                Repair::Done
            }
            // Dispatched since the last look and still not running: perhaps nobody has woken it.
            Phase::Dispatched | Phase::Successor => {
                holder.run.wake();
                Repair::Progress
            }
            // The verdict was given, and the slot has not followed.
            Phase::Judged | Phase::Switched => {
                self.apply_verdict(server.index(), slot.index(), run);
                self.wake_server_after(server.index(), slot.index(), run);
                Repair::Done
            }
            Phase::Acked if run.epoch() == slot.epoch() => Repair::Runs(run),
            Phase::Acked | Phase::Adopting => Repair::Progress,
            // A judge named a spare that is an ordinary thread by now, and was stopped before it
            // noticed. (A worker that had the slot gives it back before it becomes PLAIN.)
            Phase::Plain => {
                if server.move_slot(slot, Slot::SERVER) {
                    self.wake_server(server);
                }
                Repair::Done
            }
        }
    }

    /// The worker whose block consumed `spare`, as its verdict still says. Walks over all records,
    /// which is acceptable for the rare judge that was stopped between the slot and the spare's run
    /// word.
    fn predecessor_of(&self, server: &RecordGuard<'_>, spare: Index) -> Index {
        self.indices()
            .find(|&index| {
                let record = self.record(index);
                let run = record.run();
                run.phase() == Phase::Switched
                    && run.index() == spare
                    && record.host.load(SeqCst) == server.index()
            })
            .unwrap_or(0)
    }
}
