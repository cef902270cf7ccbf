//! Where an unblocked worker stops: the user-side half of "return to user mode".

use super::{
    clock::now,
    failure::{Failure, NOT_REGISTERED, SERVER_GONE},
    packed::{Index, Phase, Run, Slot, Tag},
    record::{Counts, status},
    registry::{OwnTask, RecordGuard, Registry},
    user_state::{force_user_state, set_user_running},
};
use crate::{
    state,
    sync::{Relaxed, SeqCst},
};

/// A worker that began to run so little ago still has its time slice of 1 ms: if it does not
/// run, it is blocked.
const FRESH_NS: u64 = 500_000;

impl Registry {
    /// Returns at once to a worker that holds its slot; otherwise the worker queues up behind
    /// its server's choice and returns when it is picked.
    ///
    /// # Errors
    /// ESRCH: the server is gone; an ordinary thread from here on.
    pub(crate) fn checkpoint(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        match self.step_out_if_judged(own)? {
            None => Ok(()),
            Some(out) => self.unblock(own, out),
        }
    }

    /// [`checkpoint`](Self::checkpoint) for a worker in the middle of nothing: never sleeps.
    /// True: it holds its slot. False: it is OUT, on no list, and its own.
    pub(crate) fn try_checkpoint(
        &self,
        own: &OwnTask<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, Failure> {
        match self.step_out_if_judged(own)? {
            None => Ok(true),
            Some(out) if wanted() => self.try_take_slot(own, out),
            Some(_) => Ok(false),
        }
    }

    /// What a worker finds that may have been judged. `None`: it has nothing to stop for. `Some`:
    /// it was judged, that has been carried out, and it is OUT by this word.
    ///
    /// Inlined: on the way of each task, and mostly two loads.
    #[inline(always)]
    fn step_out_if_judged(&self, own: &OwnTask<'_>) -> Result<Option<Run>, Failure> {
        loop {
            let run = own.run();
            // Ours while we are in no queue.
            let host = own.host.load(SeqCst);
            match run.phase() {
                Phase::Acked => {
                    let task = own.task();
                    // A late mirror of an earlier verdict, see `report_block`.
                    if task.state() == state::BLOCKED {
                        let _ = task.transition(state::BLOCKED, state::RUNNING);
                    }
                    return Ok(None);
                }
                Phase::Judged | Phase::Switched | Phase::Adopting if self.has_left(own) => {
                    return Ok(None);
                }
                Phase::Judged | Phase::Switched => {
                    self.finish_own_verdict(host, own, run);
                    let out = run.naming(0).to(Phase::Out);
                    if own.step(run, out).is_ok() {
                        self.end_of_block(own.record());
                        return Ok(Some(out));
                    }
                }
                Phase::Adopting => {
                    let out = run.to(Phase::Out);
                    if own.step(run, out).is_ok() {
                        return Ok(Some(out));
                    }
                }
                Phase::Plain => {
                    set_user_running(own.task());
                    return Err(SERVER_GONE);
                }
                // Between `leave` and `wait`, or on the way in.
                Phase::Out | Phase::Dispatched | Phase::Successor => return Ok(None),
            }
        }
    }

    /// Between `leave` and `wait` somebody else owns the worker already: it must not queue up a
    /// second time, nor unregister. Not by "is not RUNNING": a late mirror may say BLOCKED.
    pub(crate) fn has_left(&self, own: &OwnTask<'_>) -> bool {
        let word = own.task().state_word().load(SeqCst) & !state::USER_MASK;
        word == state::RUNNABLE || word == state::RUNNING | state::CLAIMED
    }

    /// All that a verdict entails, by the worker that it is on.
    fn finish_own_verdict(&self, host: Index, own: &OwnTask<'_>, run: Run) {
        let index = own.index();
        self.report_block(index, run);
        self.carry_out_verdict(host, index, run);
        if run.index() == index {
            // The server is taking the armed one back (`disarm`). The mark goes with the verdict,
            // and we may not have to wait for the server: leave nothing that looks like ours.
            let task = own.task();
            task.clear_next_tid(task.next_tid());
        }
    }

    /// The worker, OUT by `run`, wants a slot again: takes its server's without a switch, or
    /// queues up and sleeps.
    pub(crate) fn unblock(&self, own: &OwnTask<'_>, run: Run) -> Result<(), Failure> {
        if self.try_take_slot(own, run)? {
            return Ok(());
        }
        self.enqueue_self(own)?;
        self.sleep_in_gate(own)
    }

    /// Takes the slot of the server of the worker, which is OUT by `run`, if nobody has it who
    /// runs: the idle server's, or that of a worker that blocked in it. False: still OUT.
    fn try_take_slot(&self, own: &OwnTask<'_>, run: Run) -> Result<bool, Failure> {
        let task = own.task();
        let Some(server) = self.server(task.server_tid()) else {
            let _ = own.step(run, run.to(Phase::Plain));
            set_user_running(task);
            return Err(SERVER_GONE);
        };
        self.return_to_server_cpu(own, &server);
        let slot = server.slot();
        own.host.store(server.index(), SeqCst);
        let named = Slot::held(own.index(), run.epoch() + 1);
        let taken = match slot.tag() {
            Tag::Idle => {
                server.move_slot(slot, named) && {
                    Counts::bump(&server.counts.self_dispatched);
                    true
                }
            }
            Tag::Held => self.take_over(&server, slot, named),
            Tag::Server | Tag::Dead => false,
        };
        if taken {
            self.acknowledge_own(own, &server, run);
        }
        Ok(taken)
    }

    /// Acknowledges a slot that the worker, OUT by `run`, has taken by itself.
    fn acknowledge_own(&self, own: &OwnTask<'_>, server: &RecordGuard<'_>, run: Run) {
        let acked = Run::new(run.epoch() + 1, 0, Phase::Acked);
        self.follow_server(own, server);
        set_user_running(own.task());
        own.running_since.store(now(), Relaxed);
        // A helper may have completed this dispatch for us, and one that was stopped since
        // an earlier switch to this worker even as SUCCESSOR: it found us OUT and the slot
        // naming us. Whatever it says, the dispatch is ours to acknowledge. The server is
        // pinned, so nobody makes us PLAIN.
        let mut seen = run;
        while own.step(seen, acked).is_err() {
            seen = own.run();
            debug_assert_eq!(
                seen.epoch(),
                acked.epoch(),
                "nobody else dispatches us: {seen:?}"
            );
        }
        self.notify_sentinel(server);
    }

    /// The slot of a worker that blocked in it and was not reported yet, for the worker that
    /// `named` names: the calling one, which was blocked itself and runs on.
    ///
    /// The confirmation: the caller runs on the CPU that holder is pinned to, so the holder does
    /// not; and it began to run so little ago that its time slice cannot be over. A wrong one is
    /// as harmless as any wrong verdict.
    ///
    /// (One that is calling `sched_yield` gets that wrong verdict: it has offered the CPU.)
    ///
    /// If somebody waits who was here before, the slot goes to the server. Only if the server
    /// permitted it (`WAIT_TAKE_OVER`): who sees a block first is the mail's business otherwise.
    fn take_over(&self, server: &RecordGuard<'_>, slot: Slot, named: Slot) -> bool {
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
        // The load may be overtaken by a push; then that push came after the take-over.
        let first = server.runnable_waiting.load(SeqCst) == 0;
        if first && server.move_slot(slot, named) {
            Counts::bump(&server.counts.taken_over);
            return true;
        }
        // Somebody waits, or has carried the verdict out before us.
        self.apply_verdict(server.index(), slot.index(), verdict);
        self.wake_server_after(server.index(), slot.index(), verdict);
        false
    }

    /// RUNNABLE, and a runnable event on the server's list. The worker is OUT.
    pub(crate) fn enqueue_self(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        // Own record, alive: a pin for uniformity of what `push_runnable` asks for.
        let Some(worker) = self.guard(own.index(), status::WORKER) else {
            return Err(NOT_REGISTERED);
        };
        let task = worker.task();
        force_user_state(task, state::RUNNABLE);
        // The gate finds out if the server is gone.
        if let Some(server) = self.server(task.server_tid()) {
            if self.push_runnable(&server, &worker) {
                self.notify_monitor();
            }
        }
        Ok(())
    }
}
