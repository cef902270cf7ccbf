//! Who plays the kernel: the contract.
//!
//! [`Provider`] is its safety manual; one conformance suite (`tests/tests/conformance_*.rs` of the
//! repository, `errors.rs`, and more beside them) runs over every implementation.

use std::{fmt, ptr::NonNull, sync::Arc, time::Duration};

use crate::{Error, UmcgTask};

/// `register` flag: the task is a worker. Without it, a server.
pub const REGISTER_WORKER: u32 = 1;

/// Flag of a server's [`wait`](Provider::wait): no worker waits to be picked. While it sleeps,
/// a worker of this server that unblocks may take the slot over from one that is blocked in it,
/// instead of having both switches made by way of the server.
///
/// A permission, not a request: a provider for which that saves nothing takes no notice (device).
pub const WAIT_TAKE_OVER: u32 = 1;

/// Bits 24 to 31 of the `register` flags: the version of the ABI that the caller speaks.
/// This library speaks version 0.
pub const REGISTER_VERSION_MASK: u32 = 0xff00_0000;

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProviderKind {
    /// `/dev/umcg`: the kernel itself, by a loadable module.
    Device,
    /// Any Linux, no privilege: futexes and helper threads.
    Emulated,
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Emulated => "emulated",
        })
    }
}

/// The facts that may differ from provider to provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// An unblocked worker runs no user code before its server picks it. Without it: it runs
    /// on, unmanaged, to its next [`Provider::checkpoint`].
    pub exact_stop: bool,
    /// Each block is reported. Without it: a block of an unmanaged worker is not, and a block
    /// too short to be seen is not.
    pub every_block: bool,
    /// Within this time after a RUNNING worker went to sleep, with work waiting and a CPU to be
    /// had, its server runs something else.
    pub block_bound: Duration,
    /// [`Provider::work_waiting`] makes it watch, and it calls the [`Overdue`] of a server. Without
    /// it: work that waits behind a worker that just runs is the application's to see to.
    pub watches: bool,
}

impl Facts {
    /// The facts of a provider.
    #[must_use]
    pub const fn new(exact_stop: bool, every_block: bool, block_bound: Duration) -> Self {
        Self {
            exact_stop,
            every_block,
            block_bound,
            watches: false,
        }
    }

    /// The same of one that watches.
    #[must_use]
    pub const fn watching(mut self) -> Self {
        self.watches = true;
        self
    }
}

/// Where a server and its workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// What the provider prefers. Emulated: a CPU of the registering thread's affinity mask, the
    /// one that fewest servers of this process use. A thread that a server or a worker made has
    /// inherited a pin: see [`unmanage_current_thread`](crate::unmanage_current_thread). Device:
    /// not pinned.
    #[default]
    Auto,
    /// This CPU. It must be in the affinity mask of the registering thread.
    Cpu(usize),
    /// Not pinned. Emulated: no sentinel, blocks are seen by the monitor alone.
    Unpinned,
}

/// Asked by a provider, from a thread of its own, whether work waits for a server beyond what
/// its lists show. It must not block, allocate, or panic.
pub type HasWork = Arc<dyn Fn() -> bool + Send + Sync>;

/// Told by a provider that watches ([`Provider::work_waiting`]), from a thread of its own, that
/// work has waited for a server for a whole look while the worker in its slot ran on. `Some`:
/// the tid of a sleeping server that is to be woken for it, as by [`Provider::preempt`]. It must
/// not block, allocate, or panic.
pub type Overdue = Arc<dyn Fn() -> Option<u32> + Send + Sync>;

/// What a task brings along when it registers. [`Default`] is right for a worker.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Register {
    /// [`REGISTER_WORKER`] and the version; other bits are refused.
    pub flags: u32,
    /// For a server: where it runs. A worker runs where its server does.
    pub placement: Placement,
    /// For a server: whether work waits for it. `None`: only its lists count.
    pub has_work: Option<HasWork>,
    /// For a server: what to do about work that waits behind a worker that just runs. `None`:
    /// nothing.
    pub overdue: Option<Overdue>,
}

impl Register {
    /// A server at `placement`.
    #[must_use]
    pub fn server(placement: Placement) -> Self {
        Self {
            flags: 0,
            placement,
            has_work: None,
            overdue: None,
        }
    }

    /// A worker of the server that its `server_tid` names.
    #[must_use]
    pub fn worker() -> Self {
        Self {
            flags: REGISTER_WORKER,
            placement: Placement::Auto,
            has_work: None,
            overdue: None,
        }
    }

    /// With somebody to tell of work that waits behind a worker that just runs.
    #[must_use]
    pub fn overdue(mut self, overdue: Overdue) -> Self {
        self.overdue = Some(overdue);
        self
    }

    /// With a way to ask whether work waits beyond the server's lists.
    #[must_use]
    pub fn has_work(mut self, has_work: HasWork) -> Self {
        self.has_work = Some(has_work);
        self
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register")
            .field("flags", &self.flags)
            .field("placement", &self.placement)
            .finish_non_exhaustive()
    }
}

/// What a provider counted for one server since it registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCounters {
    /// The CPU that the server is pinned to.
    pub cpu: Option<usize>,
    /// Dispatches: workers that were given the slot.
    pub dispatches: u64,
    /// Blocks reported by the kernel itself (device).
    pub blocks_kernel: u64,
    /// Blocks reported by the sentinel (emulated).
    pub blocks_sentinel: u64,
    /// Blocks reported by the monitor (emulated).
    pub blocks_monitor: u64,
    /// Blocks reported by another worker of that server that had been blocked itself and came to
    /// run (emulated).
    pub blocks_sibling: u64,
    /// Times that a suspected block was not confirmed (emulated).
    pub refused: u64,
    /// Blocked workers found awake and put back into the slot instead of a new one (emulated).
    pub adopted: u64,
    /// Unblocked workers that took the idle server's slot without a switch (emulated).
    pub self_dispatched: u64,
    /// Unblocked workers that took the slot over from a blocked one (emulated,
    /// [`WAIT_TAKE_OVER`]).
    pub taken_over: u64,
    /// Preemptions that took effect.
    pub preempted: u64,
    /// The longest time from a reported block to the end of it, in nanoseconds. A preemption is no
    /// block.
    ///
    /// Emulated: from the verdict, right or wrong, to the worker's next checkpoint, or until it is
    /// adopted: a worker that computes between its block and its checkpoint counts as blocked for
    /// that long, too.
    pub longest_block_ns: u64,
}

/// The calls of the mail, and the two rules that only a kernel can keep by itself: a worker that
/// blocks is reported, and an unblocked worker queues up behind its server's choice.
///
/// # Words and their owners
///
/// Shared state is in user memory, in [`UmcgTask`]; what a provider keeps beside it (who holds
/// which slot) is private to it. "Own" below means: may dispatch, re-home, or dispose of.
///
/// * A RUNNABLE worker has exactly one owner: the list or queue it was put on, the idle pool,
///   or the `next_tid` it is armed in. The owner alone may name it in `wait`.
/// * A RUNNING worker owns itself. A BLOCKED one is owned by nobody: it comes back by itself.
/// * `server_tid` of a worker is written by the owner of a drained RUNNABLE worker.
///
/// # Examples
///
/// A server runs one worker, which yields and then sleeps in a system call:
///
/// ```
/// use std::{
///     collections::VecDeque,
///     ptr::NonNull,
///     sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
///     thread,
///     time::Duration,
/// };
/// use umcg_sys::{ProviderChoice, Error, List, Placement, Provider, Register, UmcgTask, select};
///
/// /// The worker that yielded and waits for its next turn; 0 = none.
/// static YIELDED: AtomicU32 = AtomicU32::new(0);
/// static DONE: AtomicBool = AtomicBool::new(false);
///
/// fn work(provider: &dyn Provider, own: &UmcgTask) -> Result<(), Error> {
///     // A yield: out of RUNNING, into a queue, and asleep.
///     while !own.leave() {
///         provider.checkpoint()?; // taken for blocked: queue up first
///     }
///     YIELDED.store(own.tid(), SeqCst); // from here on the server owns this worker
///     provider.wait(0, 0)?;
///     // Whatever may block is followed by a checkpoint.
///     thread::sleep(Duration::from_millis(1));
///     provider.checkpoint()?;
///     DONE.store(true, SeqCst);
///     Ok(())
/// }
///
/// fn serve(provider: &dyn Provider, own: &UmcgTask) -> Result<(), Error> {
///     let mut queue = VecDeque::new();
///     while !DONE.load(SeqCst) {
///         own.begin_drain();
///         let runnable = own.take(List::Runnable);
///         own.take(List::Blocked).for_each(drop); // nothing to dequeue
///         // SAFETY: the tasks live to the end of `main`.
///         queue.extend(runnable.map(|task| unsafe { task.as_ref() }.tid()));
///         queue.extend(Some(YIELDED.swap(0, SeqCst)).filter(|&tid| tid != 0));
///         own.set_next_tid(queue.front().copied().unwrap_or(0));
///         match provider.wait(0, 0) {
///             Ok(()) if own.next_tid() == 0 => drop(queue.pop_front()), // it ran
///             Ok(()) => {} // an event came first, and the pick is still ours
///             Err(error) if error.is_busy() => {
///                 // A worker has the slot: sleep until it leaves.
///                 own.begin_drain();
///                 own.set_next_tid(0);
///                 provider.wait(0, 0)?;
///             }
///             Err(error) => return Err(error),
///         }
///     }
///     Ok(())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let provider = select(ProviderChoice::Auto)?.provider;
///     let provider = provider.as_ref();
///     let (server, worker) = (UmcgTask::for_current_thread(0), UmcgTask::new());
///     // SAFETY: the task stays in place until it has unregistered, below.
///     unsafe { provider.register(NonNull::from(&server), &Register::server(Placement::Auto))? };
///     thread::scope(|scope| -> Result<(), Error> {
///         let thread = scope.spawn(|| -> Result<(), Error> {
///             worker.prepare(server.tid());
///             let own = NonNull::from(&worker);
///             // SAFETY: as above. Returns when the server first runs this worker.
///             unsafe { provider.register(own, &Register::worker())? };
///             work(provider, &worker)?;
///             provider.unregister(own) // gives the slot back and wakes the server
///         });
///         serve(provider, &server)?;
///         assert!(provider.counters(server.tid()).is_some_and(|count| count.dispatches > 0));
///         // Takes the worker's last events off the lists, for which its `unregister` may wait.
///         provider.unregister(NonNull::from(&server))?;
///         thread.join().expect("the worker does not panic")
///     })?;
///     println!("{}", provider.describe());
///     Ok(())
/// }
/// ```
///
/// A server that idles is woken from outside, here for nothing:
///
/// ```
/// use std::{ptr::NonNull, thread};
/// use umcg_sys::{ProviderChoice, Placement, Register, UmcgTask, select};
///
/// let provider = select(ProviderChoice::Auto)?.provider;
/// let own = UmcgTask::for_current_thread(0);
/// // SAFETY: the task stays in place until it has unregistered.
/// unsafe { provider.register(NonNull::from(&own), &Register::server(Placement::Auto))? };
/// own.begin_drain(); // from here on a wake-up ends `wait`, however early it comes
/// thread::scope(|scope| {
///     scope.spawn(|| provider.wake(own.tid()));
///     provider.wait(0, 0)
/// })?;
/// assert_eq!(provider.current(own.tid()), None); // no worker in its slot
/// provider.unregister(NonNull::from(&own))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The way of a worker that has run out of tasks, which need not queue up for a slot in which it
/// would have nothing to do:
///
/// ```
/// use umcg_sys::{Error, Provider, UmcgTask};
///
/// fn rest(
///     provider: &dyn Provider,
///     own: &UmcgTask,
///     has_task: &dyn Fn() -> bool,
///     publish_idle: impl Fn(u32),
/// ) -> Result<(), Error> {
///     if provider.try_checkpoint(has_task)? {
///         while !own.leave() {
///             provider.checkpoint()?;
///         }
///     } else {
///         own.leave_judged();
///     }
///     publish_idle(own.tid());
///     provider.wait(0, 0)
/// }
/// ```
///
/// # Safety
///
/// An implementation keeps, for every registered task:
///
/// 1. At most one worker holds the slot of a server at any time, and only the holder's return
///    from `wait`, `register` or `checkpoint` says RUNNING.
/// 2. It reads and writes a [`UmcgTask`] only between `register` and the return of
///    `unregister` (or the end of the thread).
/// 3. No event is lost: a worker on a server's `runnable_ptr` list, or a server whose slot
///    became free, is followed by a return of that server's `wait`.
/// 4. `wait` returns `Ok` to a registered task only when its state is RUNNING.
///
/// A blocked event is information, and no more is promised of it than that at least one follows
/// each reported block of a RUNNING worker. One block may be told more than once: whoever
/// finds a verdict books it, since the judge may have been stopped before it did, and a list that
/// was drained in between does not remember. To tell it once a booker would have to be waited
/// for.
///
/// None of the calls may be made from a signal handler or between `vfork` and `exec`. In a
/// forked child every call of a task that its parent registered fails with ESRCH.
pub unsafe trait Provider: fmt::Debug + Send + Sync {
    /// Which implementation this is.
    fn kind(&self) -> ProviderKind;

    /// What this provider can promise.
    fn facts(&self) -> Facts;

    /// Makes the calling thread a UMCG task; an [example](Provider#examples).
    ///
    /// A server registers as RUNNING and the call returns at once. For a worker registering is
    /// admission and counts as an unblock: it is pushed on its server's `runnable_ptr`, and the
    /// call returns when a server first runs it.
    ///
    /// # Errors
    ///
    /// * EINVAL: unknown flags or version; the thread is registered; `tid` is not the caller's;
    ///   a state that is not NONE; a `next_tid` that is not 0; a server whose `server_tid` is not
    ///   its own tid; a CPU outside the affinity mask.
    /// * ESRCH: no such server, or it went away before it ran this worker; a forked child.
    /// * ENOMEM, EAGAIN: no room for another task, or a helper thread could not be made.
    ///
    /// After an error the thread is not registered, and nothing of the task was changed.
    ///
    /// # Safety
    ///
    /// `task` stays valid, and is not moved, until `unregister` returned or the thread ended.
    unsafe fn register(&self, task: NonNull<UmcgTask>, how: &Register) -> Result<(), Error>;

    /// Makes the calling thread an ordinary thread again; its `state` becomes NONE. An
    /// [example](Provider#examples).
    ///
    /// A worker gives its slot back and its server is woken. It waits until the worker is on
    /// no list, for which its server may have to drain. A server's workers become ordinary
    /// threads: those asleep in a call return from it with ESRCH, the others see ESRCH at
    /// their next call. Their events are dropped.
    ///
    /// # Errors
    ///
    /// EINVAL: not registered, or with another task. EBUSY: a server that is not RUNNING; a worker
    /// that has left RUNNING, so that somebody else owns it. A worker that was judged, in truth
    /// or by a late mirror, is not refused: it stops until it is picked, or leaves at once.
    fn unregister(&self, task: NonNull<UmcgTask>) -> Result<(), Error>;

    /// Gives up the CPU: to `next_tid`, or else to the server; a server without a pick idles.
    /// Returns when the caller is RUNNING. [Examples](Provider#examples) of both, and the server
    /// loop in the [crate's page](crate).
    ///
    /// In order: (1) state RUNNING: `Ok` at once; a worker in state BLOCKED has not left either
    /// (it was judged, see `checkpoint`): `Ok` once it may run. (2) The target is `next_tid`, else
    /// `server_tid`; a server whose target is itself idles until RUNNING or `deadline_ns`
    /// (absolute CLOCK_MONOTONIC, 0 = none). (3) A server whose slot a worker still holds never
    /// switches: with `next_tid` 0 or that worker it sleeps on, with another it gets EBUSY and
    /// must [`preempt`](Self::preempt) first. (4) The target is claimed. (5) The target is
    /// woken and the caller sleeps, on the same CPU; spurious wake-ups and signals do not end
    /// the sleep.
    ///
    /// The `Ok` of a server does not say whether the switch was made: an event after the drain
    /// makes it return at once. `next_tid` does: it is cleared when the switch commits, and a
    /// pick that is still there goes back to the scheduler.
    ///
    /// A worker that does not hold a slot (it was judged meanwhile) wakes nobody and sleeps
    /// until it is picked; a target that it chose is handed to its server by a runnable event,
    /// so that the choice is not lost.
    ///
    /// A worker that has published itself may be picked before it gets here. Then nothing is
    /// switched, and its own choice stays in `next_tid`, for it to dispose of.
    ///
    /// # Errors
    ///
    /// The caller is RUNNING after each but the last EINVAL, and `next_tid` untouched.
    ///
    /// * EINVAL: not registered, unknown flags, a worker with flags or a deadline, a worker that
    ///   is its own target. And a state in which nobody waits: NONE, a number that is no state,
    ///   BLOCKED for a server. It is left as it is, for whoever wrote it there.
    /// * ESRCH: no such task, or (worker) its server went away while it slept; a forked child.
    /// * EBUSY: the target is not RUNNABLE, or not of this server, or rule 3.
    /// * ETIMEDOUT: the deadline, servers only.
    fn wait(&self, deadline_ns: u64, flags: u32) -> Result<(), Error>;

    /// Takes a RUNNING worker out of its slot.
    ///
    /// On the device the worker becomes RUNNABLE and is pushed on `runnable_ptr`. On the emulated
    /// provider it is treated as blocked: it runs on unmanaged, and stops at its next checkpoint.
    /// Either way its server becomes RUNNING. A worker that is not RUNNING is left alone, and that
    /// is no error: a preemption that comes late, or is lost, does no harm.
    ///
    /// The tid of a server is accepted as well, and is treated as by [`wake`](Self::wake).
    ///
    /// # Errors
    ///
    /// ESRCH: no such registered task in this process.
    fn preempt(&self, tid: u32) -> Result<(), Error>;

    /// Wakes a server that sleeps in [`wait`](Self::wait): its state goes from RUNNABLE to
    /// RUNNING, and its `wait` returns. This is how other threads tell a server of work; an
    /// [example](Provider#examples).
    ///
    /// A server that is awake is left alone, and that is no error. The worker in the server's
    /// slot, if there is one, keeps running.
    ///
    /// # Errors
    ///
    /// ESRCH: no such registered server in this process.
    fn wake(&self, server_tid: u32) -> Result<(), Error>;

    /// To be called by a worker after whatever may have blocked, before it touches anything
    /// that its server schedules: if it was judged it stops here until it is picked. An
    /// [example](Provider#examples).
    ///
    /// Where the kernel stops an unblocked worker itself this is a no-op. Cheap (two loads)
    /// when nothing happened. A server may call it: nothing happens.
    ///
    /// # Errors
    ///
    /// EINVAL: not registered. ESRCH: the server is gone, or this is a forked child; the
    /// thread is an ordinary one from here on.
    fn checkpoint(&self) -> Result<(), Error>;

    /// [`checkpoint`](Self::checkpoint) for a worker in the middle of nothing, which need not
    /// run on: it never sleeps. `true`: the caller holds its slot. `false`: it was judged, and
    /// runs without a slot; all it may do is [`leave_judged`](UmcgTask::leave_judged), publish
    /// itself as a worker without work, and `wait`. An [example](Provider#examples).
    ///
    /// `wanted` says, if it comes to that, whether the worker has anything to do in a slot: one
    /// that is to be had without a switch is taken only then.
    ///
    /// Where the kernel stops an unblocked worker itself it is always `true`.
    ///
    /// # Errors
    ///
    /// Those of `checkpoint`.
    fn try_checkpoint(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        let _ = wanted;
        self.checkpoint().map(|()| true)
    }

    /// Takes an armed worker back from `worker`, which the caller dispatches: its server, or
    /// the worker itself. `Some(tid)`: the caller owns it again. `None`: nothing was armed, or
    /// a block consumed it.
    ///
    /// A worker that its server may have armed calls this before it leaves RUNNING, whatever its
    /// `next_tid` says: a block that consumed the armed one, and is still being carried out by
    /// somebody else, is finished with when this returns, so that the next arming is not taken
    /// for that one.
    ///
    /// Arming is a server's, at dispatch: it sets the `next_tid` of the worker it is about to
    /// name in its own, to one of its idle workers, which from then on belongs to that worker
    /// (trace A9).
    fn disarm(&self, worker: &UmcgTask) -> Option<u32>;

    /// The worker that holds the slot of this server, by its tid; `None` while the server runs
    /// or idles. A snapshot: it may be over when the call returns. A server that is awake with
    /// a worker in its slot (a deadline, or a worker that took the slot while the server idled)
    /// learns here whom to [`preempt`](Self::preempt).
    fn current(&self, server_tid: u32) -> Option<u32>;

    /// Work has been queued for this server while one of its workers runs; `has_work` says so
    /// too. A provider that watches instead of being told starts watching. Cheap when it
    /// already does: one load. Unknown servers are ignored.
    ///
    /// To be called after the work was made visible *and* a SeqCst fence: it is the second half
    /// of "work, then look", and the caller has a fence there anyway. If the work is still there
    /// after a look, behind the same worker, a provider that [watches](Facts::watches) calls the
    /// server's [`Overdue`]: the caller need wake nobody else for it.
    fn work_waiting(&self, server_tid: u32);

    /// What was counted for a server so far; `None` when there is no such server.
    fn counters(&self, server_tid: u32) -> Option<ServerCounters>;

    /// One sentence for the log: how this provider sees blocks here, and what it lacks. As of now:
    /// what the system refuses later, to a server that registers for one, is said from then on.
    fn describe(&self) -> String;
}
