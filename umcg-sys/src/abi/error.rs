//! The error of a call, with the errno that a kernel would give.

use core::fmt;

/// A call of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// [`Provider::register`](crate::Provider::register)
    Register,
    /// [`Provider::unregister`](crate::Provider::unregister)
    Unregister,
    /// [`Provider::wait`](crate::Provider::wait)
    Wait,
    /// [`Provider::preempt`](crate::Provider::preempt)
    Preempt,
    /// [`Provider::retake`](crate::Provider::retake)
    Retake,
    /// [`Provider::wake`](crate::Provider::wake)
    Wake,
    /// [`Provider::begin_block`](crate::Provider::begin_block)
    BeginBlock,
    /// [`Provider::end_block`](crate::Provider::end_block)
    EndBlock,
    /// [`Provider::checkpoint`](crate::Provider::checkpoint)
    Checkpoint,
}

/// Why a call failed: which call, the errno, and the reason in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The call that failed.
    call: Call,
    /// A positive errno.
    errno: i32,
    /// The reason, as a clause for a message.
    why: &'static str,
}

impl Error {
    /// Creates an error of `call`.
    #[must_use]
    pub const fn new(call: Call, errno: i32, why: &'static str) -> Self {
        Self { call, errno, why }
    }

    /// The call that failed.
    #[must_use]
    pub const fn call(&self) -> Call {
        self.call
    }

    /// The errno: `EINVAL`, `ESRCH`, `EBUSY`, `EFAULT`, `ETIMEDOUT`, or one that the operating
    /// system returned.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        self.errno
    }

    /// Whether the deadline passed, which is the normal end of a timed [`wait`] and no failure.
    ///
    /// [`wait`]: crate::Provider::wait
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        self.errno == libc::ETIMEDOUT
    }

    /// Whether the target, or the caller's server, does not exist or has unregistered.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.errno == libc::ESRCH
    }

    /// Whether the target could not be claimed. A server picks another worker then.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.errno == libc::EBUSY
    }

    /// The symbol of the errno, for messages.
    const fn errno_name(&self) -> &'static str {
        match self.errno {
            libc::EINVAL => "EINVAL",
            libc::ESRCH => "ESRCH",
            libc::EBUSY => "EBUSY",
            libc::EFAULT => "EFAULT",
            libc::ETIMEDOUT => "ETIMEDOUT",
            libc::ENOMEM => "ENOMEM",
            libc::EAGAIN => "EAGAIN",
            libc::EPERM => "EPERM",
            libc::ENOSYS => "ENOSYS",
            _ => "errno",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "umcg {:?}: {} ({}): {}",
            self.call,
            self.errno_name(),
            self.errno,
            self.why
        )
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = std::io::Error::from_raw_os_error(error.errno).kind();
        Self::new(kind, error)
    }
}
