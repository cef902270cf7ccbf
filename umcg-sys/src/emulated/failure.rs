//! Why a call fails: the errno that a kernel would give, and the reason in words.

/// The errno of a failed call, and the reason.
pub(crate) type Failure = (i32, &'static str);

pub(crate) const NOT_REGISTERED: Failure = (libc::EINVAL, "not registered");
pub(crate) const INVALID_STATE: Failure =
    (libc::EINVAL, "the state is neither RUNNING nor RUNNABLE");
pub(crate) const WORKER_WITH_DEADLINE: Failure =
    (libc::EINVAL, "a worker waits without a deadline");
pub(crate) const OWN_TARGET: Failure = (libc::EINVAL, "a worker cannot be its own target");
pub(crate) const UNKNOWN_FLAGS: Failure = (libc::EINVAL, "unknown flags");

pub(crate) const SERVER_GONE: Failure = (libc::ESRCH, "the server of this worker is gone");
pub(crate) const TARGET_GONE: Failure = (libc::ESRCH, "the target became an ordinary thread");
pub(crate) const NO_TARGET: Failure = (libc::ESRCH, "no registered task has the tid in next_tid");
pub(crate) const NO_TASK: Failure = (libc::ESRCH, "no registered task has this tid");
pub(crate) const NO_SERVER: Failure = (libc::ESRCH, "no registered server has this tid");

pub(crate) const NOT_RUNNABLE: Failure = (libc::EBUSY, "the target is not RUNNABLE");
pub(crate) const TARGET_IS_SERVER: Failure = (libc::EBUSY, "the target is a server");
pub(crate) const OTHER_SERVER: Failure = (libc::EBUSY, "the target belongs to another server");
pub(crate) const SLOT_HELD: Failure = (
    libc::EBUSY,
    "another worker runs in this server's slot: preempt it",
);

pub(crate) const DEADLINE_PASSED: Failure = (libc::ETIMEDOUT, "the deadline passed");
