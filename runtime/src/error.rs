//! What can go wrong around a runtime.

use std::{fmt, io};

use umcg_sys::SelectError;

/// A runtime could not be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting of the builder's cannot be used.
    Setting {
        /// The builder's method.
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
    /// The provider that was asked for cannot be had.
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

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
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

/// Why a task was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// As many tasks wait as [`Builder::queue_limit`](crate::Builder::queue_limit) allows. Wait,
    /// or do the work here.
    Full,
    /// The runtime is shutting down.
    ShutDown,
}

impl fmt::Display for SpawnErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "as many tasks wait as `Builder::queue_limit` allows",
            Self::ShutDown => "the runtime is shutting down",
        })
    }
}

/// A task that was not taken, and why; see [`Handle::try_spawn`](crate::Handle::try_spawn).
pub struct SpawnError<F> {
    kind: SpawnErrorKind,
    task: F,
}

impl<F> SpawnError<F> {
    pub(crate) const fn new(kind: SpawnErrorKind, task: F) -> Self {
        Self { kind, task }
    }

    /// Why.
    #[must_use]
    pub const fn kind(&self) -> SpawnErrorKind {
        self.kind
    }

    /// The future or closure.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.task
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnError")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task was not taken: {}", self.kind)
    }
}

impl<F> std::error::Error for SpawnError<F> {}
