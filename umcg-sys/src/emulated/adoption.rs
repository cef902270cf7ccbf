//! Adoption: a blocked worker that is awake again gets the slot instead of one more worker.

use super::{
    clock::now,
    packed::{Index, Phase, Run, Slot},
    record::{Counts, RECENT, status},
    registry::{RecordGuard, Registry},
};
use crate::{
    state,
    sync::{Relaxed, SeqCst},
};

impl Registry {
    /// Instead of a verdict that brings in one more worker: gives the slot of the sleeping
    /// `holder` to a worker that was judged before and is awake (trace B6). `awake` says which.
    ///
    /// Order of the steps, and who may interfere at each: the adopted worker goes JUDGED to
    /// ADOPTING (from here its own checkpoint calls the adoption off, by OUT); the holder goes
    /// ACKED to JUDGED; the slot moves from one to the other; ADOPTING becomes ACKED. Each step
    /// that fails undoes the ones before.
    pub(crate) fn adopt(
        &self,
        server: &RecordGuard<'_>,
        holder: Index,
        seen: Run,
        mut awake: impl FnMut(&RecordGuard<'_>) -> bool,
    ) -> bool {
        for place in 0..RECENT {
            let index = server.recently_judged[place].load(Relaxed);
            if index == 0 || index == holder {
                continue;
            }
            let Some(worker) = self.guard(index, status::WORKER) else {
                continue;
            };
            let before = worker.run();
            if before.phase() != Phase::Judged
                // Its armed one is being taken back; the mark must stay until that is done.
                || before.index() == index
                || worker.task().state() != state::BLOCKED
                || worker.task().server_tid() != server.tid.load(SeqCst)
                // Its last slot was this one: `host` need not change, and must not, since a
                // dispatcher may own the worker as soon as it called the adoption off.
                || worker.host.load(SeqCst) != server.index()
                || !awake(&worker)
            {
                continue;
            }
            self.apply_verdict(server.index(), index, before);
            let adopting = Run::new(before.epoch() + 1, 0, Phase::Adopting);
            if worker.step(before, adopting).is_err() {
                continue;
            }
            self.end_of_block(&worker);
            let verdict = seen.to(Phase::Judged);
            self.record(holder).blocked_since.store(now(), Relaxed);
            if self.record(holder).step(seen, verdict).is_err() {
                // The holder left by itself; nothing to adopt into. If this fails the adopted
                // one is at its checkpoint, which is as good.
                let _ = worker.step(adopting, adopting.to(Phase::Judged));
                return false;
            }
            Counts::bump(&server.counts.monitor);
            let named = Slot::held(index, adopting.epoch());
            if !server.move_slot(Slot::held(holder, seen.epoch()), named) {
                // The holder woke and carried its own verdict out.
                let _ = worker.step(adopting, adopting.to(Phase::Judged));
            } else if worker.step(adopting, adopting.to(Phase::Acked)).is_ok() {
                Counts::bump(&server.counts.adopted);
                let _ = worker.task().transition(state::BLOCKED, state::RUNNING);
            } else if server.move_slot(named, Slot::after(index, adopting.epoch())) {
                // It reached its checkpoint and queued up: the slot is the server's.
                self.wake_server(server);
            }
            self.report_block(holder, verdict);
            self.wake_server_after(server.index(), holder, verdict);
            return true;
        }
        false
    }
}
