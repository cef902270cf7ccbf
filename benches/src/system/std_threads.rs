//! One thread of std for each closure.

use std::time::Duration;

use super::{System, closures::closures_only};

/// `std::thread`, one for each closure.
#[derive(Debug)]
pub struct StdThreads;

impl System for StdThreads {
    const NAME: &'static str = "std threads";
    const THREADS: &'static str = "thread-";
    closures_only!();

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
}
