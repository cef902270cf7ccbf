//! `threadpool`, the crate: so many threads and no more.

use super::{System, closures::closures_only};

/// How many threads. What tokio allows for blocking calls; with as many as CPUs it would be a
/// pool for work that computes.
pub const THREADPOOL_THREADS: usize = 512;

/// The crate `threadpool` with [`THREADPOOL_THREADS`].
#[derive(Debug)]
pub struct Threadpool(threadpool::ThreadPool);

impl Threadpool {
    /// With its threads.
    pub fn new() -> Self {
        Self(
            threadpool::Builder::new()
                .num_threads(THREADPOOL_THREADS)
                .thread_name(Self::THREADS.into())
                .build(),
        )
    }
}

impl Default for Threadpool {
    fn default() -> Self {
        Self::new()
    }
}

impl System for Threadpool {
    const NAME: &'static str = "threadpool";
    const THREADS: &'static str = "tpool-";
    closures_only!();

    fn execute<F>(&'static self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        self.0.execute(f);
    }
}
