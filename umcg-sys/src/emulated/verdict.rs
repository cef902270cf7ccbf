//! A verdict: the decision that the worker in a slot has blocked, made by another thread.
//!
//! *Problem.* In a kernel a thread that blocks gives its slot away itself, under the run queue's
//! lock. Here another thread, the judge, has to notice the block from outside. It may be wrong, it
//! may be late, and it may be stopped in the middle for any length of time.
//!
//! *Mechanism.* The verdict is one CAS of the worker's run word, from exactly the value {e, ACKED}
//! that the judge read *before* it confirmed that the worker sleeps, to {e, JUDGED} or {e,
//! SWITCHED} (trace A1). The steps that follow (the slot, the wake, the report) all name the epoch
//! e, change nothing when repeated, and may be made by any thread that reads the verdict (traces
//! A4, A5).
//!
//! *Cost.* A wrong verdict costs a switch: the worker runs on without a slot and stops at its next
//! checkpoint.

use super::{
    clock::now,
    failure::{Failure, NO_TASK},
    os,
    packed::{Index, Phase, Run, Slot},
    record::{Counts, Record, status},
    registry::Registry,
};
use crate::{
    List, state,
    sync::{Relaxed, SeqCst},
};

/// What kind of thread gives a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// A SCHED_IDLE thread, which may be stopped for any length of time. It touches records only,
    /// never user memory.
    Sentinel,
    /// A thread of normal priority.
    Monitor,
    /// Whoever called `preempt`: the worker has not blocked, and loses its slot on purpose.
    Preempter,
    /// The worker itself, which is about to sleep ([`Registry::begin_block`]).
    Itself,
    /// Whoever has work for the slot of a worker that has said that it sleeps.
    Retaker,
}

impl Registry {
    /// Judges the worker that was seen ACKED by `seen`. False: it has moved on since, and nothing
    /// was done.
    pub(crate) fn judge(&self, index: Index, seen: Run, judge: Judge) -> bool {
        debug_assert_eq!(seen.phase(), Phase::Acked);
        let worker = self.record(index);
        // Does not change while the run word is `seen`, and the CAS below fails if that changed.
        let host_index = worker.host.load(SeqCst);
        let host = self.record(host_index);
        // A block consumes the spare, unless a worker that came earlier waits to be picked. A push
        // that this load does not see counts as later than the switch. A run word that names its
        // own worker carries the mark of `disarm`: the spare is being taken back.
        let consumes_spare = seen.index() != 0
            && seen.index() != index
            && judge != Judge::Preempter
            && host.runnable_waiting.load(SeqCst) == 0;
        let verdict = seen.to(if consumes_spare {
            Phase::Switched
        } else {
            Phase::Judged
        });
        // Stored before the verdict, for those who read the verdict. If the CAS fails the worker
        // runs, and the next judge overwrites this.
        let since = if judge == Judge::Preempter { 0 } else { now() };
        worker.blocked_since.store(since, Relaxed);
        if worker.step(seen, verdict).is_err() {
            return false;
        }
        if judge == Judge::Preempter {
            // The worker runs on beside the next one, so the CPU is contended, until the sentinel
            // gets to run. A next worker under SCHED_BATCH would wait for the kernel's tick.
            host.contended.store(1, SeqCst);
        }
        Counts::bump(match judge {
            Judge::Sentinel => &host.counts.sentinel,
            Judge::Monitor => &host.counts.monitor,
            Judge::Preempter => &host.counts.preempted,
            Judge::Itself | Judge::Retaker => &host.counts.announced,
        });
        if judge != Judge::Sentinel {
            // Before the slot: a server that wakes up by itself then finds the event.
            self.report_block(index, verdict);
        }
        self.apply_verdict(host_index, index, verdict);
        if judge == Judge::Sentinel {
            // The server makes itself RUNNING and reports the block. Its task is in user memory,
            // which a thread that may be stopped at any point must not touch.
            if host.slot() == Slot::after(index, verdict.epoch()) {
                host.wake_to_recheck();
            }
        } else {
            self.wake_server_after(host_index, index, verdict);
        }
        true
    }

    /// [`Provider::preempt`](crate::Provider::preempt): a verdict given on purpose. The tid of a
    /// server is accepted as well and wakes that server.
    pub(crate) fn preempt(&self, tid: u32) -> Result<(), Failure> {
        if let Some(worker) = self.worker(tid) {
            let run = worker.run();
            // In any other phase the worker does not hold its slot, or has not begun to run.
            if run.phase() == Phase::Acked {
                self.judge(worker.index(), run, Judge::Preempter);
            }
            return Ok(());
        }
        self.wake(tid).map_err(|_| NO_TASK)
    }

    /// [`Provider::retake`](crate::Provider::retake): a verdict on a worker that has said that it
    /// is about to sleep.
    pub(crate) fn retake(&self, server_tid: u32, tid: u32) -> Result<bool, Failure> {
        let (Some(server), Some(worker)) = (self.server(server_tid), self.worker(tid)) else {
            return Err(NO_TASK);
        };
        let mut run = worker.run();
        let epoch = run.epoch();
        // Only the name of the spare changes while the phase and the epoch stay.
        while run.phase() == Phase::Acked && run.epoch() == epoch {
            // Does not change while the run word is `run`, and the verdict fails if that changed.
            if worker.host.load(SeqCst) != server.index() {
                return Ok(false);
            }
            if self.judge(worker.index(), run, Judge::Retaker) {
                return Ok(true);
            }
            run = worker.run();
        }
        Ok(false)
    }

    /// [`Provider::is_leftover`](crate::Provider::is_leftover). A judge that saw the worker blocked
    /// has stored when, and `preempt` has stored 0. A worker that comes to its checkpoint leaves
    /// JUDGED. One that has gone to sleep since has given up the CPU, which `/proc` says.
    pub(crate) fn is_leftover(&self, tid: u32) -> bool {
        self.worker(tid).is_some_and(|worker| {
            worker.run().is_judged()
                && worker.blocked_since.load(Relaxed) == 0
                && os::thread_state(tid) != os::ThreadState::Asleep
        })
    }

    /// Everything that a verdict entails for the slot, the server and the user's `next_tid`. Any
    /// thread of normal priority that reads the verdict may do this, any number of times. Not for a
    /// sentinel: it touches user memory.
    ///
    /// `host`: the server in whose slot the worker `index` was judged.
    pub(crate) fn carry_out_verdict(&self, host: Index, index: Index, verdict: Run) {
        self.apply_verdict(host, index, verdict);
        self.wake_server_after(host, index, verdict);
        self.clear_consumed_spare(index, verdict);
    }

    /// Moves the slot as the verdict says: to the server, or to the consumed spare. Touches no user
    /// memory, and may be done by any thread, any number of times.
    pub(crate) fn apply_verdict(&self, host: Index, index: Index, verdict: Run) {
        let host = self.record(host);
        let held = Slot::held(index, verdict.epoch());
        match verdict.phase() {
            Phase::Judged => {
                host.move_slot(held, Slot::after(index, verdict.epoch()));
            }
            Phase::Switched => {
                let next = verdict.index();
                let spare = self.record(next);
                let run = spare.run();
                // The spare belongs to this verdict, and is OUT until the slot names it. If it is
                // not OUT, either the slot has named it before, or it became an ordinary thread
                // because a server that it belonged to earlier went away.
                if run.phase() != Phase::Out {
                    let after = Slot::after(index, verdict.epoch());
                    if !host.move_slot(held, after) && run.phase() == Phase::Plain {
                        // Another thread made the slot name it, and is stopped before it notices
                        // that it named an ordinary thread.
                        host.move_slot(Slot::held(next, run.epoch() + 1), after);
                    }
                    return;
                }
                let named = Slot::held(next, run.epoch() + 1);
                host.move_slot(held, named);
                self.complete_dispatch(host, named, index);
                if spare.run() == run.to(Phase::Plain) {
                    host.move_slot(named, Slot::after(index, verdict.epoch()));
                }
            }
            _ => {}
        }
    }

    /// Reports a block to the application: user state BLOCKED, and an event on the server's
    /// `blocked_ptr`. For threads of normal priority.
    ///
    /// The user state has no epoch. If the worker moves on between the look at its run word and the
    /// CAS of its state, the state may say BLOCKED while the worker runs; the worker repairs that
    /// at its next call. The event is information, so a late or repeated one does no harm.
    pub(crate) fn report_block(&self, index: Index, verdict: Run) {
        let Some(worker) = self.guard(index, status::WORKER) else {
            return;
        };
        // Not a comparison of whole words: the spare may have been taken back since.
        let run = worker.run();
        if !run.is_judged() || run.epoch() != verdict.epoch() {
            return;
        }
        let task = worker.task();
        let _ = task.transition(state::RUNNING, state::BLOCKED);
        if task.state() != state::BLOCKED {
            // The worker left RUNNING before the verdict, so a queue owns it (trace B10).
            return;
        }
        if let Some(server) = self.server(task.server_tid()) {
            server.remember_judged(index);
            // SAFETY: both are guarded, as in `push_runnable`.
            unsafe { server.task().push(List::Blocked, task) };
        }
    }

    /// For a server that is awake again: reports the block by which its slot became `slot`, if it
    /// was one.
    pub(crate) fn report_block_of_last_holder(&self, slot: Slot) {
        if slot.index() == 0 {
            return;
        }
        let run = self.record(slot.index()).run();
        if run.is_judged() && run.epoch() == slot.epoch() {
            self.report_block(slot.index(), run);
        }
    }

    /// Clears the user's `next_tid` of a worker whose spare the verdict consumed. To be done before
    /// the run word leaves SWITCHED, so that nobody finds the tid there and takes the consumed
    /// spare back.
    pub(crate) fn clear_consumed_spare(&self, index: Index, verdict: Run) {
        if verdict.phase() != Phase::Switched {
            return;
        }
        if let Some(worker) = self.guard(index, status::WORKER) {
            // While the verdict stands nobody arms the worker anew, so what `next_tid` holds is the
            // consumed spare. Its record is not asked for the tid: the spare may have ended.
            let spare = worker.task().next_tid();
            if worker.run() == verdict {
                worker.task().clear_next_tid(spare);
            }
        }
    }

    /// Statistics at the end of a block: at the worker's checkpoint, or when it is adopted. A
    /// worker that was preempted was not blocked.
    pub(crate) fn end_of_block(&self, worker: &Record) {
        let since = worker.blocked_since.load(Relaxed);
        if since == 0 {
            // A leftover has come back. If others are left, or other processes keep the CPU busy,
            // the monitor or the next preemption says so again. Relaxed: a hint.
            self.record(worker.host.load(SeqCst))
                .contended
                .store(0, Relaxed);
            return;
        }
        let length = now().saturating_sub(since);
        self.record(worker.host.load(SeqCst))
            .counts
            .longest_block_ns
            .fetch_max(length, Relaxed);
    }
}
