//! `wait`: how a server and a worker give up the CPU.

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
    /// `wait` of a server: dispatches the worker in its `next_tid`, or idles.
    pub(crate) fn wait_server(&self, own: &OwnTask<'_>, deadline: Deadline) -> Result<(), Failure> {
        let Some(server) = self.guard(own.index(), status::SERVER) else {
            return Err(NOT_REGISTERED);
        };
        let task = server.task();
        match task.state() {
            state::RUNNING => return Ok(()),
            state::RUNNABLE => {}
            _ => return Err(INVALID_STATE),
        }
        // Clears the flag, fences, then looks at the list. `push_runnable` pushes, then sets the
        // flag. So the flag is not 0 while the list has an event from before this.
        server.runnable_waiting.store(0, SeqCst);
        fence(SeqCst);
        if task.has_events(List::Runnable) {
            server.runnable_waiting.store(1, SeqCst);
        }

        let own_tid = server.tid.load(SeqCst);
        let next = task.next_tid();
        let mut slot = server.slot();
        if slot.tag() == Tag::Server && slot.index() != 0 {
            // A worker left the slot while this server was awake. If a sentinel gave the slot back,
            // it left the report of the block and the user state to us. That is an event which this
            // server has not seen, so it does not idle on it.
            slot = self.report_last_holder(&server, slot);
            if next == 0 || next == own_tid {
                let _ = task.transition(state::RUNNABLE, state::RUNNING);
                return Ok(());
            }
        }
        let outcome = match slot.tag() {
            // A worker is in the slot: the server woke by its deadline or an outside waker, or the
            // worker took the idle slot by itself. Never dispatch a second one (trace A7).
            Tag::Held => {
                // If the worker took the idle slot by itself, nobody has told the monitor. Queued
                // work that has woken this server wakes nobody a second time.
                self.notify_monitor_if_work(&server);
                if next == 0 || next == own_tid {
                    Ok(())
                } else if self.record(slot.index()).tid.load(SeqCst) == next {
                    // The server picked the holder. Either the holder runs, as the server wants; or
                    // it has left RUNNING, was published, and has not reached its own `wait` yet.
                    // Then the pick stays the server's, and that `wait` wakes this server.
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
                // From here on an unblocked worker may take the slot by itself. The CAS cannot
                // fail, because only the server leaves SERVER.
                server.move_slot(slot, Slot::IDLE);
                Ok(())
            }
            Tag::Server => self.dispatch(&server, slot, next),
            Tag::Idle | Tag::Dead => unreachable!("a server that is awake has {slot:?}"),
        };
        if let Err(failure) = outcome {
            // Fails if an event has made the server RUNNING meanwhile, with the same result.
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

    /// Gives the slot to the worker that the server picked, together with the spare that the server
    /// armed in it.
    fn dispatch(&self, server: &RecordGuard<'_>, from: Slot, next: u32) -> Result<(), Failure> {
        let worker = self.target(next)?;
        self.claim(&worker, server.tid.load(SeqCst))?;
        // A worker that has not reached its gate yet may have set `next_tid` for its own `wait`.
        // That is no spare.
        let in_gate = worker.run().phase() == Phase::Out;
        let mut run = match self.take_out(worker.index()) {
            Ok(run) => run,
            Err(failure) => {
                self.unclaim(&worker);
                return Err(failure);
            }
        };
        // The guard on the spare is held until the run word names it: see `forget_as_spare`.
        if let Some(spare) = in_gate.then(|| self.arm(server, &worker)).flatten() {
            // The worker is OUT and claimed by us, so this fails only if the worker became an
            // ordinary thread, and then `give_slot` fails too.
            if worker.step(run, run.naming(spare.index())).is_ok() {
                run = run.naming(spare.index());
            }
        }
        self.follow_server(&worker, server);
        // Before the worker can run, since it may look at the server's `next_tid`.
        server.task().clear_next_tid(next);
        if !self.give_slot(server, from, &worker, run) {
            server.task().set_next_tid(next);
            self.unclaim(&worker);
            return Err(TARGET_GONE);
        }
        self.notify_sentinel(server);
        // Work that was queued before the slot was held has not woken the monitor.
        self.notify_monitor_if_work(server);
        Ok(())
    }

    /// Sleeps until the server is RUNNING: because a waker made it so, because its slot became its
    /// own, or because the deadline passed.
    fn sleep_server(&self, server: &RecordGuard<'_>, deadline: Deadline) -> Result<(), Failure> {
        let task = server.task();
        let mut expired = false;
        let result = loop {
            let seen = server.wake_word.load(SeqCst);
            // Reads the wake word, fences, then reads the user state and the slot. A waker changes
            // those first and the wake word afterwards (`wake_to_recheck`). So either this thread
            // sees the change, or the futex sees another wake word and does not sleep.
            fence(SeqCst);
            if task.state() != state::RUNNABLE {
                break Ok(());
            }
            if server.slot().tag() == Tag::Server {
                // A sentinel gave the slot back, and left the user state to us.
                let _ = task.transition(state::RUNNABLE, state::RUNNING);
                break Ok(());
            }
            if expired {
                if task.transition(state::RUNNABLE, state::RUNNING).is_ok() {
                    break Err(DEADLINE_PASSED);
                }
                break Ok(());
            }
            // Ended by the thread that makes the user state RUNNING or the slot SERVER.
            expired = server.wake_word.wait(seen, deadline)
                || deadline.is_some_and(|deadline| now() >= deadline);
        };
        // Relaxed: it orders nothing, see the field.
        server.take_over_allowed.store(0, Relaxed);
        // The server is awake, so the slot is its own again, unless a worker holds it.
        server.move_slot(Slot::IDLE, Slot::SERVER);
        let slot = server.slot();
        if slot.tag() == Tag::Server && slot.index() != 0 {
            self.report_last_holder(server, slot);
        }
        result
    }

    /// Reports the block by which the slot became the server's, if it was one, and forgets the last
    /// holder, so that the block is reported here once. Returns the slot as it is then.
    fn report_last_holder(&self, server: &RecordGuard<'_>, slot: Slot) -> Slot {
        self.report_block_of_last_holder(slot);
        // Cannot fail: only the server leaves SERVER.
        server.move_slot(slot, Slot::SERVER);
        Slot::SERVER
    }

    /// `wait` of a worker: gives the slot to its server, or to the worker in its `next_tid`.
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
            // The worker never left RUNNING.
            state::RUNNING if word & state::CLAIMED == 0 => return Ok(()),
            // A dispatcher has claimed the worker and perhaps not yet taken it out of its slot. The
            // worker does that itself, because in its gate it must be OUT.
            state::RUNNING => {
                let _ = self.take_out(index);
                return self.sleep_worker(own, worker);
            }
            state::RUNNABLE => {}
            // The worker never left RUNNING either: it was judged, or a late report of an earlier
            // verdict says so.
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
                    // If another server has picked the published worker and changed its
                    // `server_tid`, then `next_tid` is the spare that this other server arms it
                    // with, and no choice of the worker's.
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
                    // Judged after it left RUNNING: it holds no slot, and switches to nobody
                    // (trace A8).
                    let host = worker.host.load(SeqCst);
                    self.carry_out_verdict(host, index, run);
                    // Before the step to OUT: after it a dispatcher may own the worker and arm it.
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
                // Either the worker came here without a slot, as an idle one (`try_checkpoint`);
                // then the monitor need not watch the holder of the slot on its behalf. Or the
                // dispatcher that picked it meanwhile has taken it out of its slot.
                Phase::Out => {
                    if let Some(server) = self.server(task.server_tid()) {
                        self.notify_server(&server);
                    }
                    return self.sleep_worker(own, worker);
                }
                // Picked and dispatched meanwhile.
                Phase::Dispatched | Phase::Successor => return self.sleep_worker(own, worker),
                Phase::Plain => return self.server_gone(own),
            }
        }
    }

    /// Hands the slot from its holder, the calling worker, directly to the worker `next`.
    /// `Ok(false)`: the caller has lost the slot meanwhile, and nothing was switched.
    pub(crate) fn hand_off(
        &self,
        worker: &RecordGuard<'_>,
        server: &RecordGuard<'_>,
        run: Run,
        next: u32,
    ) -> Result<bool, Failure> {
        // If the caller was judged or picked meanwhile, a verdict may have consumed the target. An
        // error would say that the caller still owns the target.
        let unless_moved_on = |failure| {
            if worker.run() == run {
                Err(failure)
            } else {
                Ok(false)
            }
        };
        let target = match self.target(next) {
            Ok(target) => target,
            Err(failure) => return unless_moved_on(failure),
        };
        if let Err(failure) = self.claim(&target, server.tid.load(SeqCst)) {
            return unless_moved_on(failure);
        }
        let target_run = match self.take_out(target.index()) {
            Ok(run) => run,
            Err(failure) => {
                self.unclaim(&target);
                return unless_moved_on(failure);
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
            // This server, or the earlier one of the target, is going away. The caller and the
            // target become ordinary threads.
            self.unclaim(&target);
            self.wake_server(server);
        }
        self.notify_monitor();
        Ok(true)
    }

    /// For a worker that lost its slot before its `wait`. It may have queued itself after its
    /// server went idle, so the server has to look again. If another worker holds the server's
    /// slot, that one was dispatched when this one did not wait yet, so the monitor has to watch it
    /// now.
    fn notify_own_server(&self, worker: &RecordGuard<'_>) {
        if let Some(server) = self.server(worker.task().server_tid()) {
            if self.notify_server(&server) {
                self.notify_monitor();
            }
        }
    }

    /// For a worker that chose a target and cannot switch to it, because it lost its slot: the
    /// target becomes a runnable event of its server, so the choice is not lost.
    fn return_choice(&self, worker: &RecordGuard<'_>, next: u32) {
        if next == 0 || !worker.task().clear_next_tid(next) {
            return;
        }
        self.requeue(next);
    }

    /// Gives a worker that the caller owns to that worker's server, by a runnable event.
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

    /// Sleeps in the gate, after giving up the guard on the own record: no guard is held during a
    /// sleep.
    fn sleep_worker(&self, own: &OwnTask<'_>, worker: RecordGuard<'_>) -> Result<(), Failure> {
        drop(worker);
        self.sleep_in_gate(own)
    }

    /// Ends a `wait` whose arguments are refused: the caller is RUNNING, with this error.
    pub(crate) fn refuse_wait(&self, own: &OwnTask<'_>, failure: Failure) -> Result<(), Failure> {
        if own.status.load(Relaxed) == status::WORKER {
            return self.refuse(own, failure);
        }
        let _ = own.task().transition(state::RUNNABLE, state::RUNNING);
        Err(failure)
    }

    /// Makes the calling worker RUNNING again, with an error. If somebody has picked it meanwhile
    /// it goes through its gate first.
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

    /// The server whose slot the calling worker held is gone: the worker is an ordinary thread from
    /// here on.
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
