//! `wait`: the hand-over, for servers and for workers; `preempt` and `disarm` beside it.

use super::{
    clock::now,
    failure::{
        DEADLINE_PASSED, Failure, INVALID_STATE, NO_TARGET, NOT_REGISTERED, OWN_TARGET,
        SERVER_GONE, SLOT_HELD, TARGET_GONE, TARGET_IS_SERVER, WORKER_WITH_DEADLINE,
    },
    packed::{Phase, Run, Slot, Tag},
    record::status,
    registry::{OwnTask, RecordGuard, Registry},
    user_state::set_user_running,
};
use crate::{
    List, state,
    sync::{Deadline, Relaxed, SeqCst, fence},
};

impl Registry {
    /// `wait` of a server.
    pub(crate) fn wait_server(&self, own: &OwnTask<'_>, deadline: Deadline) -> Result<(), Failure> {
        // Own record, alive.
        let Some(server) = self.guard(own.index(), status::SERVER) else {
            return Err(NOT_REGISTERED);
        };
        let task = server.task();
        match task.state() {
            state::RUNNING => return Ok(()),
            state::RUNNABLE => {}
            _ => return Err(INVALID_STATE),
        }
        // Clear, then look: pairs with push-then-set in `push_runnable`.
        server.runnable_waiting.store(0, SeqCst);
        fence(SeqCst);
        if task.has_events(List::Runnable) {
            server.runnable_waiting.store(1, SeqCst);
        }

        let own_tid = server.tid.load(SeqCst);
        let next = task.next_tid();
        let mut slot = server.slot();
        if slot.tag() == Tag::Server && slot.index() != 0 {
            // News: a worker left the slot while this server was awake, and a sentinel that gave
            // it back leaves the booking, and the state, to us.
            slot = self.report_last_holder(&server, slot);
            if next == 0 || next == own_tid {
                let _ = task.transition(state::RUNNABLE, state::RUNNING);
                return Ok(());
            }
        }
        let outcome = match slot.tag() {
            // A worker is in the slot (a deadline passed, an outside waker, or it took the idle
            // slot): never a second one (trace A7).
            Tag::Held => {
                // It may have taken the idle slot by itself, and work that woke us wakes nobody
                // again: who watches is told here.
                self.notify_monitor_if_work(&server);
                if next == 0 || next == own_tid {
                    Ok(())
                } else if self.record(slot.index()).tid.load(SeqCst) == next {
                    // It runs already: that is what was wanted. Or it has left, was published,
                    // and has not reached its own `wait`: then the pick stays the caller's, and
                    // that `wait` wakes us.
                    let runs = self
                        .worker(next)
                        .is_some_and(|holder| holder.task().state() != state::RUNNABLE);
                    if runs {
                        task.clear_next_tid(next);
                    }
                    Ok(())
                } else {
                    Err(SLOT_HELD)
                }
            }
            Tag::Server if next == 0 || next == own_tid => {
                // From here on an unblocked worker may take the slot by itself. Only the server
                // leaves SERVER, so this cannot fail.
                server.move_slot(slot, Slot::IDLE);
                Ok(())
            }
            Tag::Server => self.dispatch(&server, slot, next),
            Tag::Idle | Tag::Dead => unreachable!("a server that is awake has {slot:?}"),
        };
        if let Err(failure) = outcome {
            // An event may have made it RUNNING meanwhile: the same.
            let _ = task.transition(state::RUNNABLE, state::RUNNING);
            return Err(failure);
        }
        self.sleep_server(&server, deadline)
    }

    /// The worker that `next_tid` names.
    fn target(&self, next: u32) -> Result<RecordGuard<'_>, Failure> {
        self.worker(next).ok_or_else(|| {
            if self.server(next).is_some() {
                TARGET_IS_SERVER
            } else {
                NO_TARGET
            }
        })
    }

    /// Gives the slot to the worker that the server picked.
    fn dispatch(&self, server: &RecordGuard<'_>, from: Slot, next: u32) -> Result<(), Failure> {
        let worker = self.target(next)?;
        self.claim(&worker, server.tid.load(SeqCst))?;
        // A worker that has not reached its gate yet may have set `next_tid` for its own `wait`.
        let in_gate = worker.run().phase() == Phase::Out;
        let mut run = match self.take_out(worker.index()) {
            Ok(run) => run,
            Err(failure) => {
                self.unclaim(&worker);
                return Err(failure);
            }
        };
        // Pinned until the word names it: see `forget_as_spare`.
        if let Some(armed) = in_gate.then(|| self.arm(server, &worker)).flatten() {
            // OUT and claimed by us. It fails only if the worker became an ordinary thread,
            // and then `give_slot` fails too.
            if worker.step(run, run.naming(armed.index())).is_ok() {
                run = run.naming(armed.index());
            }
        }
        self.follow_server(&worker, server);
        // Before the worker can run: it may look.
        server.task().clear_next_tid(next);
        if !self.give_slot(server, from, &worker, run) {
            server.task().set_next_tid(next);
            self.unclaim(&worker);
            return Err(TARGET_GONE);
        }
        self.notify_sentinel(server);
        // Work that waited before the slot was held has told nobody yet.
        self.notify_monitor_if_work(server);
        Ok(())
    }

    /// Sleeps until the server is RUNNING: by a waker's CAS, by its slot having become its own,
    /// or by the deadline.
    fn sleep_server(&self, server: &RecordGuard<'_>, deadline: Deadline) -> Result<(), Failure> {
        let task = server.task();
        let mut expired = false;
        let result = loop {
            let bell = server.wake_word.load(SeqCst);
            // Bell, then what it is rung for; wakers change that first and ring afterwards.
            fence(SeqCst);
            if task.state() != state::RUNNABLE {
                break Ok(());
            }
            if server.slot().tag() == Tag::Server {
                // A sentinel gave the slot back and left the user word to us.
                let _ = task.transition(state::RUNNABLE, state::RUNNING);
                break Ok(());
            }
            if expired {
                if task.transition(state::RUNNABLE, state::RUNNING).is_ok() {
                    break Err(DEADLINE_PASSED);
                }
                break Ok(());
            }
            // Who rings: whoever makes the state RUNNING, whoever makes the slot SERVER.
            expired = server.wake_word.wait(bell, deadline)
                || deadline.is_some_and(|deadline| now() >= deadline);
        };
        // Relaxed: see the field.
        server.take_over_allowed.store(0, Relaxed);
        // Awake: the slot is ours again unless a worker holds it.
        server.move_slot(Slot::IDLE, Slot::SERVER);
        let slot = server.slot();
        if slot.tag() == Tag::Server && slot.index() != 0 {
            self.report_last_holder(server, slot);
        }
        result
    }

    /// Books the block, if it was one, by which the slot became the server's, once.
    fn report_last_holder(&self, server: &RecordGuard<'_>, slot: Slot) -> Slot {
        self.report_block_of_last_holder(slot);
        // Only the server leaves SERVER.
        server.move_slot(slot, Slot::SERVER);
        Slot::SERVER
    }

    /// `wait` of a worker: to its server, or to the worker in its `next_tid`.
    pub(crate) fn wait_worker(&self, own: &OwnTask<'_>, deadline: Deadline) -> Result<(), Failure> {
        let index = own.index();
        let Some(worker) = self.guard(index, status::WORKER) else {
            return Err(NOT_REGISTERED);
        };
        let task = worker.task();
        let next = task.next_tid();
        let own_tid = worker.tid.load(SeqCst);
        if deadline.is_some() {
            return self.refuse(own, WORKER_WITH_DEADLINE);
        }
        if next == own_tid || (next == 0 && task.server_tid() == own_tid) {
            return self.refuse(own, OWN_TARGET);
        }
        let word = task.state_word().load(SeqCst);
        match word & state::STATE_MASK {
            // Never left RUNNING, unless somebody picked us already.
            state::RUNNING if word & state::CLAIMED == 0 => return Ok(()),
            // Claimed by a dispatcher that has not pulled us out of our slot yet, perhaps: do it
            // ourselves, the gate wants us OUT.
            state::RUNNING => {
                let _ = self.take_out(index);
                return self.sleep_worker(own, worker);
            }
            state::RUNNABLE => {}
            // It never left RUNNING: a verdict, or the late mirror of an earlier one.
            state::BLOCKED => {
                drop(worker);
                return self.checkpoint(own);
            }
            _ => return Err(INVALID_STATE),
        }
        loop {
            let run = worker.run();
            match run.phase() {
                Phase::Acked => {
                    let host = worker.host.load(SeqCst);
                    let Some(server) = self.guard(host, status::SERVER) else {
                        return self.server_gone(own);
                    };
                    // Published, and re-homed by a server that picked it since: what is in
                    // `next_tid` then is what that one arms it with, and no choice of its own.
                    let hosted_here = task.server_tid() == server.tid.load(SeqCst);
                    if next == 0 || next == server.tid.load(SeqCst) || !hosted_here {
                        let out = run.naming(0).to(Phase::Out);
                        if worker.step(run, out).is_ok() {
                            if hosted_here {
                                task.clear_next_tid(next);
                            }
                            self.release_slot(host, index, run);
                            drop(server);
                            return self.sleep_worker(own, worker);
                        }
                        continue;
                    }
                    match self.hand_off(&worker, &server, run, next) {
                        Ok(true) => {
                            drop(server);
                            return self.sleep_worker(own, worker);
                        }
                        Ok(false) => {}
                        Err(failure) => {
                            drop(server);
                            return self.refuse(own, failure);
                        }
                    }
                }
                Phase::Judged | Phase::Switched => {
                    // Judged between `leave` and here: not a holder, wakes nobody (trace A8).
                    let host = worker.host.load(SeqCst);
                    self.carry_out_verdict(host, index, run);
                    // While still judged: once OUT, a dispatcher may own us and arm us anew.
                    self.return_choice(&worker, next);
                    if worker.step(run, run.naming(0).to(Phase::Out)).is_ok() {
                        self.notify_own_server(&worker);
                    }
                }
                Phase::Adopting => {
                    self.return_choice(&worker, next);
                    if worker.step(run, run.to(Phase::Out)).is_ok() {
                        self.notify_own_server(&worker);
                    }
                }
                // Here without a slot from the start (`try_checkpoint`), as one without work: who
                // is in the slot need not be watched for it. Or pulled out by the dispatcher that
                // picked us meanwhile.
                Phase::Out => {
                    if let Some(server) = self.server(task.server_tid()) {
                        self.notify_server(&server);
                    }
                    return self.sleep_worker(own, worker);
                }
                // Picked.
                Phase::Dispatched | Phase::Successor => return self.sleep_worker(own, worker),
                Phase::Plain => return self.server_gone(own),
            }
        }
    }

    /// From the slot's holder straight to another worker. `Ok(false)`: the caller was judged
    /// meanwhile, nothing was switched.
    fn hand_off(
        &self,
        worker: &RecordGuard<'_>,
        server: &RecordGuard<'_>,
        run: Run,
        next: u32,
    ) -> Result<bool, Failure> {
        // Judged or picked meanwhile: then the target may have been consumed, and an error would
        // say that the caller still owns it.
        let or_moved_on = |failure| {
            if worker.run() == run {
                Err(failure)
            } else {
                Ok(false)
            }
        };
        let target = match self.target(next) {
            Ok(target) => target,
            Err(failure) => return or_moved_on(failure),
        };
        if let Err(failure) = self.claim(&target, server.tid.load(SeqCst)) {
            return or_moved_on(failure);
        }
        let target_run = match self.take_out(target.index()) {
            Ok(run) => run,
            Err(failure) => {
                self.unclaim(&target);
                return or_moved_on(failure);
            }
        };
        self.follow_server(&target, server);
        if worker.step(run, run.naming(0).to(Phase::Out)).is_err() {
            self.unclaim(&target);
            return Ok(false);
        }
        worker.task().clear_next_tid(next);
        let from = Slot::held(worker.index(), run.epoch());
        if !self.give_slot(server, from, &target, target_run) {
            // The server is going away, or the target's: both threads become ordinary ones.
            self.unclaim(&target);
            self.wake_server(server);
        }
        self.notify_monitor();
        Ok(true)
    }

    /// A worker that lost its slot before its `wait` may have queued itself after its server went
    /// idle: the server looks again. If somebody runs in its slot he is watched: he was
    /// dispatched before this one was there to wait for him.
    fn notify_own_server(&self, worker: &RecordGuard<'_>) {
        if let Some(server) = self.server(worker.task().server_tid()) {
            if self.notify_server(&server) {
                self.notify_monitor();
            }
        }
    }

    /// A target that a worker chose and could not switch to, because it lost its slot, becomes
    /// a runnable event of its server: the choice is not lost.
    fn return_choice(&self, worker: &RecordGuard<'_>, next: u32) {
        if next == 0 || !worker.task().clear_next_tid(next) {
            return;
        }
        self.requeue(next);
    }

    /// A runnable event for a worker that the caller owns, by its tid.
    pub(crate) fn requeue(&self, tid: u32) {
        let Some(target) = self.worker(tid) else {
            return;
        };
        let Some(server) = self.server(target.task().server_tid()) else {
            return;
        };
        if target.task().state() == state::RUNNABLE && self.push_runnable(&server, &target) {
            self.notify_monitor();
        }
    }

    /// Through the gate. The pin on the own record is not kept while asleep.
    fn sleep_worker(&self, own: &OwnTask<'_>, worker: RecordGuard<'_>) -> Result<(), Failure> {
        drop(worker);
        self.sleep_in_gate(own)
    }

    /// `wait` with arguments that mean nothing.
    pub(crate) fn refuse_wait(&self, own: &OwnTask<'_>, failure: Failure) -> Result<(), Failure> {
        if own.status.load(Relaxed) == status::WORKER {
            return self.refuse(own, failure);
        }
        let _ = own.task().transition(state::RUNNABLE, state::RUNNING);
        Err(failure)
    }

    /// Back to RUNNING with an error; if somebody picked the worker meanwhile, through the gate.
    fn refuse(&self, own: &OwnTask<'_>, failure: Failure) -> Result<(), Failure> {
        let task = own.task();
        if task.transition(state::RUNNABLE, state::RUNNING).is_err()
            && task.state_word().load(SeqCst) & state::CLAIMED != 0
        {
            let _ = self.take_out(own.index());
            self.sleep_in_gate(own)?;
        }
        Err(failure)
    }

    /// The slot's server is gone: the worker is an ordinary thread from here on.
    fn server_gone(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        loop {
            let run = own.run();
            match run.phase() {
                Phase::Dispatched | Phase::Successor => return self.sleep_in_gate(own),
                _ if own.step(run, run.naming(0).to(Phase::Plain)).is_ok() => break,
                _ => {}
            }
        }
        set_user_running(own.task());
        Err(SERVER_GONE)
    }
}
