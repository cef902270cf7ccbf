//! The private record of one registered task, beside the 32 bytes in user memory.

use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64 as Count};

use super::packed::{Index, Phase, Run, Slot};
use crate::{
    UmcgTask,
    sync::{
        AtomicU32, AtomicU64, Futex32, Futex64, Relaxed, Release, SeqCst, fence, pause,
        visible_step,
    },
};

/// What a record is used for. FREE to SERVER or WORKER: the thread that registers, which has taken
/// the record off the free list. The further steps, to CLOSING and to FREE: the same thread when it
/// unregisters.
pub(crate) mod status {
    /// On the free list.
    pub(crate) const FREE: u32 = 0;
    /// A registered server.
    pub(crate) const SERVER: u32 = 1;
    /// A registered worker.
    pub(crate) const WORKER: u32 = 2;
    /// The task unregisters: no new guards.
    pub(crate) const CLOSING: u32 = 3;
}

/// How many workers that were judged lately a server remembers, as candidates for adoption.
pub(crate) const RECENT: usize = 8;

/// One registered task.
///
/// Records live in an arena and are never freed, so a judge that was stopped in the middle of a
/// verdict may touch one at any later time. The epoch in the run word never goes back, so the step
/// that such a judge then tries fails.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Record {
    /// Worker: its run word, [`Run`]. Who may leave a phase is said at [`Phase`] and in the README.
    pub(crate) run: Futex64,
    /// Server: its slot word, [`Slot`]. From SERVER only the server steps. From IDLE to a worker
    /// steps that worker, from IDLE to SERVER any waker. From HELD steps the worker that leaves,
    /// the dispatcher that takes it out, or any thread that carries out a verdict on it.
    pub(crate) slot: AtomicU64,
    /// Server: the word that it sleeps on in `wait`. A waker adds 1 after each change of what that
    /// sleep waits for (the user state, the slot word).
    pub(crate) wake_word: Futex32,
    /// Worker: the record of the server in whose slot it is, or was last. Written before a slot
    /// names the worker: by its dispatcher, for a spare by the server that arms it, or by the
    /// worker itself when it takes a slot.
    pub(crate) host: AtomicU32,
    /// Worker: the record of the worker in whose run word it was armed last; 0 means none. Written
    /// by the server that arms it, before the run word names it.
    pub(crate) armed_in: AtomicU32,
    /// One of [`status`].
    pub(crate) status: AtomicU32,
    /// How many guards there are: threads that use `user` right now. The task's `unregister` does
    /// not return while this is not 0. A sentinel never takes a guard, since it may be stopped
    /// for an unbounded time.
    pub(crate) guards: AtomicU32,
    /// The task in user memory. Valid while `status` is SERVER or WORKER, for the holder of a guard
    /// and for the task's own thread.
    user: AtomicPtr<UmcgTask>,
    /// The thread id; 0 in a free record.
    pub(crate) tid: AtomicU32,
    /// Worker: the CPU that it is pinned to. Server: the CPU of its slot. -1 means not pinned.
    pub(crate) cpu: AtomicI32,
    /// Worker: 1 while it is SCHED_OTHER instead of SCHED_BATCH, because its server's CPU was
    /// contended when it last came to a slot. Written by the thread that moves it to a CPU.
    pub(crate) sched_other: AtomicU32,
    /// Server: 1 after a runnable event was pushed; its `wait` clears it if the list is empty then.
    /// A private copy of "`runnable_ptr` is not empty" for the sentinel, which reads no user
    /// memory. It may stay 1 for longer. It is never 0 while the list has an event from before the
    /// last `wait`.
    pub(crate) runnable_waiting: AtomicU32,
    /// Server: 1 if its last `wait` came with `WAIT_TAKE_OVER`. Written by the server. It orders
    /// nothing: a worker that acts on an outdated permission takes the slot by the same CAS.
    pub(crate) take_over_allowed: AtomicU32,
    /// Worker: when it last began to run in a slot, CLOCK_MONOTONIC in nanoseconds. Written by the
    /// worker before it acknowledges. A hint for a take-over.
    pub(crate) running_since: Count,
    /// Server: 1 from the time at which the monitor finds that the sentinel does not get this CPU,
    /// until the sentinel's next verdict. A hint, which orders nothing.
    pub(crate) contended: AtomicU32,
    /// Worker: when it was judged blocked, CLOCK_MONOTONIC in nanoseconds; 0 if it was preempted.
    /// Written by a judge before its verdict. For statistics only.
    pub(crate) blocked_since: Count,
    /// Server: a ring of the workers that were judged last. Hints only.
    pub(crate) recently_judged: [AtomicU32; RECENT],
    /// Server: the next place in `recently_judged`, modulo its length.
    pub(crate) recently_judged_next: AtomicU32,
    /// What was counted for a server.
    pub(crate) counts: Counts,
}

/// Statistics of a server, as [`ServerCounters`](crate::ServerCounters) explains them. All accesses
/// are Relaxed: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) dispatches: Count,
    pub(crate) announced: Count,
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
    /// Adds one. Few threads write the counters of one server, and mostly on its CPU.
    pub(crate) fn bump(count: &Count) {
        count.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }

    fn reset(&self) {
        for count in [
            &self.dispatches,
            &self.announced,
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

    /// Makes a free record that of a task. `role` is [`status::SERVER`] or [`status::WORKER`]. The
    /// epoch continues from the last task in this record.
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
        // Publishes all of the above; pairs with the load of `status` in `Registry::guard`.
        self.status.store(role, SeqCst);
    }

    /// Ends the use of the task's user memory by other threads: from here on there are no new
    /// guards. Returns when the last guard is gone. Only threads of normal priority hold guards,
    /// for a few instructions each, so this waits by yielding.
    pub(crate) fn close(&self) {
        self.status.store(status::CLOSING, SeqCst);
        // CLOSING, then the count. Pairs with the fence in `Registry::guard` (the count, then the
        // status): either that thread sees CLOSING, or this one sees its guard.
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

    /// One step of the run word: a CAS. On failure, the word that was found.
    ///
    /// SeqCst, because OUT and the verdict are the first half of several store-then-load pairs (the
    /// README lists them). A locked instruction costs the same with a weaker ordering.
    pub(crate) fn step(&self, from: Run, to: Run) -> Result<(), Run> {
        visible_step();
        match self.run.compare_exchange(from.0, to.0, SeqCst, SeqCst) {
            Ok(_) => Ok(()),
            Err(found) => Err(Run(found)),
        }
    }

    /// One step of the slot word: a CAS, SeqCst for the same reason. False: the slot was not
    /// `from`.
    pub(crate) fn move_slot(&self, from: Slot, to: Slot) -> bool {
        visible_step();
        self.slot
            .compare_exchange(from.0, to.0, SeqCst, SeqCst)
            .is_ok()
    }

    /// The task in user memory.
    ///
    /// # Safety
    /// The caller holds a guard, taken while the record's status was SERVER or WORKER, or is the
    /// task's own thread between register and unregister.
    pub(crate) unsafe fn user(&self) -> &UmcgTask {
        // Acquire: pairs with the Release in `open`.
        // SAFETY: not null, and valid by the caller's promise: `close` waits for guards, and the
        // application promised to keep the task in place until `unregister` has returned.
        unsafe { &*self.user.load(core::sync::atomic::Ordering::Acquire) }
    }

    /// Makes a server that sleeps in `wait` read again what it waits for. To be called after that
    /// has changed: `sleep_server` reads the wake word first and the rest afterwards.
    pub(crate) fn wake_to_recheck(&self) {
        visible_step();
        self.wake_word.fetch_add(1, SeqCst);
        self.wake_word.wake();
    }

    /// Remembers a worker that was judged, as a candidate for adoption.
    pub(crate) fn remember_judged(&self, worker: Index) {
        let place = self.recently_judged_next.fetch_add(1, Relaxed) as usize % RECENT;
        self.recently_judged[place].store(worker, Relaxed);
    }
}
