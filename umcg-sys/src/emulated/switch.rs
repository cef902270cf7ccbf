//! `wait`: the hand-over, for servers and for workers; `preempt` and `disarm` beside it.

use super::{
    gate::{Failure, set_running},
    record::life,
    verdict::{Judge, now},
    words::{Index, Phase, Run, Slot, Tag},
    world::{Pin, World},
};
use crate::{
    List, state,
    sync::{Deadline, Relaxed, SeqCst, fence},
};

const INVALID_STATE: Failure = (libc::EINVAL, "the state is neither RUNNING nor RUNNABLE");
const NO_TARGET: Failure = (libc::ESRCH, "no registered task has the tid in next_tid");
const A_SERVER: Failure = (libc::EBUSY, "the target is a server");

impl World {
    /// `wait` of a server.
    pub(crate) fn wait_server(&self, index: Index, deadline: Deadline) -> Result<(), Failure> {
        // Own record, alive.
        let Some(server) = self.pin(index, life::SERVER) else {
            return Err((libc::EINVAL, "not registered"));
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

        let own = server.tid.load(SeqCst);
        let next = task.next_tid();
        let mut slot = server.slot();
        if slot.tag() == Tag::Server && slot.index() != 0 {
            // News: a worker left the slot while this server was awake, and a sentinel that gave
            // it back leaves the booking, and the state, to us.
            slot = self.take_news(&server, slot);
            if next == 0 || next == own {
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
                self.watch_if_work(&server);
                if next == 0 || next == own {
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
                    Err((
                        libc::EBUSY,
                        "another worker runs in this server's slot: preempt it",
                    ))
                }
            }
            Tag::Server if next == 0 || next == own => {
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
    fn target(&self, next: u32) -> Result<Pin<'_>, Failure> {
        self.worker(next).ok_or_else(|| {
            if self.server(next).is_some() {
                A_SERVER
            } else {
                NO_TARGET
            }
        })
    }

    /// Gives the slot to the worker that the server picked.
    fn dispatch(&self, server: &Pin<'_>, from: Slot, next: u32) -> Result<(), Failure> {
        let worker = self.target(next)?;
        self.claim(&worker, server.tid.load(SeqCst))?;
        // A worker that has not reached its gate yet may have set `next_tid` for its own `wait`.
        let in_gate = worker.run().phase() == Phase::Out;
        let mut run = match self.pull(worker.index()) {
            Ok(run) => run,
            Err(failure) => {
                self.unclaim(&worker);
                return Err(failure);
            }
        };
        // Pinned until the word names it: see `forget_spare`.
        if let Some(armed) = in_gate.then(|| self.arm(server, &worker)).flatten() {
            // OUT and claimed by us. It fails only if the worker became an ordinary thread,
            // and then `give` fails too.
            if worker.step(run, run.naming(armed.index())).is_ok() {
                run = run.naming(armed.index());
            }
        }
        self.take_place(&worker, server);
        // Before the worker can run: it may look.
        server.task().clear_next_tid(next);
        if !self.give(server, from, &worker, run) {
            server.task().set_next_tid(next);
            self.unclaim(&worker);
            return Err((libc::ESRCH, "the target became an ordinary thread"));
        }
        self.rouse(server);
        // Work that waited before the slot was held has told nobody yet.
        self.watch_if_work(server);
        Ok(())
    }

    /// The worker that the server armed in the `next_tid` of `worker`, made ready to be
    /// switched to by a judge: OUT, placed, and hosted here. `None`: nothing armed, or not one
    /// that this server may arm.
    fn arm(&self, server: &Pin<'_>, worker: &Pin<'_>) -> Option<Pin<'_>> {
        let tid = worker.task().next_tid();
        if tid == 0 || tid == worker.tid.load(SeqCst) {
            return None;
        }
        let armed = self.worker(tid)?;
        let task = armed.task();
        if task.server_tid() != server.tid.load(SeqCst) || task.state() != state::RUNNABLE {
            return None;
        }
        self.pull(armed.index()).ok()?;
        self.take_place(&armed, server);
        armed.host.store(server.index(), SeqCst);
        armed.armed_in.store(worker.index(), SeqCst);
        Some(armed)
    }

    /// Sleeps until the server is RUNNING: by a waker's CAS, by its slot having become its own,
    /// or by the deadline.
    fn sleep_server(&self, server: &Pin<'_>, deadline: Deadline) -> Result<(), Failure> {
        let task = server.task();
        let mut expired = false;
        let result = loop {
            let bell = server.bell.load(SeqCst);
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
                    break Err((libc::ETIMEDOUT, "the deadline passed"));
                }
                break Ok(());
            }
            // Who rings: whoever makes the state RUNNING, whoever makes the slot SERVER.
            expired = server.bell.wait(bell, deadline)
                || deadline.is_some_and(|deadline| now() >= deadline);
        };
        // Relaxed: see the field.
        server.open.store(0, Relaxed);
        // Awake: the slot is ours again unless a worker holds it.
        server.move_slot(Slot::IDLE, Slot::SERVER);
        let slot = server.slot();
        if slot.tag() == Tag::Server && slot.index() != 0 {
            self.take_news(server, slot);
        }
        result
    }

    /// Books the block, if it was one, by which the slot became the server's, once.
    fn take_news(&self, server: &Pin<'_>, slot: Slot) -> Slot {
        self.book_after(slot);
        // Only the server leaves SERVER.
        server.move_slot(slot, Slot::SERVER);
        Slot::SERVER
    }

    /// `wait` of a worker: to its server, or to the worker in its `next_tid`.
    pub(crate) fn wait_worker(&self, index: Index, deadline: Deadline) -> Result<(), Failure> {
        let Some(worker) = self.pin(index, life::WORKER) else {
            return Err((libc::EINVAL, "not registered"));
        };
        let task = worker.task();
        let next = task.next_tid();
        let own = worker.tid.load(SeqCst);
        if deadline.is_some() {
            return self.refuse(&worker, (libc::EINVAL, "a worker waits without a deadline"));
        }
        if next == own || (next == 0 && task.server_tid() == own) {
            return self.refuse(&worker, (libc::EINVAL, "a worker cannot be its own target"));
        }
        let word = task.state_word().load(SeqCst);
        match word & state::STATE_MASK {
            // Never left RUNNING, unless somebody picked us already.
            state::RUNNING if word & state::CLAIMED == 0 => return Ok(()),
            // Claimed by a dispatcher that has not pulled us out of our slot yet, perhaps: do it
            // ourselves, the gate wants us OUT.
            state::RUNNING => {
                let _ = self.pull(index);
                return self.sleep_worker(worker);
            }
            state::RUNNABLE => {}
            // It never left RUNNING: a verdict, or the late mirror of an earlier one.
            state::BLOCKED => {
                drop(worker);
                return self.checkpoint(index);
            }
            _ => return Err(INVALID_STATE),
        }
        loop {
            let run = worker.run();
            match run.phase() {
                Phase::Acked => {
                    let host = worker.host.load(SeqCst);
                    let Some(server) = self.pin(host, life::SERVER) else {
                        return self.orphan(&worker);
                    };
                    // Published, and re-homed by a server that picked it since: what is in
                    // `next_tid` then is what that one arms it with, and no choice of its own.
                    let own = task.server_tid() == server.tid.load(SeqCst);
                    if next == 0 || next == server.tid.load(SeqCst) || !own {
                        let out = run.naming(0).to(Phase::Out);
                        if worker.step(run, out).is_ok() {
                            if own {
                                task.clear_next_tid(next);
                            }
                            self.vacate(host, index, run);
                            drop(server);
                            return self.sleep_worker(worker);
                        }
                        continue;
                    }
                    match self.switch(&worker, &server, run, next) {
                        Ok(true) => {
                            drop(server);
                            return self.sleep_worker(worker);
                        }
                        Ok(false) => {}
                        Err(failure) => {
                            drop(server);
                            return self.refuse(&worker, failure);
                        }
                    }
                }
                Phase::Judged | Phase::Switched => {
                    // Judged between `leave` and here: not a holder, wakes nobody (trace A8).
                    let host = worker.host.load(SeqCst);
                    self.settle(host, index, run);
                    self.wake_after(host, index, run);
                    self.forget_armed(index, run);
                    // While still judged: once OUT, a dispatcher may own us and arm us anew.
                    self.hand_to_server(&worker, next);
                    if worker.step(run, run.naming(0).to(Phase::Out)).is_ok() {
                        self.announce(&worker);
                    }
                }
                Phase::Adopting => {
                    self.hand_to_server(&worker, next);
                    if worker.step(run, run.to(Phase::Out)).is_ok() {
                        self.announce(&worker);
                    }
                }
                // Here without a slot from the start (`try_checkpoint`), as one without work: who
                // is in the slot need not be watched for it. Or pulled out by the dispatcher that
                // picked us meanwhile.
                Phase::Out => {
                    if let Some(server) = self.server(task.server_tid()) {
                        self.poke(&server);
                    }
                    return self.sleep_worker(worker);
                }
                // Picked.
                Phase::Dispatched | Phase::Relieving => return self.sleep_worker(worker),
                Phase::Plain => return self.orphan(&worker),
            }
        }
    }

    /// From the slot's holder straight to another worker. `Ok(false)`: the caller was judged
    /// meanwhile, nothing was switched.
    fn switch(
        &self,
        worker: &Pin<'_>,
        server: &Pin<'_>,
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
        let target_run = match self.pull(target.index()) {
            Ok(run) => run,
            Err(failure) => {
                self.unclaim(&target);
                return or_moved_on(failure);
            }
        };
        self.take_place(&target, server);
        if worker.step(run, run.naming(0).to(Phase::Out)).is_err() {
            self.unclaim(&target);
            return Ok(false);
        }
        worker.task().clear_next_tid(next);
        let from = Slot::held(worker.index(), run.epoch());
        if !self.give(server, from, &target, target_run) {
            // The server is going away, or the target's: both threads become ordinary ones.
            self.unclaim(&target);
            self.wake_server(server);
        }
        self.watch(server);
        Ok(true)
    }

    /// A worker that lost its slot before its `wait` may have queued itself after its server went
    /// idle: the server looks again. If somebody runs in its slot he is watched: he was
    /// dispatched before this one was there to wait for him.
    fn announce(&self, worker: &Pin<'_>) {
        if let Some(server) = self.server(worker.task().server_tid()) {
            if self.poke(&server) {
                self.watch(&server);
            }
        }
    }

    /// A target that a worker chose and could not switch to, because it lost its slot, becomes
    /// a runnable event of its server: the choice is not lost.
    fn hand_to_server(&self, worker: &Pin<'_>, next: u32) {
        if next == 0 || !worker.task().clear_next_tid(next) {
            return;
        }
        self.hand_over(next);
    }

    /// A runnable event for a worker that the caller owns, by its tid.
    pub(crate) fn hand_over(&self, tid: u32) {
        let Some(target) = self.worker(tid) else {
            return;
        };
        let Some(server) = self.server(target.task().server_tid()) else {
            return;
        };
        if target.task().state() == state::RUNNABLE && self.push_runnable(&server, &target) {
            self.watch(&server);
        }
    }

    /// Through the gate. The pin on the own record is not kept while asleep.
    fn sleep_worker(&self, worker: Pin<'_>) -> Result<(), Failure> {
        let index = worker.index();
        drop(worker);
        self.gate(index)
    }

    /// `wait` with arguments that mean nothing.
    pub(crate) fn refuse_wait(&self, index: Index, failure: Failure) -> Result<(), Failure> {
        if let Some(worker) = self.pin(index, life::WORKER) {
            return self.refuse(&worker, failure);
        }
        // SAFETY: own record, alive.
        let server = unsafe { self.record(index).user() };
        let _ = server.transition(state::RUNNABLE, state::RUNNING);
        Err(failure)
    }

    /// Back to RUNNING with an error; if somebody picked the worker meanwhile, through the gate.
    fn refuse(&self, worker: &Pin<'_>, failure: Failure) -> Result<(), Failure> {
        let task = worker.task();
        if task.transition(state::RUNNABLE, state::RUNNING).is_err()
            && task.state_word().load(SeqCst) & state::CLAIMED != 0
        {
            let _ = self.pull(worker.index());
            self.gate(worker.index())?;
        }
        Err(failure)
    }

    /// The slot's server is gone: the worker is an ordinary thread from here on.
    fn orphan(&self, worker: &Pin<'_>) -> Result<(), Failure> {
        loop {
            let run = worker.run();
            match run.phase() {
                Phase::Dispatched | Phase::Relieving => return self.gate(worker.index()),
                _ if worker.step(run, run.naming(0).to(Phase::Plain)).is_ok() => break,
                _ => {}
            }
        }
        set_running(worker.task());
        Err((libc::ESRCH, "the server of this worker is gone"))
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
        self.wake(tid)
            .map_err(|_| (libc::ESRCH, "no registered task has this tid"))
    }

    /// `wake`: ends the `wait` of a server.
    pub(crate) fn wake(&self, server_tid: u32) -> Result<(), Failure> {
        let Some(server) = self.server(server_tid) else {
            return Err((libc::ESRCH, "no registered server has this tid"));
        };
        // Before the state, so that no worker takes the slot of a server that is on its way.
        server.move_slot(Slot::IDLE, Slot::SERVER);
        self.wake_server(&server);
        Ok(())
    }

    /// The worker that holds the slot of a server.
    pub(crate) fn current(&self, server_tid: u32) -> Option<u32> {
        let slot = self.server(server_tid)?.slot();
        if !slot.is_held() {
            return None;
        }
        let tid = self.record(slot.index()).tid.load(SeqCst);
        (tid != 0).then_some(tid)
    }

    /// Takes the armed worker back, by the CAS that a verdict would consume it with.
    ///
    /// The server (at a late event) and the worker itself may come here at the same time, and one
    /// of them gets it. The word names the worker itself while `next_tid` is still to be
    /// cleared: without that mark the other would read "names nobody, `next_tid` set", which is
    /// what an arming that never took place leaves behind, and both would own the spare.
    pub(crate) fn disarm(&self, tid: u32) -> Option<u32> {
        let worker = self.worker(tid)?;
        let own = worker.index();
        loop {
            let run = worker.run();
            let host = worker.host.load(SeqCst);
            match run.phase() {
                // The index of RELIEVING is not an armed worker.
                Phase::Relieving => return None,
                // Consumed. That is carried out here and the verdict made a plain one: a worker
                // that left RUNNING with this standing could be picked and armed anew, and
                // whoever carried it out then would clear the new `next_tid` for the old.
                Phase::Switched => {
                    self.settle(host, own, run);
                    self.wake_after(host, own, run);
                    self.forget_armed(own, run);
                    if worker.step(run, run.naming(0).to(Phase::Judged)).is_ok() {
                        return None;
                    }
                }
                _ if run.index() == own => {
                    // The other one is at it. The caller may be a worker that goes on to `wait`,
                    // where a stale `next_tid` would be its target.
                    worker.task().clear_next_tid(worker.task().next_tid());
                    return None;
                }
                _ if run.index() != 0 => {
                    if worker.step(run, run.naming(own)).is_ok() {
                        let armed = self.record(run.index()).tid.load(SeqCst);
                        worker.task().clear_next_tid(armed);
                        self.unmark(own, run.naming(own));
                        return Some(armed);
                    }
                }
                _ => {
                    // Set, and not yet dispatched with; or left over from a verdict that did not
                    // consume it.
                    let armed = worker.task().next_tid();
                    let taken = armed != 0 && worker.task().clear_next_tid(armed);
                    return taken.then_some(armed);
                }
            }
        }
    }

    /// Ends the mark of a `disarm`, unless the worker has dropped it by leaving its slot. A later
    /// epoch has the mark of a later disarm: nobody is armed twice in one.
    pub(crate) fn unmark(&self, index: Index, marked: Run) {
        let worker = self.record(index);
        loop {
            let run = worker.run();
            if run.epoch() != marked.epoch()
                || run.index() != index
                || matches!(run.phase(), Phase::Relieving | Phase::Switched)
                || worker.step(run, run.naming(0)).is_ok()
            {
                return;
            }
        }
    }
}
