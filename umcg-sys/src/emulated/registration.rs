//! `Emulated`: the implementation of [`Provider`], and how threads register and unregister.

use std::{
    cell::{Cell, RefCell},
    ptr::NonNull,
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use super::{
    affinity,
    failure::UNKNOWN_FLAGS,
    fork,
    helpers::{
        cells, monitor,
        sentinel::{self, Confirmation},
    },
    os::{self, ThreadState},
    packed::{Index, Phase},
    record::{Record, status},
    registry::{OwnTask, REGISTRY},
};
use crate::{
    Call, Error, Facts, HasWork, Placement, Provider, ProviderKind, REGISTER_VERSION_MASK,
    REGISTER_WORKER, Register, ServerCounters, UmcgTask, WAIT_TAKE_OVER, state,
};

/// How an [`Emulated`] provider behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmulatedOptions {
    /// Whether a server with [`Placement::Auto`] is pinned to a CPU. Default: true.
    ///
    /// An unpinned server has no sentinel. The monitor alone sees blocks there, within 50 us to 1
    /// ms, and each switch may cross CPUs.
    pub pin: bool,
}

impl Default for EmulatedOptions {
    fn default() -> Self {
        Self { pin: true }
    }
}

/// UMCG on futexes and helper threads: for any Linux since 4.14, without privilege.
///
/// All objects of this type in a process share one set of registered tasks, since thread ids belong
/// to the process.
///
/// # Examples
///
/// ```
/// use umcg_sys::{Emulated, EmulatedOptions, Provider};
///
/// let provider = Emulated::new(EmulatedOptions::default())?;
/// println!("{}", provider.describe());
/// assert!(!provider.facts().exact_stop);
/// # Ok::<(), umcg_sys::Error>(())
/// ```
#[derive(Debug)]
pub struct Emulated {
    /// How it was asked to behave.
    options: EmulatedOptions,
}

thread_local! {
    /// The index of this thread's record; 0 while the thread is not registered.
    static CURRENT: Cell<Index> = const { Cell::new(0) };
    /// The address of that record, null while the thread is not registered. Each task of an
    /// application makes a checkpoint, and so need not look the record up.
    static RECORD: Cell<*const Record> = const { Cell::new(core::ptr::null()) };
    /// What the thread keeps while it is registered. Its destructor unregisters a thread that ends
    /// without having done so.
    static REGISTERED: Registered = const {
        Registered { before: RefCell::new(None) }
    };
}

/// What a registered thread keeps for itself.
struct Registered {
    /// How the thread was scheduled before it registered. `None` while it is not registered.
    before: RefCell<Option<Before>>,
}

/// How a thread was scheduled before it registered.
struct Before {
    /// The CPUs that it might run on; `None` if the system did not say.
    mask: Option<os::CpuSet>,
    /// Its scheduling policy, a `SCHED_` constant.
    policy: i32,
    /// Its time slice; 0 for the kernel's default.
    slice_ns: u64,
}

impl Before {
    fn of_this_thread() -> Self {
        Self {
            mask: os::CpuSet::of(0).ok(),
            policy: os::policy(),
            slice_ns: os::slice(),
        }
    }

    /// Makes the calling thread scheduled like this again. What the system refuses stays as it is:
    /// the cpuset may have changed meanwhile.
    fn give_back(self) {
        if let Some(mask) = self.mask {
            let _ = mask.apply(0);
        }
        if os::policy() != self.policy {
            let _ = os::set_policy(0, self.policy);
        }
        os::set_slice(self.slice_ns);
    }
}

/// Whether the calling thread is a worker that holds its slot and whose state is RUNNING. A
/// checkpoint finds this nearly always. False also for a worker with a late report in its state,
/// for a server, and for a thread that is not registered.
fn has_nothing_to_stop_for() -> bool {
    // SAFETY: null, or the address of a record in the arena, which is never freed.
    let record = unsafe { RECORD.get().as_ref() };
    record.is_some_and(|record| {
        record.run().phase() == Phase::Acked
            && !fork::in_child()
            // SAFETY: the task's own thread, registered as long as `RECORD` names the record.
            && unsafe { record.user() }.state() == state::RUNNING
    })
}

impl Drop for Registered {
    fn drop(&mut self) {
        let index = CURRENT.replace(0);
        RECORD.set(core::ptr::null());
        if index != 0 && !fork::in_child() {
            // SAFETY: this thread registered the task, and has not unregistered it: `CURRENT` said
            // so.
            let own = unsafe { REGISTRY.own_task(index) };
            if own.status.load(SeqCst) == status::WORKER {
                REGISTRY.unregister_worker(own);
            } else {
                remove_server(own);
            }
            // The thread ends, so its scheduling need not be restored.
        }
    }
}

impl Emulated {
    /// Creates the provider. No thread is started before the first server registers.
    ///
    /// # Errors
    /// ENOSYS: the kernel has no `MADV_WIPEONFORK` (Linux before 4.14).
    pub fn new(options: EmulatedOptions) -> Result<Self, Error> {
        if !fork::mark_parent() {
            return Err(Error::new(
                Call::Register,
                libc::ENOSYS,
                "the kernel has no MADV_WIPEONFORK: Linux 4.14 or later is needed",
            ));
        }
        // Read now, before any thread is pinned.
        os::original_mask();
        Ok(Self { options })
    }

    /// The calling thread's own task.
    fn own_task(&self, call: Call) -> Result<OwnTask<'static>, Error> {
        let index = CURRENT.get();
        if index == 0 {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "the calling thread is not registered",
            ));
        }
        if fork::in_child() {
            return Err(Error::new(
                call,
                libc::ESRCH,
                "this is a forked child: the registration is its parent's",
            ));
        }
        // SAFETY: this thread registered the task, and has not unregistered it: `CURRENT` says so.
        // The caller uses the result within one call of the provider.
        Ok(unsafe { REGISTRY.own_task(index) })
    }
}

/// Refuses flags and versions that this library does not know.
fn checked_flags(how: &Register, call: Call) -> Result<(), Error> {
    if how.flags & REGISTER_VERSION_MASK != 0 {
        return Err(Error::new(
            call,
            libc::EINVAL,
            "unknown version of the interface",
        ));
    }
    if how.flags & !(REGISTER_WORKER | REGISTER_VERSION_MASK) != 0 {
        return Err(Error::new(call, libc::EINVAL, "unknown flags"));
    }
    Ok(())
}

// SAFETY: the four promises of the trait. (1) The slot word names one holder, and a worker is told
// RUNNING only for a slot that names it; see README.md. (2) Others use a task's memory only under a
// guard, and `unregister` waits for guards and links. (3) The pairs in the README's table "No
// wake-up is lost". (4) `sleep_in_gate` and `sleep_server` return `Ok` only after the state is
// RUNNING.
unsafe impl Provider for Emulated {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Emulated
    }

    fn facts(&self) -> Facts {
        // The bound is what the monitor needs on a machine full of other processes. On a quiet one
        // a block is seen within microseconds.
        Facts::new(false, false, Duration::from_millis(100)).watching()
    }

    unsafe fn register(&self, task: NonNull<UmcgTask>, how: &Register) -> Result<(), Error> {
        let call = Call::Register;
        checked_flags(how, call)?;
        if CURRENT.get() != 0 && !fork::in_child() {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "the thread is registered already",
            ));
        }
        if fork::in_child() {
            return Err(Error::new(
                call,
                libc::ESRCH,
                "a forked child cannot register: the helper threads are its parent's",
            ));
        }
        // SAFETY: the task is valid by the caller's promise.
        let user = unsafe { task.as_ref() };
        let tid = crate::gettid();
        if user.tid() != tid {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "tid is not the calling thread's",
            ));
        }
        if user.state() != state::NONE {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "the task's state is not NONE",
            ));
        }
        if user.next_tid() != 0 {
            return Err(Error::new(call, libc::EINVAL, "next_tid is not 0"));
        }
        if how.flags & REGISTER_WORKER == 0 {
            self.register_server(task, tid, how)
        } else {
            register_worker(task, tid)
        }
    }

    fn unregister(&self, task: NonNull<UmcgTask>) -> Result<(), Error> {
        let call = Call::Unregister;
        let own = self.own_task(call)?;
        let user = own.task();
        if !core::ptr::eq(user, task.as_ptr()) {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "another task than the registered one",
            ));
        }
        let worker = own.status.load(SeqCst) == status::WORKER;
        if worker {
            // If the worker was judged it stops here until it is picked. If its server is gone it
            // is an ordinary thread already, which is fine.
            let _ = REGISTRY.checkpoint(&own);
        }
        // A worker that is judged from here on unregisters all the same.
        let stays = if worker {
            REGISTRY.has_left(&own)
        } else {
            user.state() != state::RUNNING
        };
        if stays {
            return Err(Error::new(call, libc::EBUSY, "the state is not RUNNING"));
        }
        CURRENT.set(0);
        RECORD.set(core::ptr::null());
        if worker {
            REGISTRY.unregister_worker(own);
        } else {
            remove_server(own);
        }
        become_ordinary();
        Ok(())
    }

    fn wait(&self, deadline_ns: u64, flags: u32) -> Result<(), Error> {
        let call = Call::Wait;
        let own = self.own_task(call)?;
        let server = own.status.load(Relaxed) == status::SERVER;
        if flags & !WAIT_TAKE_OVER != 0 || (flags != 0 && !server) {
            return REGISTRY
                .refuse_wait(&own, UNKNOWN_FLAGS)
                .map_err(|(errno, why)| Error::new(call, errno, why));
        }
        let deadline = (deadline_ns != 0).then_some(deadline_ns);
        let outcome = if server {
            // Relaxed: it orders nothing, see the field.
            let open = u32::from(flags & WAIT_TAKE_OVER != 0);
            own.take_over_allowed.store(open, Relaxed);
            REGISTRY.wait_server(&own, deadline)
        } else {
            REGISTRY.wait_worker(&own, deadline)
        };
        outcome.map_err(|(errno, why)| Error::new(call, errno, why))
    }

    fn is_leftover(&self, worker_tid: u32) -> bool {
        !fork::in_child() && REGISTRY.is_leftover(worker_tid)
    }

    fn retake(&self, server_tid: u32, worker_tid: u32) -> Result<bool, Error> {
        if fork::in_child() {
            return Err(Error::new(
                Call::Retake,
                libc::ESRCH,
                "this is a forked child",
            ));
        }
        REGISTRY
            .retake(server_tid, worker_tid)
            .map_err(|(errno, why)| Error::new(Call::Retake, errno, why))
    }

    fn preempt(&self, tid: u32) -> Result<(), Error> {
        if fork::in_child() {
            return Err(Error::new(
                Call::Preempt,
                libc::ESRCH,
                "this is a forked child",
            ));
        }
        REGISTRY
            .preempt(tid)
            .map_err(|(errno, why)| Error::new(Call::Preempt, errno, why))
    }

    fn wake(&self, server_tid: u32) -> Result<(), Error> {
        if fork::in_child() {
            return Err(Error::new(
                Call::Wake,
                libc::ESRCH,
                "this is a forked child",
            ));
        }
        REGISTRY
            .wake(server_tid)
            .map_err(|(errno, why)| Error::new(Call::Wake, errno, why))
    }

    fn checkpoint(&self) -> Result<(), Error> {
        if has_nothing_to_stop_for() {
            return Ok(());
        }
        let own = self.own_task(Call::Checkpoint)?;
        if own.status.load(Relaxed) == status::SERVER {
            return Ok(());
        }
        REGISTRY
            .checkpoint(&own)
            .map_err(|(errno, why)| Error::new(Call::Checkpoint, errno, why))
    }

    fn try_checkpoint(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        if has_nothing_to_stop_for() {
            return Ok(true);
        }
        let own = self.own_task(Call::Checkpoint)?;
        // The child of a `vfork` shares the memory of the worker that waits for it, and is not that
        // worker.
        if own.status.load(Relaxed) == status::SERVER || own.tid.load(Relaxed) != crate::gettid() {
            return Ok(true);
        }
        REGISTRY
            .try_checkpoint(&own, wanted)
            .map_err(|(errno, why)| Error::new(Call::Checkpoint, errno, why))
    }

    fn begin_block(&self, next_tid: u32) -> Result<bool, Error> {
        // The child of a fork has no tasks, and one of `vfork` is not the worker whose memory it
        // shares.
        let Ok(own) = self.own_task(Call::BeginBlock) else {
            return Ok(false);
        };
        if own.status.load(Relaxed) != status::WORKER || own.tid.load(Relaxed) != crate::gettid() {
            return Ok(false);
        }
        REGISTRY
            .begin_block(&own, next_tid)
            .map_err(|(errno, why)| Error::new(Call::BeginBlock, errno, why))
    }

    fn end_block(&self, wanted: &dyn Fn() -> bool) -> Result<bool, Error> {
        let own = self.own_task(Call::EndBlock)?;
        REGISTRY
            .end_block(&own, wanted)
            .map_err(|(errno, why)| Error::new(Call::EndBlock, errno, why))
    }

    fn disarm(&self, worker: &UmcgTask) -> Option<u32> {
        REGISTRY.disarm(worker.tid())
    }

    fn current(&self, server_tid: u32) -> Option<u32> {
        REGISTRY.current(server_tid)
    }

    fn work_waiting(&self, _server_tid: u32) {
        REGISTRY.notify_monitor_after_fence();
    }

    fn counters(&self, server_tid: u32) -> Option<ServerCounters> {
        let server = REGISTRY.server(server_tid)?;
        let counts = &server.counts;
        Some(ServerCounters {
            cpu: usize::try_from(server.cpu.load(Relaxed)).ok(),
            dispatches: counts.dispatches.load(Relaxed),
            blocks_kernel: 0,
            blocks_announced: counts.announced.load(Relaxed),
            blocks_sentinel: counts.sentinel.load(Relaxed),
            blocks_monitor: counts.monitor.load(Relaxed),
            blocks_sibling: counts.sibling.load(Relaxed),
            refused: counts.refused.load(Relaxed),
            adopted: counts.adopted.load(Relaxed),
            self_dispatched: counts.self_dispatched.load(Relaxed),
            taken_over: counts.taken_over.load(Relaxed),
            preempted: counts.preempted.load(Relaxed),
            longest_block_ns: counts.longest_block_ns.load(Relaxed),
        })
    }

    fn describe(&self) -> String {
        let monitor = if os::thread_state(crate::gettid()) == ThreadState::Unknown {
            "the monitor thread, without /proc: a thread whose CPU clock stands still for 1 ms is \
             taken for blocked"
        } else {
            "the monitor thread (50 us to 1 ms)"
        };
        self.sentinels(monitor) + &affinity::lacks()
    }
}

impl Emulated {
    /// Says how blocks are seen, according to the self-test. `monitor` describes the monitor.
    fn sentinels(&self, monitor: &str) -> String {
        if !self.options.pin {
            return format!("emulated, not pinned: blocks are seen by {monitor}");
        }
        let number = os::original_mask().iter().next().unwrap_or(0);
        match sentinel::self_test(number) {
            Confirmation::Yield { alone_ns, quick_ns } => format!(
                "emulated: blocks are seen by an idle-priority sentinel on each server's CPU, \
                 confirmed by sched_yield ({alone_ns} ns at best, quick up to {quick_ns} ns), and on \
                 busy CPUs by {monitor}"
            ),
            Confirmation::Untimed => format!(
                "emulated: blocks are seen by an idle-priority sentinel on each server's CPU, \
                 confirmed by sched_yield (not timed: the CPU was busy at start), and on busy CPUs \
                 by {monitor}"
            ),
            Confirmation::None(why) => {
                format!("emulated, without sentinels ({why}): blocks are seen by {monitor}")
            }
        }
    }

    /// Registers the calling thread as a server: a record, a CPU with a sentinel, the monitor.
    fn register_server(
        &self,
        task: NonNull<UmcgTask>,
        tid: u32,
        how: &Register,
    ) -> Result<(), Error> {
        let call = Call::Register;
        // SAFETY: the task is valid by the caller's promise.
        let user = unsafe { task.as_ref() };
        if user.server_tid() != tid {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "server_tid of a server is its own tid",
            ));
        }
        let placement = match how.placement {
            Placement::Auto if !self.options.pin => Placement::Unpinned,
            placement => placement,
        };
        let index = REGISTRY
            .open(task.as_ptr(), tid, status::SERVER)
            .ok_or_else(|| Error::new(call, libc::ENOMEM, "no room for another task"))?;
        let undo = |why: &'static str, error: &std::io::Error| {
            // In full, since workers may have found this server already.
            // SAFETY: this thread registered the task just now, and its calls cannot see it yet.
            REGISTRY.unregister_server(unsafe { REGISTRY.own_task(index) });
            Error::new(call, error.raw_os_error().unwrap_or(libc::EAGAIN), why)
        };
        let before = Before::of_this_thread();
        let cpu = match affinity::pin_server(index, placement) {
            Ok(cpu) => cpu,
            Err(error) => {
                before.give_back();
                return Err(undo(
                    "the CPU is not available, or no sentinel can be started on it",
                    &error,
                ));
            }
        };
        let record = REGISTRY.record(index);
        record.cpu.store(cpu.map_or(-1, |cpu| cpu as i32), Relaxed);
        if let Err(error) = monitor::attach(index, how.has_work.clone(), how.overdue.clone()) {
            affinity::unpin_server(index);
            before.give_back();
            return Err(undo("no thread for the monitor", &error));
        }
        os::set_slice(os::SLICE_NS);
        let _ = user.transition(state::NONE, state::RUNNING);
        enter(index, before, how.has_work.clone());
        #[cfg(feature = "fault-injection")]
        super::fault::start_from_env();
        Ok(())
    }
}

/// Registers the calling thread as a worker of the server in its `server_tid`, and returns when a
/// server first runs it.
fn register_worker(task: NonNull<UmcgTask>, tid: u32) -> Result<(), Error> {
    let call = Call::Register;
    // SAFETY: the task is valid by the caller's promise.
    let user = unsafe { task.as_ref() };
    let Some(server) = REGISTRY.server(user.server_tid()) else {
        return Err(Error::new(
            call,
            libc::ESRCH,
            "no registered server has the tid in server_tid",
        ));
    };
    let index = REGISTRY
        .open(task.as_ptr(), tid, status::WORKER)
        .ok_or_else(|| Error::new(call, libc::ENOMEM, "no room for another task"))?;
    let before = Before::of_this_thread();
    // If a sandbox refuses, the worker keeps its policy, and switches are slower.
    if !os::become_worker().unwrap_or(false) {
        affinity::NO_SLICES.store(1, Relaxed);
    }
    let record = REGISTRY.record(index);
    record.cpu.store(-1, Relaxed);
    REGISTRY.follow_server(record, &server);
    drop(server);
    enter(index, before, None);
    // Admission counts as an unblock: the worker queues, and passes its gate when it is picked.
    // SAFETY: this thread registered the task just now.
    let own = unsafe { REGISTRY.own_task(index) };
    let picked = REGISTRY
        .enqueue_self(&own)
        .and_then(|()| REGISTRY.sleep_in_gate(&own));
    picked.map_err(|(errno, why)| {
        CURRENT.set(0);
        RECORD.set(core::ptr::null());
        REGISTRY.unregister_worker(own);
        become_ordinary();
        Error::new(call, errno, why)
    })
}

/// Makes the record the one of the calling thread.
fn enter(index: Index, before: Before, has_work: Option<HasWork>) {
    CURRENT.set(index);
    RECORD.set(REGISTRY.record(index));
    cells::set_has_work(has_work);
    // The first use arranges for the destructor. If a thread registers from another thread-local
    // destructor, after this one has run, it must unregister by itself.
    let _ = REGISTERED.try_with(|registered| {
        registered.before.replace(Some(before));
    });
}

/// Restores the scheduling of a thread that unregistered and goes on.
fn become_ordinary() {
    cells::set_has_work(None);
    let _ = REGISTERED.try_with(|registered| {
        if let Some(before) = registered.before.take() {
            before.give_back();
        }
    });
}

/// Unregisters the calling server, and gives up what was made for it.
fn remove_server(own: OwnTask<'_>) {
    monitor::detach(own.index());
    affinity::unpin_server(own.index());
    REGISTRY.unregister_server(own);
}
