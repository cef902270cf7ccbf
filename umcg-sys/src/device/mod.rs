//! The device provider: the kernel itself, by the module in `kernel/` and its device `/dev/umcg`.
//!
//! * `ioctl`: the calls, as `kernel/umcg_uapi.h` defines them;
//! * `thread`: the registration of the calling thread, and what happens when the thread ends.

mod ioctl;
mod thread;

use std::{
    collections::HashMap,
    fmt, io,
    ptr::NonNull,
    sync::{
        Mutex, OnceLock, PoisonError, TryLockError,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use crate::{
    Call, Error, Facts, List, Placement, Provider, ProviderKind, REGISTER_VERSION_MASK,
    REGISTER_WORKER, Register, ServerCounters, UmcgTask, WAIT_TAKE_OVER, emulated::fork, state,
};
use ioctl::{ABI_VERSION, Node};
use thread::{OWN, Own};

/// The path of the device.
pub(crate) const PATH: &str = "/dev/umcg";

/// One open file for the whole process, so that several provider objects see each other's tasks,
/// as thread ids are per process too. It is never closed.
static NODE: OnceLock<Node> = OnceLock::new();

/// The number of servers that have gone away. A worker that reads another number than last time
/// asks the kernel whether its own server was one of them. `leave` adds to it (SeqCst) after the
/// server's UNREGISTER; pairs with the load in `register`, which comes before the worker is
/// registered, and with the loads in `checkpoint`.
static SERVERS_GONE: AtomicU64 = AtomicU64::new(0);

/// The CPU of each pinned server, by the server's tid.
static PINNED: Mutex<Option<HashMap<u32, usize>>> = Mutex::new(None);

/// UMCG by the kernel: a module for unpatched kernels behind `/dev/umcg`.
///
/// An unblocked worker runs no instruction of user code before its server picks it, not even a
/// signal handler. Every block is reported. `preempt` takes a RUNNING worker off its CPU. A signal
/// handler does run in a worker that sleeps in an explicit `wait`; the wait continues after it.
///
/// A server is pinned only if it asks for a CPU by [`Placement::Cpu`], and workers never are. They
/// need not be: the kernel wakes the target of a switch on the CPU of the caller where it can
/// (Linux 6.6 and later).
///
/// A task must be in private memory (heap, stack, statics). Its page is pinned while any task in
/// it is registered, and counts against `RLIMIT_MEMLOCK`.
///
/// # Examples
///
/// ```
/// use umcg_sys::{Device, Provider};
///
/// match Device::open() {
///     Ok(device) => assert!(device.facts().exact_stop),
///     Err(why) => println!("no device here: {why}"),
/// }
/// ```
pub struct Device {
    node: &'static Node,
}

/// The reason why the device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDevice(&'static str);

impl NoDevice {
    /// The reason in words, with what to do about it.
    #[must_use]
    pub const fn why(&self) -> &'static str {
        self.0
    }
}

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoDevice {}

fn open_node() -> Result<Node, NoDevice> {
    let node = Node::open().map_err(|error| {
        NoDevice(match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no /dev/umcg: the kernel module umcg is not loaded"
            }
            io::ErrorKind::PermissionDenied => {
                "there is no permission to open /dev/umcg: the module's udev rule decides who has it"
            }
            _ => "/dev/umcg cannot be opened",
        })
    })?;
    match node.version() {
        Ok(ABI_VERSION) => Ok(node),
        Ok(_) => Err(NoDevice(
            "the kernel module umcg implements another version of the interface",
        )),
        Err(_) => Err(NoDevice("/dev/umcg is not the device of the module umcg")),
    }
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// The module is not loaded, the caller may not open the device, or the module implements
    /// another version of the interface.
    pub fn open() -> Result<Self, NoDevice> {
        if !fork::mark_parent() {
            return Err(NoDevice("the kernel has no MADV_WIPEONFORK"));
        }
        if let Some(node) = NODE.get() {
            return Ok(Self { node });
        }
        let node = open_node()?;
        Ok(Self {
            node: NODE.get_or_init(|| node),
        })
    }

    /// The registration of the calling thread. Fails if there is none, or in a forked child.
    fn own(call: Call) -> Result<Own, Error> {
        let own = OWN.get();
        if own.task.is_none() {
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
        Ok(own)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").finish_non_exhaustive()
    }
}

/// The kernel's errno as an error that explains it.
fn failure(call: Call, errno: i32) -> Error {
    let why = match (call, errno) {
        (Call::Register, libc::EINVAL) => {
            "flags, version, state, next_tid, tid or server_tid are not those of a new task of \
             this thread, or the task is not in private memory"
        }
        (Call::Register, libc::ESRCH) => "no such server, it went away, or this is a forked child",
        (Call::Register, libc::ENOMEM) => {
            "no memory, or RLIMIT_MEMLOCK: each page with tasks in it is pinned"
        }
        (Call::Unregister, libc::EBUSY) => "the state is not RUNNING",
        (Call::Unregister, libc::EINVAL) => "another task than the registered one",
        (Call::Wait, libc::EINVAL) => {
            "flags, a worker's deadline, a worker as its own target, or a state that is neither \
             RUNNING nor RUNNABLE"
        }
        (Call::Wait, libc::ESRCH) => "no such task, or the server of this worker is gone",
        (Call::Wait, libc::EBUSY) => {
            "the target is not RUNNABLE or another server's, or a worker runs in the slot"
        }
        (Call::Wait, libc::ETIMEDOUT) => "the deadline passed",
        (Call::Preempt, libc::ESRCH) => "no registered task has this tid",
        (Call::Wake, libc::ESRCH) => "no registered server has this tid",
        (Call::Checkpoint, libc::ESRCH) => "the server of this worker is gone",
        _ => "the kernel refused",
    };
    Error::new(call, errno, why)
}

fn pinned<T>(look: impl FnOnce(&mut HashMap<u32, usize>) -> T) -> T {
    let mut table = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
    look(table.get_or_insert_default())
}

/// The CPU that a server is pinned to. A server may call this while it ends, and the thread that
/// holds the lock may be a worker that only this server can pick. Waiting for the lock could
/// therefore hang: after some tries the function gives up and returns `None`.
fn pinned_cpu(server_tid: u32) -> Option<usize> {
    // The lock is held only for one look at the table, so a holder that runs has soon dropped it.
    for _ in 0..100 {
        match PINNED.try_lock() {
            Ok(table) => return table.as_ref()?.get(&server_tid).copied(),
            Err(TryLockError::Poisoned(poison)) => {
                return poison.into_inner().as_ref()?.get(&server_tid).copied();
            }
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

// SAFETY: the module keeps the four promises of the trait; kernel/umcg.h has the rules. (1) By its
// rule 3 `host` and `curr` name each other. (2) Its rule 4, and `unregister` below waits until the
// links are free. (3) Every push, and every release of a slot, wakes a waiting server under the
// server's lock. (4) Its WAIT returns 0 only with the state RUNNING.
unsafe impl Provider for Device {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Device
    }

    fn facts(&self) -> Facts {
        // The server is woken as the worker goes to sleep. What remains is the scheduler's latency
        // for a thread that was woken.
        Facts::new(true, true, Duration::from_millis(10))
    }

    unsafe fn register(&self, task: NonNull<UmcgTask>, how: &Register) -> Result<(), Error> {
        let call = Call::Register;
        if fork::in_child() {
            return Err(Error::new(call, libc::ESRCH, "this is a forked child"));
        }
        if OWN.get().task.is_some() {
            return Err(Error::new(
                call,
                libc::EINVAL,
                "the thread is registered already",
            ));
        }
        if how.flags & !(REGISTER_WORKER | REGISTER_VERSION_MASK) != 0 {
            return Err(Error::new(call, libc::EINVAL, "unknown flags"));
        }
        let worker = how.flags & REGISTER_WORKER != 0;
        let tid = crate::gettid();
        let before = match how.placement {
            Placement::Cpu(cpu) if !worker => Some((cpu, thread::pin_to(cpu)?)),
            _ => None,
        };
        // SAFETY: the caller promises that the task is valid.
        let address = unsafe { task.as_ref() }.address();
        let seen = SERVERS_GONE.load(SeqCst);
        // SAFETY: as above; and when a thread ends, the destructor in `thread` unregisters it.
        if let Err(errno) = unsafe { self.node.register(address, how.flags) } {
            if let Some((_, mask)) = before {
                thread::set_affinity(&mask);
            }
            return Err(failure(call, errno));
        }
        if let Some((cpu, mask)) = before {
            pinned(|table| table.insert(tid, cpu));
            thread::remember_mask(mask);
        }
        let own = Own {
            task: Some(task),
            worker,
            gone_seen: seen,
            detached: false,
        };
        thread::enter(own);
        // The server may have gone away before it picked this worker. The call cannot report that:
        // its return value is fixed before a signal handler may get its frame. Ask, and leave.
        if worker && self.node.check().is_err() {
            let left = self.leave(own);
            debug_assert!(left.is_ok(), "an ordinary thread is RUNNING");
            return Err(failure(call, libc::ESRCH));
        }
        Ok(())
    }

    fn unregister(&self, task: NonNull<UmcgTask>) -> Result<(), Error> {
        let call = Call::Unregister;
        let own = Self::own(call)?;
        if own.task != Some(task) {
            return Err(failure(call, libc::EINVAL));
        }
        self.leave(own).map_err(|errno| failure(call, errno))?;
        thread::give_mask_back();
        Ok(())
    }

    fn wait(&self, deadline_ns: u64, flags: u32) -> Result<(), Error> {
        let call = Call::Wait;
        let mut own = Self::own(call)?;
        // The flag permits a server's worker to take over the slot. The kernel does not make use
        // of that permission: it would save nothing.
        let flags = if own.worker {
            flags
        } else {
            flags & !WAIT_TAKE_OVER
        };
        self.node.wait(deadline_ns, flags).map_err(|errno| {
            // Was it the target that is unknown, or is this worker's own server gone? In the second
            // case `checkpoint` must report it too.
            if own.worker && errno == libc::ESRCH && self.node.check().is_err() {
                own.detached = true;
                OWN.set(own);
            }
            failure(call, errno)
        })
    }

    fn preempt(&self, tid: u32) -> Result<(), Error> {
        self.node
            .preempt(tid)
            .map_err(|errno| failure(Call::Preempt, errno))
    }

    fn wake(&self, server_tid: u32) -> Result<(), Error> {
        // The module has one call for both: for a server it is a wake-up.
        self.node
            .preempt(server_tid)
            .map_err(|errno| failure(Call::Wake, errno))
    }

    fn checkpoint(&self) -> Result<(), Error> {
        let call = Call::Checkpoint;
        let mut own = Self::own(call)?;
        if !own.worker {
            return Ok(());
        }
        // Relaxed: a number that is missed here is seen at the next checkpoint, and `wait` asks the
        // kernel in any case.
        let gone = SERVERS_GONE.load(Relaxed);
        if gone != own.gone_seen {
            own.gone_seen = gone;
            own.detached = self.node.check().is_err();
            OWN.set(own);
        }
        if own.detached {
            return Err(failure(call, libc::ESRCH));
        }
        Ok(())
    }

    fn disarm(&self, worker: &UmcgTask) -> Option<u32> {
        // A block claims the spare by the same compare-and-swap, so exactly one of the two gets it.
        let armed = worker.next_tid();
        (armed != 0 && worker.clear_next_tid(armed)).then_some(armed)
    }

    fn current(&self, server_tid: u32) -> Option<u32> {
        self.node
            .current(server_tid)
            .ok()
            .filter(|&worker| worker != 0)
    }

    fn work_waiting(&self, _server_tid: u32) {
        // No thread has to look for blocks: the kernel reports them.
    }

    fn counters(&self, server_tid: u32) -> Option<ServerCounters> {
        let stat = self.node.stat(server_tid).ok()?;
        Some(ServerCounters {
            cpu: pinned_cpu(server_tid),
            dispatches: stat.dispatches,
            blocks_kernel: stat.blocks,
            preempted: stat.preempted,
            longest_block_ns: stat.longest_block_ns,
            ..ServerCounters::default()
        })
    }

    fn describe(&self) -> String {
        format!(
            "device: {PATH}, interface version {ABI_VERSION}: the kernel reports every block and \
             stops every unblocked worker"
        )
    }
}

/// Repeats UNREGISTER for a worker that slept in it. The call may sleep for the page of its
/// argument before it looks at the state. The worker is then BLOCKED and gets EBUSY. A server picks
/// it on its way back to user mode, so it is RUNNING here and can call again. A worker that has
/// left RUNNING by itself is not RUNNING here, and its EBUSY is passed on.
fn repeat_if_it_slept(
    worker: bool,
    user: &UmcgTask,
    mut call: impl FnMut() -> Result<(), i32>,
) -> Result<(), i32> {
    loop {
        match call() {
            Err(libc::EBUSY) if worker && user.state() == state::RUNNING => {}
            answer => return answer,
        }
    }
}

impl Device {
    /// Makes the calling thread an ordinary thread that is on no list.
    fn leave(&self, own: Own) -> Result<(), i32> {
        let Some(task) = own.task else {
            return Err(libc::EINVAL);
        };
        // SAFETY: the task is registered, hence valid.
        let user = unsafe { task.as_ref() };
        repeat_if_it_slept(own.worker, user, || self.node.unregister(user.address()))?;
        thread::leave();
        if own.worker {
            self.wait_until_unlinked(user);
        } else {
            pinned(|table| table.remove(&user.tid()));
            // The kernel pushes nothing any more. Unlink the workers that are still on the lists.
            drop(user.take(List::Runnable));
            drop(user.take(List::Blocked));
            SERVERS_GONE.fetch_add(1, SeqCst);
        }
        debug_assert_eq!(user.state(), state::NONE);
        Ok(())
    }

    /// Waits until this worker is on no list. A late event of it may still be on its server's list,
    /// and its memory must stay until the server has drained it (trace A11). Wakes the server again
    /// and again for that.
    fn wait_until_unlinked(&self, user: &UmcgTask) {
        let mut nap = Duration::from_micros(10);
        let mut patience = 100;
        while user.is_linked(List::Blocked) || user.is_linked(List::Runnable) {
            if self.node.preempt(user.server_tid()).is_err() {
                // The server is gone. It unlinks all workers on its lists as it goes. If it has not
                // done so, nobody will, and nobody will read the lists either.
                patience -= 1;
                if patience == 0 {
                    return;
                }
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    /// How often `repeat_if_it_slept` calls, and its answer, if the first two calls return EBUSY
    /// with the state `left`.
    fn calls(worker: bool, left: u32) -> (u32, Result<(), i32>) {
        let user = UmcgTask::new();
        user.state_word().store(left, SeqCst);
        let mut calls = 0;
        let answer = repeat_if_it_slept(worker, &user, || {
            calls += 1;
            if calls <= 2 { Err(libc::EBUSY) } else { Ok(()) }
        });
        (calls, answer)
    }

    #[test]
    fn unregister_that_slept_is_called_again() {
        assert_eq!(calls(true, state::RUNNING), (3, Ok(())));
    }

    #[test]
    fn unregister_out_of_running_is_refused_at_once() {
        assert_eq!(calls(true, state::RUNNABLE), (1, Err(libc::EBUSY)));
        assert_eq!(calls(false, state::RUNNING), (1, Err(libc::EBUSY)));
    }
}
