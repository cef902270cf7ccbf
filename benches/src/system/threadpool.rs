//! `threadpool`, the crate: so many threads and no more.

use std::future::Future;

use super::{
    System,
    closures::{Sent, blocking_on, sending},
};

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
    type Task<T: Send + 'static> = Sent<T>;

    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_blocking(blocking_on(future))
    }

    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (closure, sent) = sending(f);
        self.execute(closure);
        sent
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        drop(task);
    }

    fn execute<F>(&'static self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        self.0.execute(f);
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        futures_lite::future::block_on(future)
    }
}
