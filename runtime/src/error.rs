//! The errors of building a runtime, of finding one, and of making tasks.

use std::{error::Error, fmt, io};

use umcg_sys::SelectError;

/// A runtime could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting of the builder cannot be used.
    Setting {
        /// The method of the builder.
        name: &'static str,
        /// What is wrong with its value, and what would be right.
        why: &'static str,
    },
    /// An environment variable has a value that cannot be used.
    Env {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        why: &'static str,
    },
    /// The provider that was asked for is not available.
    Provider(SelectError),
    /// The operating system refused a thread.
    Thread(io::Error),
    /// The provider refused a server.
    Register {
        /// Its index.
        server: usize,
        /// What the provider said.
        source: umcg_sys::Error,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, why } => write!(f, "`Builder::{name}`: {why}"),
            Self::Env { name, value, why } => {
                write!(f, "environment variable {name}={value:?}: {why}")
            }
            Self::Provider(error) => error.fmt(f),
            Self::Thread(error) => write!(
                f,
                "the operating system refused a thread for the runtime: {error} (limits: \
                 `ulimit -u`, the cgroup's pids.max)"
            ),
            Self::Register { server, source } => {
                write!(f, "server {server} could not be registered: {source}")
            }
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Setting { .. } | Self::Env { .. } => None,
            Self::Provider(error) => Some(error),
            Self::Thread(error) => Some(error),
            Self::Register { source, .. } => Some(source),
        }
    }
}

impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        let kind = match &error {
            BuildError::Thread(error) => error.kind(),
            BuildError::Setting { .. } | BuildError::Env { .. } => io::ErrorKind::InvalidInput,
            BuildError::Provider(_) => io::ErrorKind::Unsupported,
            BuildError::Register { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The calling thread is in no runtime; see [`Handle::try_current`](crate::Handle::try_current).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TryCurrentError {
    /// The locals of the thread are being destroyed, so whether it was in a runtime is not known.
    destroyed: bool,
}

impl TryCurrentError {
    pub(crate) fn missing_context() -> Self {
        Self { destroyed: false }
    }

    pub(crate) fn thread_local_destroyed() -> Self {
        Self { destroyed: true }
    }

    /// Whether the thread has not entered a runtime.
    #[must_use]
    pub fn is_missing_context(&self) -> bool {
        !self.destroyed
    }

    /// Whether the thread is ending and its locals are gone.
    #[must_use]
    pub fn is_thread_local_destroyed(&self) -> bool {
        self.destroyed
    }
}

impl fmt::Display for TryCurrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.destroyed {
            "the thread is ending, and its locals have been destroyed"
        } else {
            NO_RUNTIME
        })
    }
}

impl Error for TryCurrentError {}

/// What to do where there is no runtime.
const NO_RUNTIME: &str = "no runtime on this thread: call it from a task or from \
    `Runtime::block_on`, enter a runtime with `Handle::enter`, or name one with `Builder::runtime`";

/// Why a runtime takes no task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The run queues are at their limit.
    Full,
    /// The runtime was shut down.
    ShutDown,
    /// The calling thread is in no runtime, and none was named.
    NoRuntime,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the runtime's queues are full: try again when some tasks are done",
            Self::ShutDown => "the runtime was shut down",
            Self::NoRuntime => NO_RUNTIME,
        })
    }
}

impl Error for Refusal {}

/// What the builders of tasks and of threads return, as those of tokio and std do.
impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Full => io::ErrorKind::WouldBlock,
            Refusal::ShutDown => io::ErrorKind::Other,
            Refusal::NoRuntime => io::ErrorKind::NotFound,
        };
        Self::new(kind, refusal)
    }
}

/// A task was not made. The error has the future or the closure.
pub struct TrySpawnError<F> {
    refusal: Refusal,
    rejected: F,
}

impl<F> TrySpawnError<F> {
    pub(crate) fn new(refusal: Refusal, rejected: F) -> Self {
        Self { refusal, rejected }
    }

    /// Whether the run queues of the runtime are at their limit. Then another try may succeed
    /// later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.refusal == Refusal::Full
    }

    /// Whether the runtime was shut down.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.refusal == Refusal::ShutDown
    }

    /// The future or the closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.rejected
    }
}

impl<F> fmt::Display for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl<F> fmt::Debug for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrySpawnError").field(&self.refusal).finish()
    }
}

impl<F> Error for TrySpawnError<F> {}

impl<F> From<TrySpawnError<F>> for io::Error {
    fn from(error: TrySpawnError<F>) -> Self {
        error.refusal.into()
    }
}
