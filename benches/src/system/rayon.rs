//! `rayon`: a pool for work that computes.

use std::future::Future;

use super::{
    System,
    closures::{Sent, blocking_on, sending},
};

/// A pool of its own.
#[derive(Debug)]
pub struct Rayon(rayon::ThreadPool);

impl Rayon {
    /// With so many workers.
    ///
    /// # Panics
    ///
    /// If it cannot be had.
    pub fn new(workers: usize) -> Self {
        Self(
            rayon::ThreadPoolBuilder::new()
                .num_threads(workers)
                .thread_name(|index| format!("{}{index}", Self::THREADS))
                .build()
                .expect("a pool"),
        )
    }
}

impl System for Rayon {
    const NAME: &'static str = "rayon";
    const THREADS: &'static str = "rayon-";
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
        self.0.spawn(f);
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        futures_lite::future::block_on(future)
    }
}
