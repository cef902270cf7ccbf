//! The take-over: an unblocked worker takes the slot of a sibling that has blocked in it.
//!
//! *Problem.* Many workers block for a short time each. Those that unblock run one after the other,
//! unmanaged, so the CPU is never free and the sentinel never runs. Each of them would queue at its
//! checkpoint, and each block would wait for the monitor's verdict: five switches for each task.
//!
//! *Mechanism.* A worker at its checkpoint is the judge itself, and moves the slot to itself by one
//! CAS. It needs the server's permission, [`WAIT_TAKE_OVER`](crate::WAIT_TAKE_OVER).

use super::{
    clock::now,
    packed::{Phase, Slot},
    record::Counts,
    registry::{RecordGuard, Registry},
};
use crate::sync::{Relaxed, SeqCst};

/// Half of a worker's time slice of 1 ms. A worker that began to run more recently still has its
/// slice, so the kernel has not taken the CPU from it for another thread's turn.
const FRESH_NS: u64 = 500_000;

impl Registry {
    /// For a worker that was blocked itself and runs on: judges the worker that holds the slot, if
    /// it sleeps, and takes the slot, so that it becomes `named`. False: the slot was not taken.
    ///
    /// The confirmation that the holder sleeps: the caller runs on the CPU that the holder is
    /// pinned to, so the holder does not run; and the holder began to run less than [`FRESH_NS`]
    /// ago, so it was not taken off the CPU at the end of its slice. This is wrong about a holder
    /// that calls `sched_yield`, and on a contended CPU about a few per cent of the holders. Such a
    /// verdict is as harmless as any wrong one.
    ///
    /// If a worker that came earlier waits to be picked, only the verdict is given, and the slot
    /// goes to the server.
    pub(crate) fn take_over(&self, server: &RecordGuard<'_>, slot: Slot, named: Slot) -> bool {
        if server.take_over_allowed.load(Relaxed) == 0 || !self.is_on_cpu_of(server) {
            return false;
        }
        let holder = self.record(slot.index());
        let seen = holder.run();
        if seen.epoch() != slot.epoch() {
            return false;
        }
        let verdict = match seen.phase() {
            Phase::Judged => seen,
            Phase::Acked if now().saturating_sub(holder.running_since.load(Relaxed)) < FRESH_NS => {
                let verdict = seen.to(Phase::Judged);
                holder.blocked_since.store(now(), Relaxed);
                if holder.step(seen, verdict).is_err() {
                    return false;
                }
                Counts::bump(&server.counts.sibling);
                verdict
            }
            _ => return false,
        };
        self.report_block(slot.index(), verdict);
        // A push that this load does not see counts as later than the take-over.
        let nobody_waits = server.runnable_waiting.load(SeqCst) == 0;
        if nobody_waits && server.move_slot(slot, named) {
            Counts::bump(&server.counts.taken_over);
            return true;
        }
        // A worker waits, or another thread has carried the verdict out first.
        self.apply_verdict(server.index(), slot.index(), verdict);
        self.wake_server_after(server.index(), slot.index(), verdict);
        false
    }
}
