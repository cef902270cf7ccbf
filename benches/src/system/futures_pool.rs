//! `futures::executor::ThreadPool`.

use std::future::Future;

use futures::{
    executor::ThreadPool,
    future::{FutureExt, RemoteHandle},
};

use super::System;

/// The pool of the crate `futures`. It polls a task that wakes itself again at once, so a yield
/// lets no other task run.
#[derive(Debug)]
pub struct FuturesPool(ThreadPool);

impl FuturesPool {
    /// A system with this many workers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn new(workers: usize) -> Self {
        Self(
            ThreadPool::builder()
                .pool_size(workers)
                .name_prefix(Self::THREADS)
                .create()
                .expect("a pool"),
        )
    }
}

impl System for FuturesPool {
    const NAME: &'static str = "futures";
    const THREADS: &'static str = "futpool-";
    type Task<T: Send + 'static> = RemoteHandle<T>;

    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (future, handle) = future.remote_handle();
        self.0.spawn_ok(future);
        handle
    }

    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.spawn(async move { f() })
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        task.forget();
    }

    fn spawn_detached<F>(&'static self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn_ok(future);
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        futures::executor::block_on(future)
    }
}
