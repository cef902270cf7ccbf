//! The systems that are compared, behind one trait.
//!
//! Each has its default settings, and as many workers as the run has servers. They live as long as
//! the process (`&'static`), so that no reference count is part of a measurement.

mod async_executor;
mod closures;
mod futures_pool;
mod may;
mod rayon;
mod std_threads;
mod threadpool;
mod tokio;
mod umcg;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

pub use self::{
    async_executor::AsyncExecutor,
    futures_pool::FuturesPool,
    may::May,
    rayon::Rayon,
    std_threads::StdThreads,
    threadpool::{THREADPOOL_THREADS, Threadpool},
    tokio::Tokio,
    umcg::{BareUmcg, Umcg, print_counters},
};

/// Something that runs futures, closures, or both.
pub trait System: Sync + 'static {
    /// The name in the tables.
    const NAME: &'static str;

    /// The beginning of the names of its threads.
    const THREADS: &'static str;

    /// A spawned task, which can be awaited for its result.
    type Task<T: Send + 'static>: Future<Output = T> + Send + 'static;

    /// Runs a future. Systems that take closures only (threadpool, rayon, std) block one of their
    /// threads on it, and are absent from benches of futures.
    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Runs a closure that may block, in the way that the system has for that. A system that has no
    /// such way runs it as any other closure.
    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static;

    /// Lets the task run without a handle.
    fn detach<T: Send + 'static>(task: Self::Task<T>);

    /// Runs a future without a handle, in the cheapest way that the system has.
    fn spawn_detached<F>(&'static self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::detach(self.spawn(future));
    }

    /// Runs a closure without a handle, in the cheapest way that the system has.
    fn execute<F>(&'static self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        Self::detach(self.spawn_blocking(f));
    }

    /// Yields, in the system's own way if it has one.
    fn yield_now() -> impl Future<Output = ()> + Send {
        futures_lite::future::yield_now()
    }

    /// Waits for this time, with the system's own timers if it has some.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        async move {
            async_io::Timer::after(duration).await;
        }
    }

    /// Runs a future on the calling thread, which is not a thread of the system.
    fn block_on<F: Future>(&'static self, future: F) -> F::Output;
}

/// All systems of a run.
#[derive(Debug)]
pub struct Systems {
    /// The number of workers, servers or threads of each system.
    pub workers: usize,
    /// This project.
    pub umcg: &'static Umcg,
    /// This project without managed calls.
    pub bare_umcg: &'static BareUmcg,
    /// `tokio`, multi-thread.
    pub tokio: &'static Tokio,
    /// `async-executor` with the crate `blocking`.
    pub async_executor: &'static AsyncExecutor,
    /// `futures::executor::ThreadPool`.
    pub futures_pool: &'static FuturesPool,
    /// `threadpool`, with 512 threads.
    pub threadpool: &'static Threadpool,
    /// `rayon`.
    pub rayon: &'static Rayon,
    /// `may`: coroutines with stacks.
    pub may: &'static May,
    /// One thread for each closure.
    pub std_threads: &'static StdThreads,
}

impl Systems {
    /// The same systems, but with a new runtime of this project. Idle workers that an earlier group
    /// left, which stay for ten seconds, are not among its threads.
    #[must_use]
    pub fn with_fresh_umcg(&self) -> Self {
        Self {
            umcg: Box::leak(Box::new(Umcg::new(self.workers))),
            ..*self
        }
    }

    /// Starts all systems and waits until their workers run. The threads of `threadpool` start
    /// later.
    pub fn start(workers: usize) -> Self {
        let systems = Self {
            workers,
            umcg: leak(Umcg::new(workers)),
            bare_umcg: leak(Umcg::bare(workers)),
            tokio: leak(Tokio::new(workers)),
            async_executor: leak(AsyncExecutor::new(workers)),
            futures_pool: leak(FuturesPool::new(workers)),
            threadpool: leak(Threadpool::new()),
            rayon: leak(Rayon::new(workers)),
            may: leak(May::new(workers)),
            std_threads: leak(StdThreads),
        };
        crate::for_futures!(systems, s => prime(s, workers));
        prime(systems.rayon, workers);
        systems
    }
}

/// Leaks the system, which lives as long as the process.
pub fn leak<S>(system: S) -> &'static S {
    Box::leak(Box::new(system))
}

/// Runs `$body` for each system that runs futures, as `$s`.
#[macro_export]
macro_rules! for_futures {
    ($systems:expr, $s:ident => $body:expr) => {{
        {
            let $s = $systems.umcg;
            $body;
        }
        {
            let $s = $systems.tokio;
            $body;
        }
        {
            let $s = $systems.async_executor;
            $body;
        }
        {
            let $s = $systems.futures_pool;
            $body;
        }
        {
            let $s = $systems.may;
            $body;
        }
    }};
}

/// Starts only the system of that name, and runs `$body` with it, as `$s`. `None` if there is no
/// such system.
#[macro_export]
macro_rules! with_system {
    ($name:expr, $workers:expr, $s:ident => $body:expr) => {{
        use $crate::system::{
            AsyncExecutor, FuturesPool, May, Rayon, StdThreads, Threadpool, Tokio, Umcg, leak,
        };
        match $name {
            Umcg::NAME => {
                let $s = leak(Umcg::new($workers));
                Some($body)
            }
            Tokio::NAME => {
                let $s = leak(Tokio::new($workers));
                Some($body)
            }
            AsyncExecutor::NAME => {
                let $s = leak(AsyncExecutor::new($workers));
                Some($body)
            }
            FuturesPool::NAME => {
                let $s = leak(FuturesPool::new($workers));
                Some($body)
            }
            Threadpool::NAME => {
                let $s = leak(Threadpool::new());
                Some($body)
            }
            Rayon::NAME => {
                let $s = leak(Rayon::new($workers));
                Some($body)
            }
            May::NAME => {
                let $s = leak(May::new($workers));
                Some($body)
            }
            StdThreads::NAME => {
                let $s = leak(StdThreads);
                Some($body)
            }
            _ => None,
        }
    }};
}

/// Runs `$body` for each system that has a way to run closures that block.
#[macro_export]
macro_rules! for_blocking {
    ($systems:expr, $s:ident => $body:expr) => {{
        {
            let $s = $systems.umcg;
            $body;
        }
        {
            let $s = $systems.threadpool;
            $body;
        }
        {
            let $s = $systems.tokio;
            $body;
        }
        {
            let $s = $systems.async_executor;
            $body;
        }
    }};
}

/// Runs tasks until all workers of the system have run some.
pub fn prime<S: System>(system: &'static S, workers: usize) {
    let arrived = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let tasks: Vec<_> = (0..workers)
            .map(|_| {
                let arrived = Arc::clone(&arrived);
                system.spawn(async move {
                    arrived.fetch_add(1, AcqRel);
                    // Long enough for another worker to wake up for the next task.
                    let begin = std::time::Instant::now();
                    while begin.elapsed() < Duration::from_micros(100) {
                        thread::yield_now();
                    }
                })
            })
            .collect();
        for task in tasks {
            futures_lite::future::block_on(task);
        }
    }
    assert_eq!(arrived.load(Acquire), 100 * workers);
}

/// Waits for the end of a number of closures.
#[derive(Clone, Debug)]
pub struct Countdown(Arc<(AtomicUsize, Mutex<bool>, Condvar)>);

impl Countdown {
    /// Waits for `count` closures.
    pub fn new(count: usize) -> Self {
        Self(Arc::new((
            AtomicUsize::new(count),
            Mutex::new(false),
            Condvar::new(),
        )))
    }

    /// Counts one closure as done.
    pub fn done(&self) {
        // AcqRel: the last closure sees the writes of all others; pairs with itself.
        if self.0.0.fetch_sub(1, AcqRel) == 1 {
            *self.0.1.lock().expect("nobody panics here") = true;
            self.0.2.notify_all();
        }
    }

    /// Blocks the calling thread until all closures are done.
    pub fn wait(&self) {
        let mut done = self.0.1.lock().expect("nobody panics here");
        while !*done {
            done = self.0.2.wait(done).expect("nobody panics here");
        }
    }
}

/// A handle whose output is a `Result`. It panics if the task panicked.
#[derive(Debug)]
pub struct Unwrapped<H>(pub(crate) H);

impl<H, T, E> Future for Unwrapped<H>
where
    H: Future<Output = Result<T, E>> + Unpin,
    E: std::fmt::Debug,
{
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.expect("the task ends well"))
    }
}
