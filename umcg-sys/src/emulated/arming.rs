//! Arming: the spare, an idle worker that is named as the successor of a worker beforehand.
//!
//! *Problem.* Without a spare, the judge of a block wakes the server, which then picks and wakes
//! the next worker: two switches. In the mail the judge avoids that: it switches to the worker that
//! `next_tid` of the blocked one names. But a judge may act late. By then the named worker may have
//! gone to another server, while `next_tid` still names it (trace A9).
//!
//! *Mechanism.* At dispatch the server's choice goes from the user's `next_tid` into the run word
//! of the dispatched worker. From then on the spare belongs to that run word. A verdict consumes it
//! (SWITCHED), or [`Registry::disarm`] takes it back; both are a CAS of that word, so one of them
//! wins. The user's `next_tid` is a copy, cleared when the spare has been consumed or taken back.

use super::{
    packed::{Index, Phase, Run},
    registry::{RecordGuard, Registry},
};
use crate::{state, sync::SeqCst};

impl Registry {
    /// Prepares the worker in the `next_tid` of `worker` as its spare: OUT, moved to the server's
    /// CPU, with this server as its host. `None`: there is none, or this server may not arm it.
    ///
    /// The caller puts the spare's index into the run word, and keeps the guard until then.
    pub(crate) fn arm(
        &self,
        server: &RecordGuard<'_>,
        worker: &RecordGuard<'_>,
    ) -> Option<RecordGuard<'_>> {
        let tid = worker.task().next_tid();
        if tid == 0 || tid == worker.tid.load(SeqCst) {
            return None;
        }
        let spare = self.worker(tid)?;
        let task = spare.task();
        if task.server_tid() != server.tid.load(SeqCst) || task.state() != state::RUNNABLE {
            return None;
        }
        self.take_out(spare.index()).ok()?;
        self.follow_server(&spare, server);
        spare.host.store(server.index(), SeqCst);
        spare.armed_in.store(worker.index(), SeqCst);
        Some(spare)
    }

    /// Takes the spare of the worker `tid` back, by a CAS of the word with which a verdict would
    /// consume it. `Some`: the tid of the spare, which the caller owns from here on.
    ///
    /// The server (when it wakes late) and the worker itself may call this at the same time; one of
    /// them gets the spare. There are two words to change, the run word and `next_tid`, so the
    /// first caller marks the run word: it names its own worker until `next_tid` is cleared.
    /// Without the mark the second caller would find "no spare, `next_tid` set". That is what an
    /// arming leaves behind which was never dispatched, and both callers would own the spare.
    pub(crate) fn disarm(&self, tid: u32) -> Option<u32> {
        let worker = self.worker(tid)?;
        let own = worker.index();
        loop {
            let run = worker.run();
            let host = worker.host.load(SeqCst);
            match run.phase() {
                // The index in SUCCESSOR is the predecessor and no spare.
                Phase::Successor => return None,
                // A verdict consumed the spare. Carry that out, and make the verdict a plain one.
                // Otherwise the worker could leave RUNNING, be picked and be armed anew while the
                // verdict still stands, and a thread that carries it out then would clear the new
                // `next_tid` in place of the old one.
                Phase::Switched => {
                    self.carry_out_verdict(host, own, run);
                    if worker.step(run, run.naming(0).to(Phase::Judged)).is_ok() {
                        return None;
                    }
                }
                _ if run.index() == own => {
                    // Another caller is taking the spare back. This caller may be a worker that is
                    // about to `wait`, where an outdated `next_tid` would be its target.
                    worker.task().clear_next_tid(worker.task().next_tid());
                    return None;
                }
                _ if run.index() != 0 => {
                    if worker.step(run, run.naming(own)).is_ok() {
                        let spare = self.record(run.index()).tid.load(SeqCst);
                        worker.task().clear_next_tid(spare);
                        self.end_disarm(own, run.naming(own));
                        return Some(spare);
                    }
                }
                _ => {
                    // `next_tid` was set and not dispatched with; or it is left over from a verdict
                    // that did not consume the spare.
                    let spare = worker.task().next_tid();
                    let taken = spare != 0 && worker.task().clear_next_tid(spare);
                    return taken.then_some(spare);
                }
            }
        }
    }

    /// Removes the mark of a `disarm`, unless the worker has dropped it by leaving its slot.
    /// `marked` is the run word with the mark. A mark in a later epoch belongs to a later `disarm`,
    /// since a worker is armed once in an epoch.
    pub(crate) fn end_disarm(&self, index: Index, marked: Run) {
        let worker = self.record(index);
        loop {
            let run = worker.run();
            if run.epoch() != marked.epoch()
                || run.index() != index
                || matches!(run.phase(), Phase::Successor | Phase::Switched)
                || worker.step(run, run.naming(0)).is_ok()
            {
                return;
            }
        }
    }

    /// Removes the worker `index`, which is PLAIN and closed, from the run word that names it as
    /// its spare. The next task in this record will be another one.
    ///
    /// A spare becomes PLAIN while it is armed if a server that it belonged to earlier goes away.
    pub(crate) fn forget_as_spare(&self, index: Index) {
        // 0, or the worker in which it was armed last; earlier armings have ended.
        let armed_in = self.record(index).armed_in.load(SeqCst);
        if armed_in == 0 || armed_in == index {
            return;
        }
        let worker = self.record(armed_in);
        loop {
            let run = worker.run();
            let host = worker.host.load(SeqCst);
            let to = match run.phase() {
                // It names another spare, or none.
                _ if run.index() != index => return,
                Phase::Successor | Phase::Adopting | Phase::Plain => return,
                Phase::Switched => {
                    self.carry_out_verdict(host, armed_in, run);
                    run.naming(0).to(Phase::Judged)
                }
                _ => run.naming(0),
            };
            if worker.step(run, to).is_ok() {
                return;
            }
        }
    }
}
