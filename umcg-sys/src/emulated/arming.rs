//! The spare: a worker that is armed in another one's `next_tid` (trace A9).

use super::{
    packed::{Index, Phase, Run},
    registry::{RecordGuard, Registry},
};
use crate::{state, sync::SeqCst};

impl Registry {
    /// The worker that the server armed in the `next_tid` of `worker`, made ready to be
    /// switched to by a judge: OUT, placed, and hosted here. `None`: nothing armed, or not one
    /// that this server may arm.
    pub(crate) fn arm(
        &self,
        server: &RecordGuard<'_>,
        worker: &RecordGuard<'_>,
    ) -> Option<RecordGuard<'_>> {
        let tid = worker.task().next_tid();
        if tid == 0 || tid == worker.tid.load(SeqCst) {
            return None;
        }
        let armed = self.worker(tid)?;
        let task = armed.task();
        if task.server_tid() != server.tid.load(SeqCst) || task.state() != state::RUNNABLE {
            return None;
        }
        self.take_out(armed.index()).ok()?;
        self.follow_server(&armed, server);
        armed.host.store(server.index(), SeqCst);
        armed.armed_in.store(worker.index(), SeqCst);
        Some(armed)
    }

    /// Takes the armed worker back, by the CAS that a verdict would consume it with.
    ///
    /// The server (at a late event) and the worker itself may come here at the same time, and one
    /// of them gets it. The word names the worker itself while `next_tid` is still to be
    /// cleared: without that mark the other would read "names nobody, `next_tid` set", which is
    /// what an arming that never took place leaves behind, and both would own the spare.
    pub(crate) fn disarm(&self, tid: u32) -> Option<u32> {
        let worker = self.worker(tid)?;
        let own = worker.index();
        loop {
            let run = worker.run();
            let host = worker.host.load(SeqCst);
            match run.phase() {
                // The index of SUCCESSOR is not an armed worker.
                Phase::Successor => return None,
                // Consumed. That is carried out here and the verdict made a plain one: a worker
                // that left RUNNING with this standing could be picked and armed anew, and
                // whoever carried it out then would clear the new `next_tid` for the old.
                Phase::Switched => {
                    self.carry_out_verdict(host, own, run);
                    if worker.step(run, run.naming(0).to(Phase::Judged)).is_ok() {
                        return None;
                    }
                }
                _ if run.index() == own => {
                    // The other one is at it. The caller may be a worker that goes on to `wait`,
                    // where a stale `next_tid` would be its target.
                    worker.task().clear_next_tid(worker.task().next_tid());
                    return None;
                }
                _ if run.index() != 0 => {
                    if worker.step(run, run.naming(own)).is_ok() {
                        let armed = self.record(run.index()).tid.load(SeqCst);
                        worker.task().clear_next_tid(armed);
                        self.end_disarm(own, run.naming(own));
                        return Some(armed);
                    }
                }
                _ => {
                    // Set, and not yet dispatched with; or left over from a verdict that did not
                    // consume it.
                    let armed = worker.task().next_tid();
                    let taken = armed != 0 && worker.task().clear_next_tid(armed);
                    return taken.then_some(armed);
                }
            }
        }
    }

    /// Ends the mark of a `disarm`, unless the worker has dropped it by leaving its slot. A later
    /// epoch has the mark of a later disarm: nobody is armed twice in one.
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

    /// No run word names this worker, which is PLAIN, as its spare any more: the next task of this
    /// record is another one. It became an ordinary thread under the arming, by the end of a
    /// server that it belonged to before.
    pub(crate) fn forget_as_spare(&self, index: Index) {
        // 0, or whom it was armed in last: an earlier arming has ended.
        let armed_in = self.record(index).armed_in.load(SeqCst);
        if armed_in == 0 || armed_in == index {
            return;
        }
        let worker = self.record(armed_in);
        loop {
            let run = worker.run();
            let host = worker.host.load(SeqCst);
            let to = match run.phase() {
                // Another index.
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
