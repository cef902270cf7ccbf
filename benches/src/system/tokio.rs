//! `tokio` with its multi-thread runtime.

use std::{future::Future, time::Duration};

use tokio::runtime::{Builder, Runtime};

use super::{System, Unwrapped};

/// The multi-thread runtime with everything enabled, and its defaults otherwise.
#[derive(Debug)]
pub struct Tokio(Runtime);

impl Tokio {
    /// A new runtime, whose pool is cold.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn new(workers: usize) -> Self {
        Self(
            Builder::new_multi_thread()
                .worker_threads(workers)
                .thread_name(Self::THREADS)
                .enable_all()
                .build()
                .expect("a runtime"),
        )
    }

    /// A runtime that may have this many threads for blocking calls; the default is 512.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn with_cap(workers: usize, threads: usize) -> Self {
        Self(
            Builder::new_multi_thread()
                .worker_threads(workers)
                .max_blocking_threads(threads)
                .thread_name(Self::THREADS)
                .enable_all()
                .build()
                .expect("a runtime"),
        )
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.0
    }

    /// Ends the runtime without waiting for its tasks.
    pub fn shutdown(self) {
        self.0.shutdown_background();
    }
}

impl System for Tokio {
    const NAME: &'static str = "tokio";
    const THREADS: &'static str = "tokio-";
    type Task<T: Send + 'static> = Unwrapped<tokio::task::JoinHandle<T>>;

    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Unwrapped(self.0.spawn(future))
    }

    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Unwrapped(self.0.spawn_blocking(f))
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        drop(task);
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}
