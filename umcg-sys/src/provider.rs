//! The contract between an application and the provider that plays the kernel for it.
//!
//! The documentation of [`Provider`] is the contract. One conformance suite (package `umcg-tests`
//! in the repository) runs over every implementation.

use std::{fmt, ptr::NonNull, sync::Arc, time::Duration};

use crate::{Error, UmcgTask};

/// Flag of [`Register::flags`]: the task is a worker. Without it the task is a server.
pub const REGISTER_WORKER: u32 = 1;

/// Flag of a server's [`wait`](Provider::wait): no worker waits to be picked, so unblocked workers
/// may follow each other without the server.
///
/// While the server sleeps in this `wait`, a worker of it that unblocks may take the slot over from
/// a worker that has blocked in it. This saves two switches, to the server and from it. The flag is
/// a permission and no request: the device, for which it would save nothing, ignores it.
pub const WAIT_TAKE_OVER: u32 = 1;

/// Bits 24 to 31 of [`Register::flags`]: the version of the ABI that the caller uses. This library
/// has version 0.
pub const REGISTER_VERSION_MASK: u32 = 0xff00_0000;

/// The implementations of [`Provider`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProviderKind {
    /// The kernel itself, by a loadable module and its device `/dev/umcg`.
    Device,
    /// Futexes and helper threads, on any Linux and without privilege.
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

/// What providers may differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Whether an unblocked worker runs no user code before its server picks it. If false, it runs
    /// on unmanaged to its next [`Provider::checkpoint`].
    pub exact_stop: bool,
    /// Whether each block is reported. If false, the provider may not see a block that is very
    /// short, and does not see a block of an unmanaged worker.
    pub every_block: bool,
    /// How long it takes at most, after a RUNNING worker has gone to sleep, until its server runs
    /// something else. This holds while work waits and a CPU is available.
    pub block_bound: Duration,
    /// Whether [`Provider::work_waiting`] makes the provider watch a server, and the provider calls
    /// the server's [`Overdue`]. If false, the application itself has to take care of work that
    /// waits behind a worker which keeps running.
    pub watches: bool,
}

impl Facts {
    /// Creates the facts of a provider that does not watch.
    #[must_use]
    pub const fn new(exact_stop: bool, every_block: bool, block_bound: Duration) -> Self {
        Self {
            exact_stop,
            every_block,
            block_bound,
            watches: false,
        }
    }

    /// The same facts for a provider that [watches](Self::watches).
    #[must_use]
    pub const fn watching(mut self) -> Self {
        self.watches = true;
        self
    }
}

/// On which CPU a server and its workers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// What the provider prefers.
    ///
    /// Emulated: the CPU in the affinity mask of the registering thread that the fewest servers of
    /// the process use. A thread that a server or a worker has created inherits the pin of its
    /// creator; see [`unmanage_current_thread`](crate::unmanage_current_thread). Device: not
    /// pinned.
    #[default]
    Auto,
    /// This CPU. It must be in the affinity mask of the registering thread.
    Cpu(usize),
    /// Not pinned. The emulated provider then has no sentinel for the server, and only its monitor
    /// sees blocks.
    Unpinned,
}

/// A question to the application: does work wait for this server that its two lists do not show?
///
/// The provider calls it, also from threads of its own. It must not block, allocate or panic.
pub type HasWork = Arc<dyn Fn() -> bool + Send + Sync>;

/// A message to the application: work has waited for this server through a whole look of the
/// provider, while the worker in its slot kept running.
///
/// `Some(tid)`: the provider wakes that server, which is to take the work, as by
/// [`Provider::wake`].
///
/// A provider that [watches](Facts::watches) calls it from a thread of its own. It must not block,
/// allocate or panic.
pub type Overdue = Arc<dyn Fn() -> Option<u32> + Send + Sync>;

/// How a task registers.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Register {
    /// [`REGISTER_WORKER`] and the version. Other bits are refused.
    pub flags: u32,
    /// Of a server: where it runs. A worker runs where its server does.
    pub placement: Placement,
    /// Of a server: tells whether work waits for it. `None`: only its lists count.
    pub has_work: Option<HasWork>,
    /// Of a server: called when work waits behind a worker that keeps running. `None`: nothing
    /// happens then.
    pub overdue: Option<Overdue>,
}

impl Register {
    /// Registers a server.
    #[must_use]
    pub fn server(placement: Placement) -> Self {
        Self {
            flags: 0,
            placement,
            has_work: None,
            overdue: None,
        }
    }

    /// Registers a worker of the server that the task's `server_tid` names.
    #[must_use]
    pub fn worker() -> Self {
        Self {
            flags: REGISTER_WORKER,
            placement: Placement::Auto,
            has_work: None,
            overdue: None,
        }
    }

    /// Sets what is called when work waits behind a worker that keeps running.
    #[must_use]
    pub fn overdue(mut self, overdue: Overdue) -> Self {
        self.overdue = Some(overdue);
        self
    }

    /// Sets how the provider asks for work that the server's lists do not show.
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

/// What a provider has counted for one server since it registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCounters {
    /// The CPU that the server is pinned to, if any.
    pub cpu: Option<usize>,
    /// How often a worker was given the slot by a dispatch.
    pub dispatches: u64,
    /// Blocks that the kernel reported (device).
    pub blocks_kernel: u64,
    /// Blocks that the workers announced themselves ([`Provider::begin_block`]).
    pub blocks_announced: u64,
    /// Blocks that the sentinel found (emulated).
    pub blocks_sentinel: u64,
    /// Blocks that the monitor found (emulated).
    pub blocks_monitor: u64,
    /// Blocks that another worker of this server found, at its checkpoint after a block of its own
    /// (emulated).
    pub blocks_sibling: u64,
    /// How often a suspected block was not confirmed (emulated).
    pub refused: u64,
    /// Workers that had been judged, were found awake, and got the slot in place of another worker
    /// (emulated).
    pub adopted: u64,
    /// Unblocked workers that took the slot of the idle server without a switch (emulated).
    pub self_dispatched: u64,
    /// Unblocked workers that took the slot over from a worker which had blocked in it (emulated,
    /// by [`WAIT_TAKE_OVER`]).
    pub taken_over: u64,
    /// Preemptions that took effect.
    pub preempted: u64,
    /// The longest block that was reported and has ended, in nanoseconds. A preemption does not
    /// count.
    ///
    /// Emulated: measured from the verdict, right or wrong, to the worker's next checkpoint, or
    /// until it is adopted. This includes the time for which the worker computed after its block.
    pub longest_block_ns: u64,
}

/// The calls by which an application and the kernel, or a thread that plays it, schedule workers.
///
/// These are the calls of the design mail, and a few more. A provider does what only a kernel could
/// do by itself: it reports to a server that its worker has blocked, and it makes an unblocked
/// worker wait until its server picks it.
///
/// # Contract
///
/// *Owning* a worker means: having the right to dispatch it, to move it to another server, or to
/// dispose of it otherwise. The state that tasks share is in user memory, in [`UmcgTask`]. What a
/// provider keeps in addition (who holds which slot) is private to it.
///
/// The application keeps these rules:
///
/// 1. **One owner.** A RUNNABLE worker has exactly one owner: the list or queue that it was put on,
///    the idle pool, or the `next_tid` that it is armed in. Only the owner may name it in a `wait`.
///    A RUNNING worker owns itself. Nobody owns a BLOCKED worker; it comes back by itself.
/// 2. **Leave, then queue.** A worker leaves RUNNING by [`UmcgTask::leave`] before it puts itself
///    into any queue. If that fails the worker makes a checkpoint and tries again (trace A8).
///    Between leaving and `wait` it takes no lock, does not allocate, and touches no memory for the
///    first time (trace B10).
/// 3. **Drain in order.** A server becomes RUNNABLE before it drains ([`UmcgTask::begin_drain`]).
///    It takes its runnable list first and its blocked list second, and processes the blocked list
///    first (trace A2).
/// 4. **Moving.** The `server_tid` of a worker is written only by the owner of that worker, while
///    it is RUNNABLE and its events have been drained.
/// 5. **Arming.** Only a server arms: before it dispatches a worker it may set that worker's
///    `next_tid` to one of its own idle workers. That idle worker, the spare, belongs to the armed
///    worker until a block consumes it or [`disarm`](Self::disarm) takes it back (trace A9).
/// 6. **Checkpoints.** A worker calls [`checkpoint`](Self::checkpoint) after whatever may have
///    blocked, before it uses anything that its server schedules.
/// 7. **Memory.** A task stays in place from `register` to the return of `unregister`, or to the
///    end of its thread. The memory of a worker outlives the drain in which its server sees the
///    worker's last event.
/// 8. **Context.** No call is made from a signal handler, nor between `vfork` and `exec`. In a
///    forked child all calls for tasks of the parent fail with ESRCH.
///
/// A server whose CPU several workers share should give its `wait` a deadline while a worker waits
/// to be picked, and preempt the worker in its slot when the deadline passes. Otherwise a worker
/// that never blocks keeps the slot. If that worker spins on a lock whose holder waits to be
/// picked, neither ever runs on (trace A13).
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
/// /// The worker that yielded and waits for its next turn; 0 for none.
/// static YIELDED: AtomicU32 = AtomicU32::new(0);
/// static DONE: AtomicBool = AtomicBool::new(false);
///
/// fn work(provider: &dyn Provider, own: &UmcgTask) -> Result<(), Error> {
///     // A yield: leave RUNNING, enter a queue, sleep.
///     while !own.leave() {
///         provider.checkpoint()?; // judged: queue for a slot first
///     }
///     YIELDED.store(own.tid(), SeqCst); // from here on the server owns this worker
///     provider.wait(0, 0)?;
///     // A checkpoint follows whatever may block.
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
///             Ok(()) if own.next_tid() == 0 => drop(queue.pop_front()), // switched
///             Ok(()) => {} // an event came first: the pick is still ours
///             Err(error) if error.is_busy() => {
///                 // A worker holds the slot: sleep until it leaves.
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
///             // SAFETY: as above. The call returns when the server first runs this worker.
///             unsafe { provider.register(own, &Register::worker())? };
///             work(provider, &worker)?;
///             provider.unregister(own) // gives the slot back and wakes the server
///         });
///         serve(provider, &server)?;
///         assert!(provider.counters(server.tid()).is_some_and(|count| count.dispatches > 0));
///         // Takes the worker's last events off the lists; its `unregister` may wait for that.
///         provider.unregister(NonNull::from(&server))?;
///         thread.join().expect("the worker does not panic")
///     })?;
///     println!("{}", provider.describe());
///     Ok(())
/// }
/// ```
///
/// Another thread wakes an idle server:
///
/// ```
/// use std::{ptr::NonNull, thread};
/// use umcg_sys::{ProviderChoice, Placement, Register, UmcgTask, select};
///
/// let provider = select(ProviderChoice::Auto)?.provider;
/// let own = UmcgTask::for_current_thread(0);
/// // SAFETY: the task stays in place until it has unregistered.
/// unsafe { provider.register(NonNull::from(&own), &Register::server(Placement::Auto))? };
/// own.begin_drain(); // from here on a wake-up ends the next `wait`, even if it comes before
/// thread::scope(|scope| {
///     scope.spawn(|| provider.wake(own.tid()));
///     provider.wait(0, 0)
/// })?;
/// assert_eq!(provider.current(own.tid()), None); // no worker holds its slot
/// provider.unregister(NonNull::from(&own))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A worker that has run out of tasks does not queue for a slot, in which it would have nothing to
/// do:
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
/// An implementation keeps these rules for every registered task:
///
/// 1. **One holder.** At most one worker holds the slot of a server at any time. A worker is told
///    that it is RUNNING, by a return from `wait`, `register` or `checkpoint`, only while it holds
///    a slot.
/// 2. **Memory.** The provider reads and writes a [`UmcgTask`] only from `register` to the return
///    of `unregister`, or to the end of the task's thread.
/// 3. **No lost event.** After a worker was pushed on a server's `runnable_ptr`, or a server's slot
///    became free, that server's `wait` returns.
/// 4. **RUNNING.** `wait` returns `Ok` to a registered task only if its state is RUNNING.
///
/// Each block of a RUNNING worker that the provider sees is followed by at least one event on
/// `blocked_ptr`. It may be followed by several: the judge may be stopped before it reports its
/// verdict, so every thread that finds a verdict reports it, and a list which has been drained in
/// between does not remember. A blocked event therefore is information and promises no more.
pub unsafe trait Provider: fmt::Debug + Send + Sync {
    /// Says which implementation this is.
    fn kind(&self) -> ProviderKind;

    /// Says what this provider promises.
    fn facts(&self) -> Facts;

    /// Makes the calling thread a UMCG task. See the [examples](Provider#examples).
    ///
    /// *A server* is RUNNING afterwards, and the call returns at once. *A worker* is admitted,
    /// which counts as an unblock: it is pushed on its server's `runnable_ptr`, and the call
    /// returns when a server first runs it.
    ///
    /// # Errors
    ///
    /// After an error the thread is not registered, and the task was not changed.
    ///
    /// * EINVAL: the flags or the version are unknown; the thread is registered already; `tid` is
    ///   not the caller's; the state is not NONE; `next_tid` is not 0; the `server_tid` of a server
    ///   is not its own tid; or the CPU is not in the affinity mask.
    /// * ESRCH: there is no such server, or it went away before it ran this worker; or the caller
    ///   is a forked child.
    /// * ENOMEM, EAGAIN: there is no room for another task, or a helper thread could not be
    ///   created.
    ///
    /// # Safety
    ///
    /// `task` stays valid, and is not moved, until `unregister` has returned or the thread has
    /// ended.
    unsafe fn register(&self, task: NonNull<UmcgTask>, how: &Register) -> Result<(), Error>;

    /// Makes the calling thread an ordinary thread again; its state becomes NONE. See the
    /// [examples](Provider#examples).
    ///
    /// *A worker* gives its slot back, and its server is woken. The call then waits until the
    /// worker is on no list, which may need a drain by its server.
    ///
    /// *A server* makes its workers ordinary threads. Those that sleep in a call return from it
    /// with ESRCH, the others get ESRCH from their next call. Their events are dropped.
    ///
    /// # Errors
    ///
    /// * EINVAL: the thread is not registered, or is registered with another task.
    /// * EBUSY: a server that is not RUNNING; or a worker that has left RUNNING, so that somebody
    ///   else owns it. A worker that was judged, or whose state says BLOCKED late, is not refused:
    ///   it stops until it is picked, and then unregisters.
    fn unregister(&self, task: NonNull<UmcgTask>) -> Result<(), Error>;

    /// Gives the CPU up: to the task in `next_tid`, or to the caller's server if that is 0. A
    /// server without a pick idles. Returns when the caller is RUNNING. See the
    /// [examples](Provider#examples), and the server's loop in the [crate's page](crate).
    ///
    /// In order:
    ///
    /// 1. If the caller's state is RUNNING the call returns `Ok` at once. A worker whose state is
    ///    BLOCKED has not left either: it was judged, and the call is a
    ///    [`checkpoint`](Self::checkpoint).
    /// 2. The target is the task in `next_tid`, else the server in `server_tid`. A server whose
    ///    target is itself idles until it is RUNNING or until `deadline_ns` (CLOCK_MONOTONIC,
    ///    absolute; 0 for none).
    /// 3. A server whose slot is held by a worker never switches. With `next_tid` 0, or with that
    ///    worker in it, the server sleeps on. With another worker in it the call fails with EBUSY;
    ///    the server must [`preempt`](Self::preempt) first.
    /// 4. The target is claimed.
    /// 5. The target is woken and the caller sleeps, on the same CPU. Signals and spurious wake-ups
    ///    do not end the sleep.
    ///
    /// *A server* that gets `Ok` does not know yet whether the switch was made: an event since its
    /// drain makes the call return at once. `next_tid` tells. It was cleared if the switch was
    /// made; a pick that is still there belongs to the server, for its next choice.
    ///
    /// *A worker* that has lost its slot meanwhile switches to nobody and sleeps until it is
    /// picked. If it had chosen a target, the target becomes a runnable event of its own server, so
    /// the choice is not lost. A worker that has queued itself may be picked before it gets here.
    /// Then nothing is switched either, its choice stays in `next_tid`, and the worker has to
    /// dispose of it.
    ///
    /// # Errors
    ///
    /// After an error the caller is RUNNING and `next_tid` is unchanged, except where a state is
    /// refused.
    ///
    /// * EINVAL: the thread is not registered; the flags are unknown; a worker passes flags or a
    ///   deadline; a worker is its own target. Also a state in which no task waits: NONE, a number
    ///   that is no state, or BLOCKED on a server. That state is left as it is.
    /// * ESRCH: there is no such task; the server of a worker went away while the worker slept; or
    ///   the caller is a forked child.
    /// * EBUSY: the target is not RUNNABLE, or belongs to another server; or rule 3 applies.
    /// * ETIMEDOUT: the deadline passed. Only a server has one.
    fn wait(&self, deadline_ns: u64, flags: u32) -> Result<(), Error>;

    /// Takes the slot from a RUNNING worker, and wakes its server.
    ///
    /// On the device the worker stops, becomes RUNNABLE, and is pushed on `runnable_ptr`. With the
    /// emulated provider the worker is treated as if it had blocked: it runs on unmanaged and stops
    /// at its next checkpoint.
    ///
    /// A worker that is not RUNNING is left alone, and that is no error: a preemption which comes
    /// late, or is lost, does no harm. The tid of a server is accepted as well, and is treated as
    /// by [`wake`](Self::wake).
    ///
    /// # Errors
    ///
    /// ESRCH: no registered task of this process has this tid.
    fn preempt(&self, tid: u32) -> Result<(), Error>;

    /// Takes the slot of this server from a worker that sleeps in it, and gives the slot to the
    /// worker's spare or to the server, as after a block that was noticed. True: the worker has
    /// lost the slot by this call. False: it does not hold that slot.
    ///
    /// The worker has said beforehand that it is about to sleep, and that it leaves its slot to
    /// whoever has use for it. So nobody looks whether it does sleep. A worker that is awake again
    /// runs on without its slot to its next checkpoint, as after any wrong report of a block.
    ///
    /// Any thread may call this. It neither allocates nor blocks.
    ///
    /// Emulated: a verdict, counted in [`ServerCounters::blocks_announced`]. Device: the kernel
    /// reports every block at once, so this does nothing and returns false.
    ///
    /// # Errors
    /// ESRCH: no registered server or no registered worker has this tid.
    fn retake(&self, server_tid: u32, worker_tid: u32) -> Result<bool, Error> {
        let _ = (server_tid, worker_tid);
        Ok(false)
    }

    /// Whether this worker is a *leftover*: it lost its slot by [`preempt`](Self::preempt) and
    /// still runs without one, because it has not come to a checkpoint, ended or gone to sleep
    /// since.
    ///
    /// A server that preempts for the sake of work that needs a further worker asks this, so that
    /// it brings in a bounded number of workers beside those that compute. The answer may be
    /// outdated when it arrives. Where `preempt` stops the worker there are no leftovers. No
    /// errors: a thread that is no worker is no leftover.
    fn is_leftover(&self, worker_tid: u32) -> bool {
        let _ = worker_tid;
        false
    }

    /// Wakes a server that sleeps in [`wait`](Self::wait): its state goes from RUNNABLE to RUNNING,
    /// and its `wait` returns. By this call other threads tell a server of work. See the
    /// [examples](Provider#examples).
    ///
    /// A server that is awake is left alone, and that is no error. The worker in the server's slot,
    /// if there is one, keeps running.
    ///
    /// Pass the tid of a server only. With the tid of a worker the emulated provider fails with
    /// ESRCH. The device takes it for a [`preempt`](Self::preempt) of that worker, because the
    /// kernel module has one call for both.
    ///
    /// # Errors
    ///
    /// ESRCH: no registered server of this process has this tid.
    fn wake(&self, server_tid: u32) -> Result<(), Error>;

    /// Stops the calling worker until it is picked, if it was judged. To be called after whatever
    /// may have blocked, before the worker uses anything that its server schedules. See the
    /// [examples](Provider#examples).
    ///
    /// Costs two loads if the worker was not judged. Does nothing for a server, and where the
    /// kernel stops an unblocked worker itself.
    ///
    /// # Errors
    ///
    /// * EINVAL: the thread is not registered.
    /// * ESRCH: the server is gone, and the worker is an ordinary thread from here on; or the
    ///   caller is a forked child.
    fn checkpoint(&self) -> Result<(), Error>;

    /// [`checkpoint`](Self::checkpoint) for a worker that has nothing to finish, and so need not
    /// have a slot: it never sleeps. See the [examples](Provider#examples).
    ///
    /// `true`: the caller holds its slot. `false`: the caller was judged and runs without a slot.
    /// All that it may do then is to call [`leave_judged`](UmcgTask::leave_judged), to queue itself
    /// as an idle worker, and to `wait`.
    ///
    /// If the caller was judged and could take a slot without a switch, the provider asks `wanted`
    /// whether the caller has anything to do there, and takes the slot only then.
    ///
    /// Always `true` where the kernel stops an unblocked worker itself.
    ///
    /// # Errors
    ///
    /// Those of `checkpoint`.
    fn try_checkpoint(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        let _ = wanted;
        self.checkpoint().map(|()| true)
    }

    /// The calling worker is about to sleep in the kernel, and says so by itself, so that nobody
    /// has to notice the block. It gives its slot away, and then makes its call.
    ///
    /// With `next_tid` the slot goes directly to that worker, which must be a RUNNABLE worker of
    /// the same server that the caller owns; with 0 to the spare that is armed in the caller, or to
    /// the server. `true`: the slot was given away, and [`end_block`](Self::end_block) has to
    /// follow the call. `false`: the caller holds no slot, or the provider sees blocks without
    /// being told, and nothing was done.
    ///
    /// The default does nothing: where the kernel reports blocks there is nothing to announce.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait) for a wrong `next_tid`. The caller keeps its slot, and owns
    /// that worker still.
    fn begin_block(&self, next_tid: u32) -> Result<bool, Error> {
        let _ = next_tid;
        Ok(false)
    }

    /// The sleep that [`begin_block`](Self::begin_block) announced is over.
    ///
    /// `true`: the caller holds a slot and goes on; it has taken the slot of its idle server if
    /// `wanted` returned `true`. `false`: it has none. It must then make itself RUNNABLE by
    /// [`leave_judged`](UmcgTask::leave_judged), queue itself and call `wait`.
    ///
    /// # Errors
    ///
    /// ESRCH: the server is gone, and the caller is an ordinary thread from here on.
    fn end_block(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        self.try_checkpoint(wanted)
    }

    /// Takes the spare of `worker` back. For the server that dispatches `worker`, or for `worker`
    /// itself. `Some(tid)`: the caller owns the spare again. `None`: there was none, or a block has
    /// consumed it.
    ///
    /// A worker that its server may have armed calls this before it leaves RUNNING, whatever its
    /// `next_tid` says. Another thread may still be carrying out a block that consumed the spare.
    /// When this call has returned, that is complete, so it cannot be confused with the next
    /// arming.
    ///
    /// Rule 5 of the [contract](Provider#contract) says how a server arms.
    fn disarm(&self, worker: &UmcgTask) -> Option<u32>;

    /// Returns the tid of the worker that holds the slot of this server, and `None` while the
    /// server runs or idles. The answer may be outdated when the call returns.
    ///
    /// By this call a server that is awake while a worker runs in its slot learns which worker to
    /// [`preempt`](Self::preempt). The server may have woken by its deadline, or the worker may
    /// have taken the slot while the server idled.
    fn current(&self, server_tid: u32) -> Option<u32>;

    /// Says that work has been queued for this server while one of its workers runs. The server's
    /// [`HasWork`] says so too. A provider that looks for blocks, instead of being told of them by
    /// a kernel, starts to look. Costs one load if it already does. An unknown server is ignored.
    ///
    /// To be called after the work was made visible *and* after a SeqCst fence. The provider's
    /// helper thread stores that it sleeps, fences, and looks for work; this is the other half of
    /// that pair.
    ///
    /// If the work still waits after a look, behind the same worker, a provider that
    /// [watches](Facts::watches) calls the server's [`Overdue`]. The caller need wake nobody else
    /// for this work.
    fn work_waiting(&self, server_tid: u32);

    /// Returns what was counted for a server so far. `None`: there is no such server.
    fn counters(&self, server_tid: u32) -> Option<ServerCounters>;

    /// Describes in a sentence, for a log, how this provider sees blocks on this system, and what
    /// it has to do without. What the system refuses later is said from then on.
    fn describe(&self) -> String;
}
