//! The checkpoint: where a worker that has lost its slot stops.
//!
//! A kernel stops an unblocked worker on its way back to user mode. A library cannot. So an
//! unblocked worker runs on until its next call of the provider, and stops there.

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

impl Registry {
    /// Returns at once if the calling worker holds its slot. Otherwise the worker queues for a slot
    /// and returns when it has one.
    ///
    /// # Errors
    /// ESRCH: the server is gone, and the worker is an ordinary thread from here on.
    pub(crate) fn checkpoint(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        match self.step_out_if_judged(own)? {
            None => Ok(()),
            Some(out) => self.unblock(own, out),
        }
    }

    /// [`checkpoint`](Self::checkpoint) for a worker that has nothing to finish: it never sleeps.
    /// True: the worker holds its slot. False: the worker is OUT, is on no list, and owns itself.
    ///
    /// `wanted`: whether the worker has use for a slot that it could take now.
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

    /// Looks whether the calling worker was judged, and if so carries the verdict out and makes the
    /// worker OUT. `None`: there is nothing to stop for. `Some`: the worker is OUT by this word.
    ///
    /// Inlined, because each task passes here, mostly with two loads.
    #[inline(always)]
    fn step_out_if_judged(&self, own: &OwnTask<'_>) -> Result<Option<Run>, Failure> {
        loop {
            let run = own.run();
            // Nobody else writes this while the worker is in no queue.
            let host = own.host.load(SeqCst);
            match run.phase() {
                Phase::Acked => {
                    let task = own.task();
                    // A late report of an earlier verdict, see `report_block`.
                    if task.state() == state::BLOCKED {
                        let _ = task.transition(state::BLOCKED, state::RUNNING);
                    }
                    return Ok(None);
                }
                Phase::Judged | Phase::Switched | Phase::Adopting if self.has_left(own) => {
                    return Ok(None);
                }
                Phase::Judged | Phase::Switched => {
                    self.carry_out_own_verdict(host, own, run);
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
                // Between `leave` and `wait`, or not admitted yet.
                Phase::Out | Phase::Dispatched | Phase::Successor => return Ok(None),
            }
        }
    }

    /// Whether the calling worker has left RUNNING. Between `leave` and `wait` somebody else may
    /// own it, so it must neither queue a second time nor unregister. A state other than RUNNING
    /// does not suffice for that: a late report may have made it BLOCKED.
    pub(crate) fn has_left(&self, own: &OwnTask<'_>) -> bool {
        let word = own.task().state_word().load(SeqCst) & !state::USER_MASK;
        word == state::RUNNABLE || word == state::RUNNING | state::CLAIMED
    }

    /// Reports and carries out the verdict on the calling worker.
    fn carry_out_own_verdict(&self, host: Index, own: &OwnTask<'_>, run: Run) {
        let index = own.index();
        self.report_block(index, run);
        self.carry_out_verdict(host, index, run);
        if run.index() == index {
            // The server is taking the spare back right now (`disarm`). Its mark goes with the
            // verdict, and the worker may not have time to wait for the server. So nothing may stay
            // in `next_tid` that looks like a choice of the worker's.
            let task = own.task();
            task.clear_next_tid(task.next_tid());
        }
    }

    /// For the calling worker, which is OUT by `run`: takes its server's slot without a switch if
    /// that is possible. Otherwise it queues and sleeps until it is dispatched.
    pub(crate) fn unblock(&self, own: &OwnTask<'_>, run: Run) -> Result<(), Failure> {
        if self.try_take_slot(own, run)? {
            return Ok(());
        }
        self.enqueue_self(own)?;
        self.sleep_in_gate(own)
    }

    /// Takes the slot of the calling worker's server if no worker runs in it: the slot of an idle
    /// server, or that of a worker which blocked in it (a take-over). False: the worker, which was
    /// OUT by `run`, still is.
    pub(crate) fn try_take_slot(&self, own: &OwnTask<'_>, run: Run) -> Result<bool, Failure> {
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

    /// Acknowledges the slot that the calling worker, which was OUT by `run`, has taken by itself.
    fn acknowledge_own(&self, own: &OwnTask<'_>, server: &RecordGuard<'_>, run: Run) {
        let acked = Run::new(run.epoch() + 1, 0, Phase::Acked);
        self.follow_server(own, server);
        set_user_running(own.task());
        own.running_since.store(now(), Relaxed);
        // Another thread may have completed this dispatch already, since it found the worker OUT
        // and the slot naming it. A judge that was stopped since an earlier switch to this worker
        // may even have made it SUCCESSOR. Whatever the word says, the dispatch is the worker's to
        // acknowledge. It cannot be PLAIN, because the server is guarded and so does not
        // unregister.
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

    /// Makes the calling worker, which is OUT, RUNNABLE, and puts its runnable event on the
    /// server's list.
    pub(crate) fn enqueue_self(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        // A guard on the own record, because `push_runnable` asks for one.
        let Some(worker) = self.guard(own.index(), status::WORKER) else {
            return Err(NOT_REGISTERED);
        };
        let task = worker.task();
        force_user_state(task, state::RUNNABLE);
        // If the server is gone, the worker notices in its gate.
        if let Some(server) = self.server(task.server_tid()) {
            if self.push_runnable(&server, &worker) {
                self.notify_monitor();
            }
        }
        Ok(())
    }
}
