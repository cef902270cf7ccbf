//! The crate `threadpool`, which has a fixed number of threads.

use std::sync::LazyLock;

use super::{System, closures::closures_only};

/// The number of threads, which is as many as tokio allows for blocking calls. With as many as CPUs
/// it would be a pool for work that computes.
pub const THREADPOOL_THREADS: usize = 512;

/// The crate `threadpool` with [`THREADPOOL_THREADS`]. The threads start with the first closure,
/// because 512 idle threads would disturb the benches that do not use them.
#[derive(Debug)]
pub struct Threadpool(LazyLock<threadpool::ThreadPool>);

impl Threadpool {
    /// A pool without threads so far.
    pub fn new() -> Self {
        Self(LazyLock::new(|| {
            threadpool::Builder::new()
                .num_threads(THREADPOOL_THREADS)
                .thread_name(Self::THREADS.into())
                .build()
        }))
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

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::{System, THREADPOOL_THREADS, Threadpool};
    use crate::{
        system::{Countdown, leak},
        usage::threads_named,
    };

    #[test]
    fn without_a_closure_there_are_no_threads() {
        let pool = leak(Threadpool::new());
        assert_eq!(threads_named(Threadpool::THREADS), 0);
        let done = Countdown::new(1);
        let once = done.clone();
        pool.execute(move || once.done());
        done.wait();
        // A thread gets its name when it begins to run.
        let until = Instant::now() + Duration::from_secs(30);
        while threads_named(Threadpool::THREADS) < THREADPOOL_THREADS {
            assert!(Instant::now() < until, "the threads do not come");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
