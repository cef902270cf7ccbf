//! A thread of std for each closure.

use std::{future::Future, time::Duration};

use super::{
    System,
    closures::{Sent, blocking_on, sending},
};

/// `std::thread`, one for each closure.
#[derive(Debug)]
pub struct StdThreads;

impl System for StdThreads {
    const NAME: &'static str = "std threads";
    const THREADS: &'static str = "thread-";
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
        std::thread::Builder::new()
            .name(Self::THREADS.into())
            .spawn(f)
            .expect("a thread");
    }

    async fn sleep(duration: Duration) {
        std::thread::sleep(duration);
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        futures_lite::future::block_on(future)
    }
}
