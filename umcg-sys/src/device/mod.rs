//! `/dev/umcg`: the kernel itself, by the module in `kernel/`.
//!
//! * `ioctl`: the calls, as `kernel/umcg_uapi.h` has them;
//! * `thread`: what a thread knows about its own registration.

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

/// The device's path.
pub(crate) const PATH: &str = "/dev/umcg";

/// One open file for the process, since thread ids are per process: several provider objects
/// see each other's tasks. Never closed.
static NODE: OnceLock<Node> = OnceLock::new();

/// How many servers went away. A worker that reads another number than last time asks the
/// kernel whether its own was among them.
static SERVERS_GONE: AtomicU64 = AtomicU64::new(0);

/// The CPUs of the servers that are pinned, by tid.
static PINNED: Mutex<Option<HashMap<u32, usize>>> = Mutex::new(None);

/// UMCG by the kernel: a module for unpatched kernels, `/dev/umcg`.
///
/// An unblocked worker runs no instruction of user code before its server picks it, not even a
/// signal handler; every block is reported; `preempt` takes a RUNNING worker off its CPU. A
/// handler does run in a worker that sleeps in an explicit `wait`, which then goes on.
///
/// Nothing is pinned unless a server asks for a CPU by [`Placement::Cpu`], and then only the
/// server: the kernel wakes whom a hand-over names on the same CPU where it can (Linux 6.6).
///
/// A task must be in private memory (heap, stack, statics), one page of which is pinned for as
/// long as tasks in it are registered and counts against `RLIMIT_MEMLOCK`.
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

/// Why the device cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDevice(&'static str);

impl NoDevice {
    /// The reason, and what to do about it.
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
                "/dev/umcg may not be opened: the udev rule of the module says who may"
            }
            _ => "/dev/umcg cannot be opened",
        })
    })?;
    match node.version() {
        Ok(ABI_VERSION) => Ok(node),
        Ok(_) => Err(NoDevice(
            "the kernel module umcg speaks another version of the interface",
        )),
        Err(_) => Err(NoDevice("/dev/umcg is not the device of the module umcg")),
    }
}

impl Device {
    /// The device, if the module is loaded, may be used, and speaks this library's version.
    ///
    /// # Errors
    /// It cannot be had, and why.
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

    /// What the calling thread is registered as.
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

/// The kernel's errno in words.
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

/// The CPU that a server is pinned to. A server asks on its way out, and who holds the lock may be a
/// worker that the server is to pick: it does without then.
fn pinned_cpu(server_tid: u32) -> Option<usize> {
    // It is held for a look at a table: whoever runs has long let it go.
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

// SAFETY: the promises of the trait are the module's, see kernel/umcg.h: (1) its host and curr;
// (2) its rule 4, and `unregister` below waits for the links; (3) every push and every leaving
// of a slot pokes the server under the server's lock; (4) it returns 0 only then.
unsafe impl Provider for Device {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Device
    }

    fn facts(&self) -> Facts {
        // The server is woken as the worker goes to sleep; what is left is the scheduler's
        // latency for a thread that wakes up.
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
        // SAFETY: valid by the caller's promise.
        let address = unsafe { task.as_ref() }.address();
        let seen = SERVERS_GONE.load(SeqCst);
        // SAFETY: as above; the destructor in `thread` unregisters a thread that ends.
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
            plain: false,
        };
        thread::enter(own);
        // The server may have gone away before it picked us: an ordinary thread, which the call
        // cannot say any more once a signal's handler has its frame.
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
        // A permission that the kernel has no use for: its own switch costs no detour.
        let flags = if own.worker {
            flags
        } else {
            flags & !WAIT_TAKE_OVER
        };
        self.node.wait(deadline_ns, flags).map_err(|errno| {
            // The target, or the own server, which may not have said so to `checkpoint` yet?
            if own.worker && errno == libc::ESRCH && self.node.check().is_err() {
                own.plain = true;
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
        // The module has one call for both: on a server it is a wake-up.
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
        // Relaxed: what is missed is seen at the next checkpoint, and `wait` always tells.
        let gone = SERVERS_GONE.load(Relaxed);
        if gone != own.gone_seen {
            own.gone_seen = gone;
            own.plain = self.node.check().is_err();
            OWN.set(own);
        }
        if own.plain {
            return Err(failure(call, libc::ESRCH));
        }
        Ok(())
    }

    fn disarm(&self, worker: &UmcgTask) -> Option<u32> {
        // A block consumes it by the same CAS: one of the two gets it.
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
        // Nobody watches here: the kernel tells.
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

/// UNREGISTER may sleep before it looks at the state, for a page of its argument: then a worker is
/// BLOCKED there, and refused, and picked on its way back to user mode. Who has left RUNNING by
/// itself is not RUNNING afterwards either.
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
    /// The calling thread becomes an ordinary one, and is on no list any more.
    fn leave(&self, own: Own) -> Result<(), i32> {
        let Some(task) = own.task else {
            return Err(libc::EINVAL);
        };
        // SAFETY: registered, hence valid.
        let user = unsafe { task.as_ref() };
        repeat_if_it_slept(own.worker, user, || self.node.unregister(user.address()))?;
        thread::leave();
        if own.worker {
            self.wait_until_unlinked(user);
        } else {
            pinned(|table| table.remove(&user.tid()));
            // The kernel pushes nothing any more: unlink what is there.
            drop(user.take(List::Runnable));
            drop(user.take(List::Blocked));
            SERVERS_GONE.fetch_add(1, SeqCst);
        }
        debug_assert_eq!(user.state(), state::NONE);
        Ok(())
    }

    /// A late event of this worker is still on its server's list: the memory must stay until
    /// the server drained (trace A11). The server is kept awake for that.
    fn wait_until_unlinked(&self, user: &UmcgTask) {
        let mut nap = Duration::from_micros(10);
        let mut patience = 100;
        while user.is_linked(List::Blocked) || user.is_linked(List::Runnable) {
            if self.node.preempt(user.server_tid()).is_err() {
                // It is gone. It unlinks all that it has as it goes, or nobody ever will: then
                // nobody will read the list either.
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

    /// How often UNREGISTER is called when it says EBUSY twice and the state is `left` then.
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
