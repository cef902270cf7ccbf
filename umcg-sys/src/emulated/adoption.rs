//! Adoption: a worker that was judged and is awake again gets the slot, instead of one more worker.
//!
//! *Problem.* Workers that read a file and then compute are judged during the read, and compute
//! unmanaged. If the monitor dispatched one more worker for each such read, all of them would soon
//! compute at once (trace B6).
//!
//! *Mechanism.* Before it brings in another worker, the monitor looks at those that were judged
//! last. One that is awake gets the slot of the holder, which sleeps.

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
    /// Gives the slot of the sleeping `holder`, ACKED by `seen`, to a worker of this server that
    /// was judged before and is awake, as `awake` says. False: there is none, and nothing was done.
    ///
    /// The steps, and who may interfere:
    ///
    /// 1. The adopted worker goes from JUDGED to ADOPTING. From here on its own checkpoint may call
    ///    the adoption off, by a step to OUT.
    /// 2. The holder goes from ACKED to JUDGED. It may have left its slot instead.
    /// 3. The slot moves from the holder to the adopted worker. The holder may have given it to the
    ///    server already.
    /// 4. The adopted worker goes from ADOPTING to ACKED.
    ///
    /// A step that fails undoes those before it.
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
                // Its spare is being taken back. The mark in the run word must stay until then.
                || before.index() == index
                || worker.task().state() != state::BLOCKED
                || worker.task().server_tid() != server.tid.load(SeqCst)
                // Its last slot must have been this one, since `host` is not written here: as soon
                // as the worker has called the adoption off, a dispatcher may own it and write
                // `host`.
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
                // The holder left its slot by itself, so there is no slot to give. If this CAS
                // fails the adopted worker has reached its checkpoint, which is as good.
                let _ = worker.step(adopting, adopting.to(Phase::Judged));
                return false;
            }
            Counts::bump(&server.counts.monitor);
            let named = Slot::held(index, adopting.epoch());
            if !server.move_slot(Slot::held(holder, seen.epoch()), named) {
                // The holder woke up and gave the slot to the server.
                let _ = worker.step(adopting, adopting.to(Phase::Judged));
            } else if worker.step(adopting, adopting.to(Phase::Acked)).is_ok() {
                Counts::bump(&server.counts.adopted);
                let _ = worker.task().transition(state::BLOCKED, state::RUNNING);
            } else if server.move_slot(named, Slot::after(index, adopting.epoch())) {
                // The adopted worker reached its checkpoint and queued: the slot is the server's.
                self.wake_server(server);
            }
            self.report_block(holder, verdict);
            self.wake_server_after(server.index(), holder, verdict);
            return true;
        }
        false
    }
}
