//! A dispatch: how a worker is given a slot. And how a server is woken.
//!
//! The commit of a dispatch is one CAS of the slot word, from SERVER or from the last holder to
//! HELD by {worker, e+1}, where e is the epoch in the worker's run word. What is left to do then,
//! [`Registry::complete_dispatch`], follows from the two words alone. So any thread may do it, any
//! number of times, and a thread that is stopped after the commit leaves nothing undone.

use super::{
    failure::{Failure, NO_SERVER, NOT_RUNNABLE, OTHER_SERVER},
    packed::{Index, Phase, Run, Slot, Tag},
    record::{Counts, Record, status},
    registry::{RecordGuard, Registry},
};
use crate::{List, state, sync::SeqCst};

impl Registry {
    /// Claims a RUNNABLE worker of the server `server_tid` for a dispatch: one CAS, which exactly
    /// one claimer wins.
    pub(crate) fn claim(&self, worker: &RecordGuard<'_>, server_tid: u32) -> Result<(), Failure> {
        if worker.task().server_tid() != server_tid {
            return Err(OTHER_SERVER);
        }
        worker
            .task()
            .transition(state::RUNNABLE, state::RUNNING | state::CLAIMED)
            .map_err(|_| NOT_RUNNABLE)
    }

    /// Gives a claim up. The worker cannot have passed its gate meanwhile: its run word is OUT.
    pub(crate) fn unclaim(&self, worker: &RecordGuard<'_>) {
        // Fails only if the worker became an ordinary thread while it was claimed.
        let _ = worker
            .task()
            .transition(state::RUNNING | state::CLAIMED, state::RUNNABLE);
    }

    /// Gives the slot that the worker `index` held by `run` back to its server, and wakes the
    /// server. For the thread that took the run word out of ACKED. It has read `host` before that
    /// step, since the worker's next dispatcher may write another one afterwards.
    pub(crate) fn release_slot(&self, host: Index, index: Index, run: Run) {
        let held = Slot::held(index, run.epoch());
        if self
            .record(host)
            .move_slot(held, Slot::after(index, run.epoch()))
        {
            self.wake_server_after(host, index, run);
        }
    }

    /// Wakes the server if its slot still says "mine, after the worker `index` left it by `run`".
    /// Any thread that finds the slot so may do this. A judge that was stopped between the slot and
    /// the wake therefore loses nothing.
    pub(crate) fn wake_server_after(&self, host: Index, index: Index, run: Run) {
        if self.record(host).slot() == Slot::after(index, run.epoch()) {
            if let Some(server) = self.guard(host, status::SERVER) {
                self.wake_server(&server);
            }
        }
    }

    /// Makes a RUNNABLE server RUNNING and ends its sleep. A server that is awake is left alone.
    pub(crate) fn wake_server(&self, server: &RecordGuard<'_>) {
        if server
            .task()
            .transition(state::RUNNABLE, state::RUNNING)
            .is_ok()
        {
            server.wake_to_recheck();
        }
    }

    /// Tells the server of an event that was just pushed: wakes it, unless a worker runs in its
    /// slot. That worker sees the event at its next checkpoint, or the server's own deadline does.
    ///
    /// True: a worker holds the slot, so the server was not woken.
    pub(crate) fn notify_server(&self, server: &RecordGuard<'_>) -> bool {
        // No fence is needed between the push and the read of the slot. The push and the server's
        // drain are read-modify-writes of the same word, the list's head. If the drain comes second
        // it has our event. If it came first, our push has acquired what the server had done and
        // seen before it, among that a slot that had become SERVER.
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

    /// Puts a runnable event of `worker` on the list of `server`: the token for one pick.
    ///
    /// True: a worker holds the server's slot, so the server was not woken.
    pub(crate) fn push_runnable(&self, server: &RecordGuard<'_>, worker: &RecordGuard<'_>) -> bool {
        // SAFETY: both are guarded now. Until the event is taken, the worker's unregister waits for
        // its links, and the server's unregister takes all its events.
        unsafe { server.task().push(List::Runnable, worker.task()) };
        // The push, then the flag; `wait_server` clears the flag, then looks at the list.
        server.runnable_waiting.store(1, SeqCst);
        self.notify_server(server)
    }

    /// Gives the slot, which is `from`, to a worker that the caller has claimed and that is OUT by
    /// `run`.
    ///
    /// False: the slot was not `from` any more because this server went away, or the worker became
    /// an ordinary thread because its earlier server went away. In the second case the slot is the
    /// server's afterwards.
    pub(crate) fn give_slot(
        &self,
        server: &RecordGuard<'_>,
        from: Slot,
        worker: &RecordGuard<'_>,
        run: Run,
    ) -> bool {
        // Before the slot names the worker, because a thread that reads the slot reads the host
        // next.
        worker.host.store(server.index(), SeqCst);
        let held = Slot::held(worker.index(), run.epoch() + 1);
        if !server.move_slot(from, held) {
            return false;
        }
        self.complete_dispatch(server, held, 0);
        // OUT has led to DISPATCHED with the next epoch, by `complete_dispatch`, or to PLAIN with
        // this epoch. (PLAIN with a later epoch is a worker that was dispatched, ran, and has ended
        // already.)
        let now = worker.run();
        if now.phase() == Phase::Plain && now.epoch() == run.epoch() {
            server.move_slot(held, Slot::SERVER);
            return false;
        }
        true
    }

    /// Completes the dispatch that `slot` stands for, unless the server's slot says something else
    /// by now or the dispatch is complete: the worker's run word goes from OUT to DISPATCHED, and
    /// the worker is woken. Any thread may do this, a sentinel included, any number of times. A
    /// thread that was stopped and comes late finds another slot word or another epoch.
    ///
    /// `predecessor`: the worker whose block made this dispatch, 0 for none. With one the run word
    /// goes to SUCCESSOR.
    pub(crate) fn complete_dispatch(&self, server: &Record, slot: Slot, predecessor: Index) {
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
        let to = if predecessor == 0 {
            Run::new(slot.epoch(), run.index(), Phase::Dispatched)
        } else {
            Run::new(slot.epoch(), predecessor, Phase::Successor)
        };
        if worker.step(run, to).is_ok() {
            Counts::bump(&server.counts.dispatches);
            worker.run.wake();
        }
    }

    /// [`Provider::wake`](crate::Provider::wake): ends the `wait` of a server.
    pub(crate) fn wake(&self, server_tid: u32) -> Result<(), Failure> {
        let Some(server) = self.server(server_tid) else {
            return Err(NO_SERVER);
        };
        // Before the user state, so that no worker takes the idle slot of a server that is about to
        // run.
        server.move_slot(Slot::IDLE, Slot::SERVER);
        self.wake_server(&server);
        Ok(())
    }

    /// [`Provider::current`](crate::Provider::current): the tid of the worker that holds the slot.
    pub(crate) fn current(&self, server_tid: u32) -> Option<u32> {
        let slot = self.server(server_tid)?.slot();
        if !slot.is_held() {
            return None;
        }
        let tid = self.record(slot.index()).tid.load(SeqCst);
        (tid != 0).then_some(tid)
    }
}
