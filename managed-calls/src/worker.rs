//! The scheduler's side of a managed call: what a thread does before and after it sleeps.

use std::{
    cell::Cell,
    ptr::NonNull,
    sync::atomic::{Ordering::SeqCst, compiler_fence},
};

use libc::c_int;

/// How a worker comes back from a call, which decides when it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// From I/O, a sleep or another event: the worker queues up behind those that came back
    /// before it.
    Io,
    /// From a file: the worker queues up before those that come back from other I/O. Files are
    /// often read and written with a lock held, that of a database connection for one.
    File,
    /// From a wait that another thread of the program ended, such as a futex: the worker holds
    /// nothing yet, and another thread may be waiting for it to make progress. It queues up as
    /// after [`File`](Self::File).
    Woken,
    /// With a lock that other threads may wait for: the worker must not be held up before it has
    /// had the chance to release the lock.
    Owner,
}

/// How certain it is that a call sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// The call is about to sleep: a form of it that cannot sleep was tried and failed, or it is
    /// a call whose purpose is to sleep.
    Certain,
    /// The call may sleep, and nobody can tell beforehand: a read of a file that may be cached.
    Possible,
}

/// What a worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Something can be read, or the other end is gone.
    Readable,
    /// Something can be written, or the other end is gone.
    Writable,
}

/// Ends the wait of one worker, which then looks once more. Valid while the worker waits.
#[derive(Clone, Copy, Debug)]
pub struct Waker {
    /// Neither blocks nor panics, and may be called in a signal handler.
    pub call: fn(*const ()),
    /// Its argument.
    pub argument: *const (),
}

/// What [`Worker::park`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// The worker slept. The descriptor may be ready.
    Woken,
    /// The worker slept, and a signal handler without `SA_RESTART` has run meanwhile.
    Interrupted,
    /// The worker did not sleep: it is to make the call that sleeps.
    Refused,
}

/// A call in which a worker may be asleep.
#[derive(Clone, Copy, Debug)]
pub struct ManagedCall {
    /// The name of the libc function.
    pub name: &'static str,
    /// Its first argument, which is the file descriptor for most calls.
    pub argument: usize,
}

/// A worker of a scheduler, as the managed calls on its thread see it.
///
/// The methods are called on the worker's own thread, with signals enabled, possibly from
/// within a signal handler, and with any lock of the program held. They must not unwind, must
/// not allocate, and must not wait for a lock. A managed call made while one of them runs goes
/// straight to libc.
pub trait Worker {
    /// The worker is about to make a call that sleeps, or may sleep. `how` is what
    /// [`exit`](Self::exit) will be told.
    fn enter(&self, call: ManagedCall, sleep: Sleep, how: Return);

    /// The call is over. Returns when the worker may go on.
    fn exit(&self, how: Return);

    /// A call is over that was tried in a form which cannot sleep, and has done its work. The
    /// worker may have had its turn, and let others run here.
    ///
    /// The default does nothing.
    fn passed(&self) {}

    /// The calling thread has woken others that waited for it: it has released a lock, say.
    ///
    /// The default does nothing.
    fn woke_others(&self) {}

    /// The calling thread would sleep in `call` until `fd` is ready. Sleeps without the call, if
    /// the worker prefers that, until the descriptor is ready or there is another reason to look.
    /// Returns when the worker may go on, as after a return of the kind [`Io`](Return::Io).
    ///
    /// The default never sleeps here.
    fn park(&self, call: ManagedCall, fd: c_int, readiness: Readiness) -> Parked {
        let _ = (call, fd, readiness);
        Parked::Refused
    }

    /// What ends a [`park`](Self::park) of this worker from another thread, or from a signal
    /// handler.
    ///
    /// The default does nothing.
    fn waker(&self) -> Waker {
        Waker {
            call: |_| (),
            argument: std::ptr::null(),
        }
    }

    /// The calling thread would sleep in `call` until `deadline`, CLOCK_MONOTONIC nanoseconds.
    /// Sleeps without the call, if the worker prefers that, until then or until there is another
    /// reason to look. Returns as [`park`](Self::park) does.
    ///
    /// The default never sleeps here.
    fn park_until(&self, call: ManagedCall, deadline: u64) -> Parked {
        let _ = (call, deadline);
        Parked::Refused
    }

    /// The program called `sched_yield`: lets other workers run first.
    fn yield_now(&self);

    /// `mask` has the CPUs that the calling thread may use, as `sched_getaffinity` reports them.
    /// Replaces it by those that the thread might use without the scheduler.
    fn affinity(&self, mask: &mut [u8]);

    /// A function that gives the calling thread the CPUs and the scheduling policy which it would
    /// have without the scheduler. It is called on threads that a worker starts, and in a child
    /// process between `fork` and `exec`, so it must be async-signal-safe.
    fn unmanage(&self) -> fn(Inherited);

    /// The worker is about to start a child process, which inherits the CPUs and the scheduling
    /// policy of the calling thread: gives the thread those of the process.
    fn before_child(&self);

    /// The child was started, or could not be: undoes [`before_child`](Self::before_child).
    fn after_child(&self);
}

/// What a new thread has from the thread that makes it, rather than from its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The CPUs on which it may run.
    pub cpus: bool,
    /// The scheduling policy and its parameters.
    pub policy: bool,
}

impl Inherited {
    /// Both, as without attributes.
    pub const ALL: Self = Self {
        cpus: true,
        policy: true,
    };
}

/// A [`Worker`], as [`set_current`] takes it.
///
/// A pointer to a trait object has two words. A signal handler may run between the stores of the
/// two, and would call a function that does not exist. A pointer to this has one.
#[derive(Clone, Copy, Debug)]
pub struct CurrentWorker(NonNull<dyn Worker>);

impl CurrentWorker {
    /// `worker` is used on the thread that passes this to [`set_current`].
    #[must_use]
    pub fn new(worker: NonNull<dyn Worker>) -> Self {
        Self(worker)
    }
}

thread_local! {
    /// The worker that this thread is, while its code is the application's; `None` on every other
    /// thread, and inside of managed calls. Without a destructor and with a constant
    /// initializer: an access is one load, at any time in the life of the thread.
    static CURRENT: Cell<Option<NonNull<CurrentWorker>>> = const { Cell::new(None) };
}

/// A signal handler on this thread sees the old value or the new one.
const _: () = assert!(size_of::<Option<NonNull<CurrentWorker>>>() == size_of::<usize>());

/// Stores in [`CURRENT`], in the order of the program as a signal handler on this thread sees it.
fn replace(worker: Option<NonNull<CurrentWorker>>) -> Option<NonNull<CurrentWorker>> {
    compiler_fence(SeqCst);
    let before = CURRENT.replace(worker);
    compiler_fence(SeqCst);
    before
}

/// From here on the calls of this thread are managed by `worker`; with `None` they go straight to
/// libc. Returns what was set before.
///
/// # Safety
/// What is pointed to, and the worker itself, stay valid until the next call of this function on
/// this thread, or until the thread ends.
pub unsafe fn set_current(
    worker: Option<NonNull<CurrentWorker>>,
) -> Option<NonNull<CurrentWorker>> {
    replace(worker)
}

/// Whether the calls of this thread are managed.
#[must_use]
#[inline(always)]
pub fn is_managed() -> bool {
    CURRENT.get().is_some()
}

/// The worker that this thread is, for a managed call.
#[inline(always)]
pub(crate) fn current() -> Option<Managed> {
    CURRENT.get().map(Managed)
}

/// Proof that the calling thread is a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Managed(NonNull<CurrentWorker>);

impl Managed {
    /// The worker itself.
    fn worker<'a>(self) -> &'a dyn Worker {
        // SAFETY: both are valid while they are set, see `set_current`; and for as long as this
        // call of libc's function runs, since only code further up the stack sets another worker.
        unsafe { self.0.as_ref().0.as_ref() }
    }

    /// Makes a call that sleeps, or may sleep. `errno` after it is the call's own.
    ///
    /// While the call runs the thread counts as unmanaged. So a signal handler that interrupts
    /// any step of this function may make managed calls: they go straight to libc.
    #[inline(never)]
    pub(crate) fn call<R>(
        self,
        call: ManagedCall,
        sleep: Sleep,
        how: Return,
        f: impl FnOnce() -> R,
    ) -> R {
        let worker = self.worker();
        replace(None);
        // The call may report nothing in `errno` and leave it as the application had it.
        let before = errno();
        worker.enter(call, sleep, how);
        set_errno(before);
        // Not in a guard: a thread that is cancelled in `f` unwinds by force, which must not meet
        // a destructor (Rust RFC 2945). Such a thread ends as an unmanaged one.
        let result = f();
        let after = errno();
        worker.exit(how);
        set_errno(after);
        replace(Some(self.0));
        result
    }

    /// A call that could not sleep has done its work.
    #[inline]
    pub(crate) fn passed(self) {
        self.with(|worker| worker.passed());
    }

    /// Calls `f` with the worker, with the thread unmanaged meanwhile and `errno` kept.
    pub(crate) fn with<R>(self, f: impl FnOnce(&dyn Worker) -> R) -> R {
        let worker = self.worker();
        replace(None);
        let before = errno();
        let result = f(worker);
        set_errno(before);
        replace(Some(self.0));
        result
    }
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: i32) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = errno };
}
