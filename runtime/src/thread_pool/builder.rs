//! Pools with a name, or a large stack.

use std::{io, sync::Arc, thread::available_parallelism};

use super::{ThreadPool, home::Home, pool::Pool};
use crate::task::Name;

/// Makes a [`ThreadPool`].
///
/// # Examples
///
/// ```
/// let pool = umcg::thread_pool::Builder::new()
///     .num_threads(8)
///     .thread_name("hasher".into())
///     .build();
/// pool.execute(|| assert_eq!(umcg::thread::current().name(), Some("hasher")));
/// pool.join();
/// assert_eq!(pool.panic_count(), 0);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder makes no pool by itself"]
pub struct Builder {
    /// `None`: as many as CPUs.
    num_threads: Option<usize>,
    name: Name,
    /// `None`: whatever the runtime's workers have.
    stack_size: Option<usize>,
}

impl Builder {
    /// As many threads as CPUs, no name.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many jobs may run at once.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub fn num_threads(mut self, num_threads: usize) -> Self {
        assert!(num_threads > 0, "a pool needs at least one thread");
        self.num_threads = Some(num_threads);
        self
    }

    /// The name that the jobs see as [`thread::current`](crate::thread::current)'s.
    pub fn thread_name(mut self, name: String) -> Self {
        self.name = Some(Arc::new(name.into()));
        self
    }

    /// The least stack that the jobs need, in bytes.
    ///
    /// Where the runtime's workers have less the pool gets a runtime of its own.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Makes the pool.
    ///
    /// # Panics
    ///
    /// If it needs a runtime of its own and none can be made; [`try_build`](Self::try_build)
    /// returns an error instead.
    #[must_use]
    #[track_caller]
    pub fn build(self) -> ThreadPool {
        match self.try_build() {
            Ok(pool) => pool,
            Err(error) => panic!("no runtime could be made for a thread pool: {error}"),
        }
    }

    /// Makes the pool.
    ///
    /// # Errors
    ///
    /// Those of making a runtime, if the pool needs one of its own: outside of a runtime, or
    /// for a larger stack.
    pub fn try_build(self) -> io::Result<ThreadPool> {
        let max = self
            .num_threads
            .unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
        Ok(ThreadPool {
            pool: Pool::new(self.name, Home::find(self.stack_size)?, max),
        })
    }
}
