//! Pools with a name, or with a large stack.

use std::{io, sync::Arc, thread::available_parallelism};

use super::{ThreadPool, pool::Pool, pool_runtime::PoolRuntime};
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
    /// `None`: the number of CPUs.
    num_threads: Option<usize>,
    name: Name,
    /// `None`: the stack size of the runtime's workers.
    stack_size: Option<usize>,
}

impl Builder {
    /// A builder for a pool without a name that runs as many jobs at once as there are CPUs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many jobs may run at once.
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

    /// Sets the name of the threads that the jobs see as
    /// [`thread::current`](crate::thread::current). It must not contain NUL bytes.
    pub fn thread_name(mut self, name: String) -> Self {
        self.name = Some(Arc::new(name.into()));
        self
    }

    /// Sets the smallest stack that the jobs need, in bytes.
    ///
    /// If the workers of the runtime have less, the pool gets a runtime of its own.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Makes the pool.
    ///
    /// # Panics
    ///
    /// If the pool needs a runtime of its own and none can be made, or if the name contains a NUL
    /// byte. [`try_build`](Self::try_build) returns an error instead.
    #[must_use]
    #[track_caller]
    pub fn build(self) -> ThreadPool {
        match self.try_build() {
            Ok(pool) => pool,
            Err(error) => panic!("a thread pool could not be made: {error}"),
        }
    }

    /// Makes the pool.
    ///
    /// # Errors
    ///
    /// * `InvalidInput`: the name contains a NUL byte.
    /// * Those of making a runtime, if the pool needs one of its own: because it is made outside
    ///   of a runtime, or because its jobs need a larger stack.
    pub fn try_build(self) -> io::Result<ThreadPool> {
        if self.name.as_ref().is_some_and(|name| name.contains('\0')) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "thread name may not contain interior null bytes",
            ));
        }
        let max = self
            .num_threads
            .unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
        Ok(ThreadPool {
            pool: Pool::new(self.name, PoolRuntime::find(self.stack_size)?, max),
        })
    }
}
