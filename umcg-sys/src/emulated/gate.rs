//! Giving a slot to a worker, and the gate in which a worker without a slot sleeps.
//!
//! A dispatch is one CAS of the slot word, SERVER or IDLE or the last holder to {worker, e+1},
//! where e is the epoch in the worker's run word. All that follows ([`World::complete`]) can be
//! derived from the two words and may be done by anyone, any number of times.

use super::{
    record::{Counts, Record, life},
    verdict::now,
    words::{Index, Phase, Run, Slot, Tag},
    world::{Pin, World},
};
use crate::{
    List, state,
    sync::{Relaxed, SeqCst},
};

/// errno and reason of a failed call.
pub(crate) type Failure = (i32, &'static str);

const NOT_RUNNABLE: Failure = (libc::EBUSY, "the target is not RUNNABLE");
const GONE: Failure = (libc::ESRCH, "the server of this worker is gone");

impl World {
    /// Takes a RUNNABLE worker for the slot of the server `tid`: one CAS, exactly one winner.
    pub(crate) fn claim(&self, worker: &Pin<'_>, server_tid: u32) -> Result<(), Failure> {
        if worker.task().server_tid() != server_tid {
            return Err((libc::EBUSY, "the target belongs to another server"));
        }
        worker
            .task()
            .transition(state::RUNNABLE, state::RUNNING | state::CLAIMED)
            .map_err(|_| NOT_RUNNABLE)
    }

    /// Gives a claim up. The worker has not passed its gate meanwhile: its run word is OUT.
    pub(crate) fn unclaim(&self, worker: &Pin<'_>) {
        // Fails only for a worker that became an ordinary thread under the claim.
        let _ = worker
            .task()
            .transition(state::RUNNING | state::CLAIMED, state::RUNNABLE);
    }

    /// Takes a worker out of whatever slot it still holds (trace A6) and returns its run word,
    /// which is then in phase OUT and stays so: the caller owns the worker.
    pub(crate) fn pull(&self, index: Index) -> Result<Run, Failure> {
        let worker = self.record(index);
        loop {
            let run = worker.run();
            // Before the step: once the worker is OUT its next dispatcher writes this.
            let host = worker.host.load(SeqCst);
            match run.phase() {
                Phase::Out => return Ok(run),
                // It left RUNNING, was published, and has not reached its `wait` yet.
                Phase::Acked => {
                    let out = run.naming(0).to(Phase::Out);
                    if worker.step(run, out).is_ok() {
                        self.vacate(host, index, run);
                        return Ok(out);
                    }
                }
                Phase::Judged | Phase::Switched => {
                    self.settle(host, index, run);
                    self.wake_after(host, index, run);
                    self.forget_armed(index, run);
                    let _ = worker.step(run, run.naming(0).to(Phase::Out));
                }
                Phase::Adopting => {
                    let _ = worker.step(run, run.to(Phase::Out));
                }
                Phase::Plain => return Err(GONE),
                // Owned by the slot that names it: the caller did not own it.
                Phase::Dispatched | Phase::Relieving => return Err(NOT_RUNNABLE),
            }
        }
    }

    /// The worker leaves the slot that it held by `run`; the server gets it and is woken.
    /// Called by whoever took the run word out of ACKED;
    /// `host` was read before that.
    pub(crate) fn vacate(&self, host: Index, index: Index, run: Run) {
        let held = Slot::held(index, run.epoch());
        if self
            .record(host)
            .move_slot(held, Slot::after(index, run.epoch()))
        {
            self.wake_after(host, index, run);
        }
    }

    /// Wakes the server whose slot became its own when the worker left it by `run`, unless the
    /// slot has gone on since. Whoever finds it so may do it, so that a judge that stopped
    /// between the slot and the wake loses nothing.
    pub(crate) fn wake_after(&self, host: Index, index: Index, run: Run) {
        if self.record(host).slot() == Slot::after(index, run.epoch()) {
            if let Some(server) = self.pin(host, life::SERVER) {
                self.wake_server(&server);
            }
        }
    }

    /// RUNNABLE to RUNNING and the bell. Nothing if it is awake.
    pub(crate) fn wake_server(&self, server: &Pin<'_>) {
        if server
            .task()
            .transition(state::RUNNABLE, state::RUNNING)
            .is_ok()
        {
            server.ring();
        }
    }

    /// Wakes the server for an event that was just pushed, unless a worker runs in its slot
    /// (decision G1): then that worker, or the server's own deadline, will see it.
    ///
    /// True: a worker runs there.
    pub(crate) fn poke(&self, server: &Pin<'_>) -> bool {
        // After the push, which like the drain is a read-modify-write of the list: either the
        // drain has our event, or it came first, and we see all that the server had seen by then,
        // the slot that had become SERVER included. No fence is needed for that.
        loop {
            let slot = server.slot();
            match slot.tag() {
                Tag::Held => return true,
                Tag::Dead => return false,
                Tag::Server => break,
                Tag::Idle => {
                    if server.move_slot(slot, Slot::SERVER) {
                        break;
                    }
                }
            }
        }
        self.wake_server(server);
        false
    }

    /// Puts a runnable event of `worker` on the list of `server`: the token that it is to be
    /// picked. True: a worker runs in the server's slot, so it was not woken.
    pub(crate) fn push_runnable(&self, server: &Pin<'_>, worker: &Pin<'_>) -> bool {
        // SAFETY: both are pinned; a worker's unregister waits for its links, a server's takes
        // all its events.
        unsafe { server.task().push(List::Runnable, worker.task()) };
        // After the push; pairs with the clear-then-look in `wait`.
        server.runnable_waiting.store(1, SeqCst);
        self.poke(server)
    }

    /// Gives the slot, which is `from`, to a worker that the caller has claimed and that is OUT
    /// by `run`. False: it was not given, because the slot was not `from` any more (this server
    /// went away) or because the worker became an ordinary thread (its old server did); the
    /// slot is then the server's.
    pub(crate) fn give(&self, server: &Pin<'_>, from: Slot, worker: &Pin<'_>, run: Run) -> bool {
        // Before the slot names the worker: who reads the slot may read the host.
        worker.host.store(server.index(), SeqCst);
        let held = Slot::held(worker.index(), run.epoch() + 1);
        if !server.move_slot(from, held) {
            return false;
        }
        self.complete(server, held, 0);
        // OUT led to DISPATCHED by `complete`, with the next epoch, or to PLAIN with this one. (PLAIN
        // with a later one is a worker that was dispatched, ran, and ended already.)
        let now = worker.run();
        if now.phase() == Phase::Plain && now.epoch() == run.epoch() {
            server.move_slot(held, Slot::SERVER);
            return false;
        }
        true
    }

    /// Finishes the dispatch `slot`, if the server's slot says so and it is unfinished: run word
    /// OUT to DISPATCHED, wake. Idempotent; for anyone, sentinels included. A caller that was
    /// stopped and comes late finds another slot word, or another epoch.
    ///
    /// `relieved`: the worker whose block made this dispatch, 0 = none.
    pub(crate) fn complete(&self, server: &Record, slot: Slot, relieved: Index) {
        if server.slot() != slot {
            return;
        }
        let worker = self.record(slot.index());
        let run = worker.run();
        let pending =
            run.phase() == Phase::Out && Slot::held(slot.index(), run.epoch() + 1) == slot;
        if !pending {
            return;
        }
        let to = if relieved == 0 {
            Run::new(slot.epoch(), run.index(), Phase::Dispatched)
        } else {
            Run::new(slot.epoch(), relieved, Phase::Relieving)
        };
        if worker.step(run, to).is_ok() {
            Counts::bump(&server.counts.dispatches);
            worker.run.wake();
        }
    }

    /// The worker, dispatched by `run`, takes its slot: by its own thread. False: the word has
    /// changed.
    pub(crate) fn acknowledge(&self, index: Index, run: Run) -> bool {
        let worker = self.record(index);
        let armed = match run.phase() {
            Phase::Relieving => {
                self.book_relieved(run.index(), index);
                // The sentinel woke nobody else.
                self.watch(self.record(worker.host.load(SeqCst)));
                0
            }
            _ => run.index(),
        };
        // The mirror before the acknowledgement: from then on we can be judged.
        // SAFETY: the worker's own thread.
        set_running(unsafe { worker.user() });
        worker.running_since.store(now(), Relaxed);
        let acked = Run::new(run.epoch(), armed, Phase::Acked);
        worker.step(run, acked).is_ok()
    }

    /// Sleeps until the worker is dispatched. Its run word is not ACKED when it comes here, so
    /// nothing can judge it while it sleeps.
    ///
    /// # Errors
    /// ESRCH: it became an ordinary thread because its server went away; the state is RUNNING.
    pub(crate) fn gate(&self, index: Index) -> Result<(), Failure> {
        let worker = self.record(index);
        // SAFETY: the worker's own thread.
        let task = unsafe { worker.user() };
        loop {
            let run = worker.run();
            match run.phase() {
                Phase::Out => {
                    // OUT, then look whether the server lives; pairs with the server that stops
                    // living and then looks for workers that are OUT. The fence in between is
                    // that of `pin`, on both sides.
                    if self.server(task.server_tid()).is_none() {
                        let _ = worker.step(run, run.to(Phase::Plain));
                    } else {
                        // Who wakes us: the dispatcher (`complete`), the monitor again after a
                        // tick, or the server's unregister.
                        worker.run.wait(run.0);
                    }
                }
                Phase::Dispatched | Phase::Relieving => {
                    if self.acknowledge(index, run) {
                        return Ok(());
                    }
                }
                Phase::Plain => {
                    set_running(task);
                    return Err(GONE);
                }
                // Acked: only the worker's own step leads there. Judged and Switched come from
                // Acked, Adopting from Judged.
                phase => unreachable!("a worker in its gate is {phase:?}"),
            }
        }
    }
}

/// RUNNING without flags, from whatever the mirror said. The worker itself, which is the slot's
/// by its run word, or an ordinary thread.
pub(crate) fn set_running(task: &crate::UmcgTask) {
    force_state(task, state::RUNNING);
}

/// The state of a task that is its own, against late mirrors of earlier verdicts. Keeps the
/// application's bits.
pub(crate) fn force_state(task: &crate::UmcgTask, to: u32) {
    let word = task.state_word();
    let mut seen = word.load(Relaxed);
    loop {
        let next = (seen & state::USER_MASK) | to;
        if seen == next {
            return;
        }
        match word.compare_exchange(seen, next, SeqCst, Relaxed) {
            Ok(_) => return,
            Err(found) => seen = found,
        }
    }
}
