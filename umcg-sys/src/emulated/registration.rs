//! `Emulated`: the trait's face of the protocol, and how threads come and go.

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
    /// Whether servers that do not say where ([`Placement::Auto`]) are pinned to a CPU each.
    /// Default true. Without pins there are no sentinels: blocks are seen by the monitor, within
    /// 50 us to 1 ms, and each hand-over may cross CPUs.
    pub pin: bool,
}

impl Default for EmulatedOptions {
    fn default() -> Self {
        Self { pin: true }
    }
}

/// UMCG by futexes and helper threads, on any Linux and without privilege.
///
/// Threads of one process share it whatever object they call, since thread ids are per process.
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
    options: EmulatedOptions,
}

thread_local! {
    /// The record of this thread, 0 = not registered.
    static CURRENT: Cell<Index> = const { Cell::new(0) };
    /// Its address, null = not registered: a checkpoint is on the way of each task.
    static RECORD: Cell<*const Record> = const { Cell::new(core::ptr::null()) };
    /// What the thread needs while it is registered; unregisters one that ends without doing so.
    static REGISTERED: Registered = const {
        Registered { before: RefCell::new(None) }
    };
}

struct Registered {
    /// How the thread was scheduled before, to be given back.
    before: RefCell<Option<Before>>,
}

/// Affinity and policy of a thread before it registered.
struct Before {
    mask: Option<os::CpuSet>,
    policy: i32,
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

    /// What is refused stays as it is: a cpuset may have changed meanwhile.
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

/// A worker that holds its slot and reads RUNNING: what a checkpoint finds nearly always. False
/// may also be a late mirror, a server, or a thread that is not registered.
fn has_nothing_to_stop_for() -> bool {
    // SAFETY: null, or a record in the arena, which is never freed.
    let record = unsafe { RECORD.get().as_ref() };
    record.is_some_and(|record| {
        record.run().phase() == Phase::Acked
            && !fork::in_child()
            // SAFETY: own record: registered while `RECORD` names it.
            && unsafe { record.user() }.state() == state::RUNNING
    })
}

impl Drop for Registered {
    fn drop(&mut self) {
        let index = CURRENT.replace(0);
        RECORD.set(core::ptr::null());
        if index != 0 && !fork::in_child() {
            // A worker that ends while judged is an ordinary thread already, more or less.
            // SAFETY: this thread registered it, and has not unregistered it: `CURRENT` said so.
            let own = unsafe { REGISTRY.own_task(index) };
            if own.status.load(SeqCst) == status::WORKER {
                REGISTRY.unregister_worker(own);
            } else {
                remove_server(own);
            }
            // The thread ends: nothing to give back.
        }
    }
}

impl Emulated {
    /// The provider. Nothing is started before the first server registers.
    ///
    /// # Errors
    /// ENOSYS: the kernel has no MADV_WIPEONFORK (Linux before 4.14).
    pub fn new(options: EmulatedOptions) -> Result<Self, Error> {
        if !fork::mark_parent() {
            return Err(Error::new(
                Call::Register,
                libc::ENOSYS,
                "the kernel has no MADV_WIPEONFORK: Linux 4.14 or later is needed",
            ));
        }
        // Before anything is pinned.
        os::original_mask();
        Ok(Self { options })
    }

    /// The task of the calling thread.
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
        // SAFETY: this thread registered it, and has not unregistered it: `CURRENT` says so. The
        // callers use the result in one call of the provider.
        Ok(unsafe { REGISTRY.own_task(index) })
    }
}

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

// SAFETY: the four promises of the trait: (1) the slot word and the run word, see README; (2)
// pins, and `unregister` waits for pins and links; (3) the fences named at `notify_server`, `sleep_server`
// and `sleep_while`; (4) `sleep_in_gate` and `sleep_server` return Ok only after the state is RUNNING.
unsafe impl Provider for Emulated {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Emulated
    }

    fn facts(&self) -> Facts {
        // 100 ms: what the monitor needs beside a machine full of other processes; alone it is
        // microseconds.
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
        // SAFETY: valid by the caller's promise.
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
            // An ordinary thread already, or stopped until picked: both are fine here.
            let _ = REGISTRY.checkpoint(&own);
        }
        // A worker that is judged from here on leaves all the same.
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
            // Relaxed: see the field.
            let open = u32::from(flags & WAIT_TAKE_OVER != 0);
            own.take_over_allowed.store(open, Relaxed);
            REGISTRY.wait_server(&own, deadline)
        } else {
            REGISTRY.wait_worker(&own, deadline)
        };
        outcome.map_err(|(errno, why)| Error::new(call, errno, why))
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
        if own.status.load(Relaxed) == status::SERVER {
            return Ok(true);
        }
        REGISTRY
            .try_checkpoint(&own, wanted)
            .map_err(|(errno, why)| Error::new(Call::Checkpoint, errno, why))
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
    /// How blocks are seen, according to the self-test.
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

    fn register_server(
        &self,
        task: NonNull<UmcgTask>,
        tid: u32,
        how: &Register,
    ) -> Result<(), Error> {
        let call = Call::Register;
        // SAFETY: valid by the caller's promise.
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
            // Workers may have come that found it.
            // SAFETY: this thread made it, and nobody has it but this call.
            REGISTRY.unregister_server(unsafe { REGISTRY.own_task(index) });
            Error::new(call, error.raw_os_error().unwrap_or(libc::EAGAIN), why)
        };
        let before = Before::of_this_thread();
        let cpu = match affinity::pin_server(index, placement) {
            Ok(cpu) => cpu,
            Err(error) => {
                before.give_back();
                return Err(undo("the CPU, or a sentinel on it, cannot be had", &error));
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

fn register_worker(task: NonNull<UmcgTask>, tid: u32) -> Result<(), Error> {
    let call = Call::Register;
    // SAFETY: valid by the caller's promise.
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
    // Refused by a sandbox: the worker keeps its policy, hand-overs are slower.
    if !os::become_worker().unwrap_or(false) {
        affinity::NO_SLICES.store(1, Relaxed);
    }
    let record = REGISTRY.record(index);
    record.cpu.store(-1, Relaxed);
    REGISTRY.follow_server(record, &server);
    drop(server);
    enter(index, before, None);
    // Admission is an unblock: queue up, and through the gate when picked.
    // SAFETY: this thread has just made it.
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

fn enter(index: Index, before: Before, has_work: Option<HasWork>) {
    CURRENT.set(index);
    RECORD.set(REGISTRY.record(index));
    cells::set_has_work(has_work);
    // First use registers the destructor. At the end of a thread, when it is gone already, the
    // thread must unregister by itself.
    let _ = REGISTERED.try_with(|registered| {
        registered.before.replace(Some(before));
    });
}

/// Affinity, policy and slice back, for a thread that goes on.
fn become_ordinary() {
    cells::set_has_work(None);
    let _ = REGISTERED.try_with(|registered| {
        if let Some(before) = registered.before.take() {
            before.give_back();
        }
    });
}

/// The server goes, and what was made for it.
fn remove_server(own: OwnTask<'_>) {
    monitor::detach(own.index());
    affinity::unpin_server(own.index());
    REGISTRY.unregister_server(own);
}
