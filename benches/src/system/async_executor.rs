//! `async-executor` with the crate `blocking`, which smol consists of.

use std::{fmt, future::Future, thread};

use async_executor::StaticExecutor;
use futures_lite::future;

use super::System;

/// The static executor, the faster one of the two, with threads as in its own benches.
pub struct AsyncExecutor(&'static StaticExecutor);

impl AsyncExecutor {
    /// A system with this many workers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn new(workers: usize) -> Self {
        let executor: &StaticExecutor = super::leak(StaticExecutor::new());
        for index in 0..workers {
            thread::Builder::new()
                .name(format!("asyncex-{index}"))
                .spawn(|| future::block_on(executor.run(future::pending::<()>())))
                .expect("a thread");
        }
        Self(executor)
    }
}

impl fmt::Debug for AsyncExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }
}

impl System for AsyncExecutor {
    const NAME: &'static str = "async-executor";
    const THREADS: &'static str = "asyncex-|blocking-";
    type Task<T: Send + 'static> = async_executor::Task<T>;

    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(future)
    }

    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        blocking::unblock(f)
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        task.detach();
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        future::block_on(future)
    }
}
