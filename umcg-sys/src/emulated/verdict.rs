//! "This worker is blocked": said by a helper thread, not by the kernel.
//!
//! The verdict is one CAS of the run word, {e, ACKED} to {e, JUDGED}, against the value read
//! *before* the confirmation. What follows names the epoch, is idempotent, and may be done by
//! anyone who sees JUDGED: a judge may be stopped at any instruction for ever (traces A1, A4,
//! A5). A wrong verdict costs a switch: the worker runs on without a slot and stops at its next
//! checkpoint.

use super::{
    clock::now,
    failure::{Failure, NO_TASK},
    packed::{Index, Phase, Run, Slot},
    record::{Counts, Record, status},
    registry::Registry,
};
use crate::{
    List, state,
    sync::{Relaxed, SeqCst},
};

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// SCHED_IDLE, stoppable for ever: touches records only, never user memory.
    Sentinel,
    /// Normal priority.
    Monitor,
    /// A deliberate verdict: `preempt`.
    Preempter,
}

impl Registry {
    /// The verdict on the worker that was `seen` ACKED. False: it has moved on since.
    pub(crate) fn judge(&self, index: Index, seen: Run, judge: Judge) -> bool {
        debug_assert_eq!(seen.phase(), Phase::Acked);
        let worker = self.record(index);
        // Stable while the run word is `seen`, which the step below makes sure of.
        let host_index = worker.host.load(SeqCst);
        let host = self.record(host_index);
        // A block consumes the armed worker, unless somebody who was here before waits. The
        // load may be overtaken by a push; then that push came after the switch.
        // Naming itself: the armed one is being taken back, see `disarm`.
        let switch = seen.index() != 0
            && seen.index() != index
            && judge != Judge::Preempter
            && host.runnable_waiting.load(SeqCst) == 0;
        let verdict = seen.to(if switch {
            Phase::Switched
        } else {
            Phase::Judged
        });
        // Before the verdict, for who reads that. If it fails the worker runs, and the next one
        // writes this anew.
        let since = if judge == Judge::Preempter { 0 } else { now() };
        worker.blocked_since.store(since, Relaxed);
        if worker.step(seen, verdict).is_err() {
            return false;
        }
        Counts::bump(match judge {
            Judge::Sentinel => &host.counts.sentinel,
            Judge::Monitor => &host.counts.monitor,
            Judge::Preempter => &host.counts.preempted,
        });
        if judge != Judge::Sentinel {
            // Before the slot: a server that comes round by itself finds the event.
            self.report_block(index, verdict);
        }
        self.apply_verdict(host_index, index, verdict);
        if judge == Judge::Sentinel {
            // The server makes itself RUNNING and books the block: its task is in user memory,
            // which a thread that may be stopped for ever must not touch.
            if host.slot() == Slot::after(index, verdict.epoch()) {
                host.wake_to_recheck();
            }
        } else {
            self.wake_server_after(host_index, index, verdict);
        }
        true
    }

    /// Carries a verdict out as far as the slot goes: to the server, or to the armed worker.
    /// Touches no user memory. `host` is the server whose slot the worker held by that epoch.
    pub(crate) fn apply_verdict(&self, host: Index, index: Index, verdict: Run) {
        let host = self.record(host);
        let held = Slot::held(index, verdict.epoch());
        match verdict.phase() {
            Phase::Judged => {
                host.move_slot(held, Slot::after(index, verdict.epoch()));
            }
            Phase::Switched => {
                let next = verdict.index();
                let armed = self.record(next);
                let run = armed.run();
                // The armed worker belongs to this verdict and is OUT until the slot names it.
                // If it is not, the slot named it before, or it has become an ordinary thread,
                // because a server that it belonged to before went.
                if run.phase() != Phase::Out {
                    let after = Slot::after(index, verdict.epoch());
                    if !host.move_slot(held, after) && run.phase() == Phase::Plain {
                        // Named since, by a judge that is stopped before it sees what it named.
                        host.move_slot(Slot::held(next, run.epoch() + 1), after);
                    }
                    return;
                }
                let named = Slot::held(next, run.epoch() + 1);
                host.move_slot(held, named);
                self.complete_dispatch(host, named, index);
                if armed.run() == run.to(Phase::Plain) {
                    host.move_slot(named, Slot::after(index, verdict.epoch()));
                }
            }
            _ => {}
        }
    }

    /// Tells the user side: state BLOCKED, and an event on the server's blocked list. By threads
    /// of normal priority.
    ///
    /// The state is a mirror and has no epoch: if the worker moves on between the look and the
    /// CAS it may read BLOCKED while it runs; the worker repairs that at its next call. The
    /// event is information: late or repeated ones are harmless.
    pub(crate) fn report_block(&self, index: Index, verdict: Run) {
        let Some(worker) = self.guard(index, status::WORKER) else {
            return;
        };
        // Not the whole word: its armed worker may have been taken back.
        let run = worker.run();
        if !run.is_judged() || run.epoch() != verdict.epoch() {
            return;
        }
        let task = worker.task();
        let _ = task.transition(state::RUNNING, state::BLOCKED);
        if task.state() != state::BLOCKED {
            // It left RUNNING before the verdict: a queue owns it (trace B10).
            return;
        }
        if let Some(server) = self.server(task.server_tid()) {
            server.remember_judged(index);
            // SAFETY: both pinned, see `push_runnable`.
            unsafe { server.task().push(List::Blocked, task) };
        }
    }

    /// The server, awake again, books the block that gave its slot back.
    pub(crate) fn report_block_of_last_holder(&self, slot: Slot) {
        if slot.index() == 0 {
            return;
        }
        let run = self.record(slot.index()).run();
        if run.is_judged() && run.epoch() == slot.epoch() {
            self.report_block(slot.index(), run);
        }
    }

    /// `preempt`: a deliberate verdict on a worker. The tid of a server is accepted as well, and
    /// wakes that server, as the kernel module's one call does.
    pub(crate) fn preempt(&self, tid: u32) -> Result<(), Failure> {
        if let Some(worker) = self.worker(tid) {
            let run = worker.run();
            // In any other phase there is nothing to end, or it has not begun.
            if run.phase() == Phase::Acked {
                self.judge(worker.index(), run, Judge::Preempter);
            }
            return Ok(());
        }
        self.wake(tid).map_err(|_| NO_TASK)
    }

    /// Statistics where the end of a block is seen: at the worker's checkpoint, or when it is
    /// adopted. One that was preempted was not blocked.
    pub(crate) fn end_of_block(&self, worker: &Record) {
        let since = worker.blocked_since.load(Relaxed);
        if since == 0 {
            return;
        }
        let length = now().saturating_sub(since);
        self.record(worker.host.load(SeqCst))
            .counts
            .longest_block_ns
            .fetch_max(length, Relaxed);
    }

    /// All that a verdict entails for the slot, the server and the spare, whoever sees it first:
    /// idempotent, as each of its steps. Not by a sentinel: it touches user memory.
    pub(crate) fn carry_out_verdict(&self, host: Index, index: Index, verdict: Run) {
        self.apply_verdict(host, index, verdict);
        self.wake_server_after(host, index, verdict);
        self.clear_consumed_spare(index, verdict);
    }

    /// Clears the user's `next_tid` of a worker whose armed spare was consumed by the verdict.
    /// Before the run word leaves SWITCHED, so that nobody takes the spare back again.
    pub(crate) fn clear_consumed_spare(&self, index: Index, verdict: Run) {
        if verdict.phase() != Phase::Switched {
            return;
        }
        if let Some(worker) = self.guard(index, status::WORKER) {
            // While the verdict stands nobody arms it anew. Not by the spare's tid: it may have
            // ended since.
            let armed = worker.task().next_tid();
            if worker.run() == verdict {
                worker.task().clear_next_tid(armed);
            }
        }
    }
}
