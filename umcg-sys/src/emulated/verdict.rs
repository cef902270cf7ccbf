//! "This worker is blocked": said by a helper thread, not by the kernel.
//!
//! The verdict is one CAS of the run word, {e, ACKED} to {e, JUDGED}, against the value read
//! *before* the confirmation. What follows names the epoch, is idempotent, and may be done by
//! anyone who sees JUDGED: a judge may be stopped at any instruction for ever (traces A1, A4,
//! A5). A wrong verdict costs a switch: the worker runs on without a slot and stops at its next
//! checkpoint.

use super::{
    record::{Counts, RECENT, life},
    words::{Index, Phase, Run, Slot},
    world::{Pin, World},
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

impl World {
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
            self.book(index, verdict);
        }
        self.settle(host_index, index, verdict);
        if judge == Judge::Sentinel {
            // The server makes itself RUNNING and books the block: its task is in user memory,
            // which a thread that may be stopped for ever must not touch.
            if host.slot() == Slot::after(index, verdict.epoch()) {
                host.ring();
            }
        } else {
            self.wake_after(host_index, index, verdict);
        }
        true
    }

    /// Carries a verdict out as far as the slot goes: to the server, or to the armed worker.
    /// Touches no user memory. `host` is the server whose slot the worker held by that epoch.
    pub(crate) fn settle(&self, host: Index, index: Index, verdict: Run) {
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
                self.complete(host, named, index);
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
    pub(crate) fn book(&self, index: Index, verdict: Run) {
        let Some(worker) = self.pin(index, life::WORKER) else {
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
            server.remember(index);
            // SAFETY: both pinned, see `push_runnable`.
            unsafe { server.task().push(List::Blocked, task) };
        }
    }

    /// The armed worker `relief`, about to run, books the block that brought it in, if that
    /// still is how things are.
    pub(crate) fn book_relieved(&self, index: Index, relief: Index) {
        let run = self.record(index).run();
        if run.phase() == Phase::Switched && run.index() == relief {
            self.book(index, run);
            self.forget_armed(index, run);
        }
    }

    /// The server, awake again, books the block that gave its slot back.
    pub(crate) fn book_after(&self, slot: Slot) {
        if slot.index() == 0 {
            return;
        }
        let run = self.record(slot.index()).run();
        if run.is_judged() && run.epoch() == slot.epoch() {
            self.book(slot.index(), run);
        }
    }

    /// Clears the user's `next_tid` of a worker whose armed spare was consumed by the verdict.
    /// Before the run word leaves SWITCHED, so that nobody takes the spare back again.
    pub(crate) fn forget_armed(&self, index: Index, verdict: Run) {
        if verdict.phase() != Phase::Switched {
            return;
        }
        if let Some(worker) = self.pin(index, life::WORKER) {
            // While the verdict stands nobody arms it anew. Not by the spare's tid: it may have
            // ended since.
            let armed = worker.task().next_tid();
            if worker.run() == verdict {
                worker.task().clear_next_tid(armed);
            }
        }
    }

    /// Instead of a verdict that brings in one more worker: gives the slot of the sleeping
    /// `holder` to a worker that was judged before and is awake (trace B6). `awake` says which.
    ///
    /// Order of the steps, and who may interfere at each: the adopted worker goes JUDGED to
    /// ADOPTING (from here its own checkpoint calls the adoption off, by OUT); the holder goes
    /// ACKED to JUDGED; the slot moves from one to the other; ADOPTING becomes ACKED. Each step
    /// that fails undoes the ones before.
    pub(crate) fn adopt(
        &self,
        server: &Pin<'_>,
        holder: Index,
        seen: Run,
        mut awake: impl FnMut(&Pin<'_>) -> bool,
    ) -> bool {
        for place in 0..RECENT {
            let index = server.recent[place].load(Relaxed);
            if index == 0 || index == holder {
                continue;
            }
            let Some(worker) = self.pin(index, life::WORKER) else {
                continue;
            };
            let before = worker.run();
            if before.phase() != Phase::Judged
                // Its armed one is being taken back; the mark must stay until that is done.
                || before.index() == index
                || worker.task().state() != state::BLOCKED
                || worker.task().server_tid() != server.tid.load(SeqCst)
                // Its last slot was this one: `host` need not change, and must not, since a
                // dispatcher may own the worker as soon as it called the adoption off.
                || worker.host.load(SeqCst) != server.index()
                || !awake(&worker)
            {
                continue;
            }
            self.settle(server.index(), index, before);
            let adopting = Run::new(before.epoch() + 1, 0, Phase::Adopting);
            if worker.step(before, adopting).is_err() {
                continue;
            }
            self.end_of_block(index);
            let verdict = seen.to(Phase::Judged);
            self.record(holder).blocked_since.store(now(), Relaxed);
            if self.record(holder).step(seen, verdict).is_err() {
                // The holder left by itself; nothing to adopt into. If this fails the adopted
                // one is at its checkpoint, which is as good.
                let _ = worker.step(adopting, adopting.to(Phase::Judged));
                return false;
            }
            Counts::bump(&server.counts.monitor);
            let named = Slot::held(index, adopting.epoch());
            if !server.move_slot(Slot::held(holder, seen.epoch()), named) {
                // The holder woke and carried its own verdict out.
                let _ = worker.step(adopting, adopting.to(Phase::Judged));
            } else if worker.step(adopting, adopting.to(Phase::Acked)).is_ok() {
                Counts::bump(&server.counts.adopted);
                let _ = worker.task().transition(state::BLOCKED, state::RUNNING);
            } else if server.move_slot(named, Slot::after(index, adopting.epoch())) {
                // It reached its checkpoint and queued up: the slot is the server's.
                self.wake_server(server);
            }
            self.book(holder, verdict);
            self.wake_after(server.index(), holder, verdict);
            return true;
        }
        false
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
#[cfg(not(loom))]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a live timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Models have no time.
#[cfg(loom)]
pub(crate) fn now() -> u64 {
    0
}
