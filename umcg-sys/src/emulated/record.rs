//! What the emulated provider keeps for one task, beside the 32 bytes in user memory.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64 as Count};

use super::packed::{Index, Phase, Run, Slot};
use crate::{
    UmcgTask,
    sync::{
        AtomicU32, AtomicU64, Futex32, Futex64, Relaxed, Release, SeqCst, fence, pause,
        visible_step,
    },
};

/// Life of a record. Written under the arena's lock, except `CLOSING` by the task itself.
pub(crate) mod status {
    /// On the free list.
    pub(crate) const FREE: u32 = 0;
    /// A registered server.
    pub(crate) const SERVER: u32 = 1;
    /// A registered worker.
    pub(crate) const WORKER: u32 = 2;
    /// Unregistering: no new pins.
    pub(crate) const CLOSING: u32 = 3;
}

/// How many recently blocked workers a server remembers: candidates for adoption.
pub(crate) const RECENT: usize = 8;

/// One registered task. Lives in the arena and is never freed, so that a judge that was stopped
/// in the middle may touch it at any later time; its run epoch never goes back, so that what
/// such a judge then tries fails.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Record {
    /// Worker: {epoch, armed, phase}. Who may change what is said at [`Phase`].
    pub(crate) run: Futex64,
    /// Server: {epoch, holder, tag}. SERVER to anything: the server alone. IDLE to a worker: that
    /// worker. IDLE to SERVER: any waker. HELD to anything: the worker that leaves, its
    /// dispatcher that pulls it out, or anybody who carries out a verdict on it.
    pub(crate) slot: AtomicU64,
    /// Server: rung for each change that its sleep in `wait` waits for.
    pub(crate) wake_word: Futex32,
    /// Worker: the record of the server in whose slot it is or was. Written by the dispatcher
    /// before the slot names the worker.
    pub(crate) host: AtomicU32,
    /// Worker: the record of the worker in whose run word it was armed last; 0 = none. Written by
    /// the dispatcher before it arms.
    pub(crate) armed_in: AtomicU32,
    /// One of [`status`].
    pub(crate) status: AtomicU32,
    /// Threads that are using `user` right now. While it is not 0 the task's `unregister` does
    /// not return. Never taken by a sentinel, which may be stopped for ever.
    pub(crate) guards: AtomicU32,
    /// The task in user memory. Valid while `life` is SERVER or WORKER, for who holds a pin, and
    /// for the task's own thread.
    user: AtomicPtr<UmcgTask>,
    /// Thread id; 0 when free.
    pub(crate) tid: AtomicU32,
    /// Worker: the CPU it is pinned to, -1 = not pinned. Server: the CPU of its slot, or -1.
    pub(crate) cpu: AtomicI32,
    /// Worker: 1 while it is SCHED_OTHER and not SCHED_BATCH, because its server was contended when
    /// it last came to a slot. Written by whoever places it.
    pub(crate) sched_other: AtomicU32,
    /// Server: 1 after a runnable event was pushed, cleared by `wait` when the list is empty.
    /// Private twin of "`runnable_ptr` is not empty" for the sentinel, which reads no user
    /// memory; may be 1 for longer, never 0 while an event from before the last `wait` is there.
    pub(crate) runnable_waiting: AtomicU32,
    /// Server: 1 if its last `wait` came with `WAIT_TAKE_OVER`. Written by the server; a
    /// permission, which orders nothing: who acts on an old one takes a slot by the same CAS.
    pub(crate) take_over_allowed: AtomicU32,
    /// Worker: when it was last seen to begin to run in a slot, CLOCK_MONOTONIC ns. Written by
    /// the worker before it acknowledges. A hint for `take_over`.
    pub(crate) running_since: Count,
    /// Server: 1 from a verdict of the monitor, on a holder that the sentinel should have seen, to
    /// the next one of the sentinel. A hint, which orders nothing.
    pub(crate) contended: AtomicU32,
    /// Worker: when it was judged blocked, CLOCK_MONOTONIC ns; 0 = it was preempted. Written by a
    /// judge before its verdict. Statistics only.
    pub(crate) blocked_since: Count,
    /// Server: workers that were judged last, a ring. Hints only.
    pub(crate) recently_judged: [AtomicU32; RECENT],
    /// Server: next place in `recent`.
    pub(crate) recently_judged_next: AtomicU32,
    pub(crate) counts: Counts,
}

/// Statistics of a server. Relaxed everywhere: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) dispatches: Count,
    pub(crate) sentinel: Count,
    pub(crate) monitor: Count,
    pub(crate) refused: Count,
    pub(crate) adopted: Count,
    pub(crate) self_dispatched: Count,
    pub(crate) taken_over: Count,
    pub(crate) sibling: Count,
    pub(crate) preempted: Count,
    pub(crate) longest_block_ns: Count,
}

impl Counts {
    /// Adds one. The counters of one server are written by few threads, mostly on its CPU.
    pub(crate) fn bump(count: &Count) {
        count.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }

    fn reset(&self) {
        for count in [
            &self.dispatches,
            &self.sentinel,
            &self.monitor,
            &self.refused,
            &self.adopted,
            &self.self_dispatched,
            &self.taken_over,
            &self.sibling,
            &self.preempted,
            &self.longest_block_ns,
        ] {
            count.store(0, core::sync::atomic::Ordering::Relaxed);
        }
    }
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            run: Futex64::new(Run::new(0, 0, Phase::Plain).0),
            slot: AtomicU64::new(Slot::DEAD.0),
            wake_word: Futex32::new(0),
            host: AtomicU32::new(0),
            armed_in: AtomicU32::new(0),
            status: AtomicU32::new(status::FREE),
            guards: AtomicU32::new(0),
            user: AtomicPtr::new(core::ptr::null_mut()),
            tid: AtomicU32::new(0),
            cpu: AtomicI32::new(-1),
            sched_other: AtomicU32::new(0),
            runnable_waiting: AtomicU32::new(0),
            contended: AtomicU32::new(0),
            take_over_allowed: AtomicU32::new(0),
            running_since: Count::new(0),
            blocked_since: Count::new(0),
            recently_judged: core::array::from_fn(|_| AtomicU32::new(0)),
            recently_judged_next: AtomicU32::new(0),
            counts: Counts::default(),
        }
    }

    /// Makes a free record a task's. The epoch goes on from where the last task left it.
    pub(crate) fn open(&self, task: *mut UmcgTask, tid: u32, role: u32) {
        let epoch = self.run().epoch() + 1;
        self.run.store(Run::new(epoch, 0, Phase::Out).0, SeqCst);
        let slot = if role == status::SERVER {
            Slot::SERVER
        } else {
            Slot::DEAD
        };
        self.slot.store(slot.0, SeqCst);
        self.host.store(0, Relaxed);
        self.armed_in.store(0, Relaxed);
        self.cpu.store(-1, Relaxed);
        self.sched_other.store(0, Relaxed);
        self.contended.store(0, Relaxed);
        self.take_over_allowed.store(0, Relaxed);
        self.runnable_waiting.store(0, Relaxed);
        self.counts.reset();
        for hint in &self.recently_judged {
            hint.store(0, Relaxed);
        }
        self.user.store(task, core::sync::atomic::Ordering::Release);
        self.tid.store(tid, Release);
        // Release: publishes all of the above; pairs with the load in `pin`.
        self.status.store(role, SeqCst);
    }

    /// Ends the task's status: no new pins from here on; returns when the last one is gone, after
    /// which nobody touches the user memory. Pins are held for a few instructions by threads of
    /// normal priority, so this waits by yielding.
    pub(crate) fn close(&self) {
        self.status.store(status::CLOSING, SeqCst);
        // Pairs with the fence in `pin`: either the pinner sees CLOSING, or we see its pin.
        fence(SeqCst);
        let mut turns = 0_u32;
        while self.guards.load(SeqCst) != 0 {
            pause(&mut turns);
        }
    }

    pub(crate) fn run(&self) -> Run {
        Run(self.run.load(SeqCst))
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot(self.slot.load(SeqCst))
    }

    /// One step of the run word. SeqCst: the verdict is one side of several store-then-look
    /// pairs, and the cost of a locked instruction is the same.
    pub(crate) fn step(&self, from: Run, to: Run) -> Result<(), Run> {
        visible_step();
        match self.run.compare_exchange(from.0, to.0, SeqCst, SeqCst) {
            Ok(_) => Ok(()),
            Err(found) => Err(Run(found)),
        }
    }

    /// One step of the slot word.
    pub(crate) fn move_slot(&self, from: Slot, to: Slot) -> bool {
        visible_step();
        self.slot
            .compare_exchange(from.0, to.0, SeqCst, SeqCst)
            .is_ok()
    }

    /// The task in user memory, for its own thread or under a pin.
    ///
    /// # Safety
    /// The caller holds a pin on a record that was alive when it took it, or is the task's own
    /// thread between register and unregister.
    pub(crate) unsafe fn user(&self) -> &UmcgTask {
        // Acquire pairs with the Release in `open`.
        // SAFETY: not null and valid by the caller's promise: `close` waits for pins, and the
        // user promised to keep the task in place until unregister has returned.
        unsafe { &*self.user.load(core::sync::atomic::Ordering::Acquire) }
    }

    /// Rings the server's wake_word: its sleep re-reads what it waits for.
    pub(crate) fn wake_to_recheck(&self) {
        visible_step();
        self.wake_word.fetch_add(1, SeqCst);
        self.wake_word.wake();
    }

    /// Remembers a worker that blocked, as a candidate for adoption.
    pub(crate) fn remember_judged(&self, worker: Index) {
        let place = self.recently_judged_next.fetch_add(1, Relaxed) as usize % RECENT;
        self.recently_judged[place].store(worker, Relaxed);
    }
}
