//! What can go wrong when a runtime is built.

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
