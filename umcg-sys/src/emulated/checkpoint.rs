//! Where an unblocked worker stops: the user-side half of "return to user mode".

use super::{
    gate::{Failure, force_state, set_running},
    record::{Counts, life},
    verdict::now,
    words::{Index, Phase, Run, Slot, Tag},
    world::World,
};
use crate::{state, sync::SeqCst};

impl World {
    /// Returns at once to a worker that holds its slot; otherwise the worker queues up behind
    /// its server's choice and returns when it is picked.
    ///
    /// # Errors
    /// ESRCH: the server is gone; an ordinary thread from here on.
    pub(crate) fn checkpoint(&self, index: Index) -> Result<(), Failure> {
        let worker = self.record(index);
        loop {
            let run = worker.run();
            // Ours while we are in no queue.
            let host = worker.host.load(SeqCst);
            match run.phase() {
                Phase::Acked => {
                    // SAFETY: the worker's own thread.
                    let task = unsafe { worker.user() };
                    // A late mirror of an earlier verdict, see `book`.
                    if task.state() == state::BLOCKED {
                        let _ = task.transition(state::BLOCKED, state::RUNNING);
                    }
                    return Ok(());
                }
                Phase::Judged | Phase::Switched | Phase::Adopting if self.has_left(index) => {
                    return Ok(());
                }
                Phase::Judged | Phase::Switched => {
                    self.settle(host, index, run);
                    self.book(index, run);
                    self.wake_after(host, index, run);
                    self.forget_armed(index, run);
                    let out = run.naming(0).to(Phase::Out);
                    if worker.step(run, out).is_ok() {
                        self.end_of_block(index);
                        return self.unblock(index, out);
                    }
                }
                Phase::Adopting => {
                    let out = run.to(Phase::Out);
                    if worker.step(run, out).is_ok() {
                        return self.unblock(index, out);
                    }
                }
                Phase::Plain => {
                    // SAFETY: the worker's own thread.
                    set_running(unsafe { worker.user() });
                    return Err((libc::ESRCH, "the server of this worker is gone"));
                }
                // Between `leave` and `wait`, or on the way in: nothing to stop for.
                Phase::Out | Phase::Dispatched | Phase::Relieving => return Ok(()),
            }
        }
    }

    /// Between `leave` and `wait` somebody else owns the worker already: it must not queue up a
    /// second time, nor unregister. Not by "is not RUNNING": a late mirror may say BLOCKED.
    pub(crate) fn has_left(&self, index: Index) -> bool {
        // SAFETY: the worker's own thread.
        let task = unsafe { self.record(index).user() };
        let word = task.state_word().load(SeqCst) & !state::USER_MASK;
        word == state::RUNNABLE || word == state::RUNNING | state::CLAIMED
    }

    /// The worker, OUT by `run`, wants a slot again: takes its idle server's without a switch,
    /// or queues up and sleeps.
    pub(crate) fn unblock(&self, index: Index, run: Run) -> Result<(), Failure> {
        let worker = self.record(index);
        // SAFETY: the worker's own thread.
        let task = unsafe { worker.user() };
        let Some(server) = self.server(task.server_tid()) else {
            let _ = worker.step(run, run.to(Phase::Plain));
            set_running(task);
            return Err((libc::ESRCH, "the server of this worker is gone"));
        };
        self.check_place(worker, &server);
        let slot = server.slot();
        if slot.tag() == Tag::Idle {
            worker.host.store(server.index(), SeqCst);
            let epoch = run.epoch() + 1;
            if server.move_slot(slot, Slot::held(index, epoch)) {
                Counts::bump(&server.counts.self_dispatched);
                self.take_place(worker, &server);
                let acked = Run::new(epoch, 0, Phase::Acked);
                set_running(task);
                // A helper may have completed this dispatch for us, and one that was stopped since
                // an earlier switch to this worker even as RELIEVING: it found us OUT and the slot
                // naming us. Whatever it says, the dispatch is ours to acknowledge. The server is
                // pinned, so nobody makes us PLAIN.
                let mut now = run;
                while worker.step(now, acked).is_err() {
                    now = worker.run();
                    debug_assert_eq!(now.epoch(), epoch, "nobody else dispatches us: {now:?}");
                }
                self.rouse(&server);
                return Ok(());
            }
        }
        self.queue_up(index)?;
        drop(server);
        self.gate(index)
    }

    /// RUNNABLE, and a runnable event on the server's list. The worker is OUT.
    pub(crate) fn queue_up(&self, index: Index) -> Result<(), Failure> {
        // Own record, alive: a pin for uniformity of what `push_runnable` asks for.
        let Some(worker) = self.pin(index, life::WORKER) else {
            return Err((libc::EINVAL, "not registered"));
        };
        let task = worker.task();
        force_state(task, state::RUNNABLE);
        // The gate finds out if the server is gone.
        if let Some(server) = self.server(task.server_tid()) {
            if self.push_runnable(&server, &worker) {
                self.watch(&server);
            }
        }
        Ok(())
    }

    /// Statistics at the end of a block.
    fn end_of_block(&self, index: Index) {
        let worker = self.record(index);
        let since = worker
            .blocked_since
            .load(core::sync::atomic::Ordering::Relaxed);
        let length = now().saturating_sub(since);
        self.record(worker.host.load(SeqCst))
            .counts
            .longest_block_ns
            .fetch_max(length, core::sync::atomic::Ordering::Relaxed);
    }
}
