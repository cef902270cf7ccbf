//! This project.

use std::{
    fmt,
    future::Future,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use super::{System, Unwrapped};

/// All runtimes that were built.
static BUILT: Mutex<Vec<umcg::Handle>> = Mutex::new(Vec::new());

/// Prints to stderr what each runtime that ran something has counted so far, including the warm-up.
pub fn print_counters() {
    let built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    for metrics in built.iter().map(umcg::Handle::metrics) {
        if metrics.completed_tasks_count() == 0 {
            continue;
        }
        let counters = metrics.provider();
        eprintln!(
            "    {} servers: {} tasks, {} dispatches, {} self-dispatched, {} taken over; blocks: {} \
             kernel, {} announced, {} parked, {} sentinel, {} monitor, {} sibling; {} refused, {} \
             adopted; {} workers",
            metrics.num_servers(),
            metrics.completed_tasks_count(),
            counters.dispatches,
            counters.self_dispatched,
            counters.taken_over,
            counters.blocks_kernel,
            counters.blocks_announced,
            metrics.parked_blocks_count(),
            counters.blocks_sentinel,
            counters.blocks_monitor,
            counters.blocks_sibling,
            counters.refused,
            counters.adopted,
            metrics.workers_peak(),
        );
    }
}

/// `umcg::Runtime`, as `Builder::new()` makes it.
pub struct Umcg(umcg::Runtime);

/// This project, with a runtime that does not manage calls. It is built when it is used for the
/// first time, which is in the round that warms up: most sets have no cell for it.
pub type BareUmcg = LazyLock<Umcg, Box<dyn FnOnce() -> Umcg + Send>>;

impl Umcg {
    /// A system with this many workers whose blocks only the provider sees, as in a program that
    /// does not ask for managed calls. The setting is one of the runtime: its workers go through
    /// the functions that this program defines, and from there straight to libc.
    pub fn bare(workers: usize) -> BareUmcg {
        LazyLock::new(Box::new(move || {
            let builder = umcg::Builder::new().thread_name(BareUmcg::THREADS);
            Self::build(workers, builder.managed_calls(false))
        }))
    }

    /// A system with this many workers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn new(workers: usize) -> Self {
        Self::build(workers, umcg::Builder::new())
    }

    /// A runtime with other settings.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn build(workers: usize, builder: umcg::Builder) -> Self {
        let runtime = builder.servers(workers).build().expect("a runtime");
        BUILT
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(runtime.handle().clone());
        Self(runtime)
    }

    /// The runtime.
    pub fn runtime(&self) -> &umcg::Runtime {
        &self.0
    }

    /// The CPUs of its servers. Empty if they are not pinned.
    pub fn cpus(&self) -> Vec<usize> {
        let metrics = self.0.metrics();
        metrics.servers().iter().filter_map(|s| s.cpu()).collect()
    }

    /// The CPU of its first server, or the first CPU if that server is not pinned.
    pub fn cpu(&self) -> usize {
        self.cpus().first().copied().unwrap_or(0)
    }

    /// Ends the runtime without waiting for its tasks.
    pub fn shutdown(self) {
        self.0.shutdown_background();
    }
}

impl fmt::Debug for Umcg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }
}

impl System for Umcg {
    const NAME: &'static str = "umcg";
    const THREADS: &'static str = "umcg";
    type Task<T: Send + 'static> = Unwrapped<umcg::JoinHandle<T>>;

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
        umcg::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        umcg::time::sleep(duration)
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}

impl System for BareUmcg {
    const NAME: &'static str = "umcg, no managed calls";
    const THREADS: &'static str = "bare-umcg";
    type Task<T: Send + 'static> = <Umcg as System>::Task<T>;

    fn spawn<F>(&'static self, future: F) -> Self::Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Umcg::spawn(self, future)
    }

    fn spawn_blocking<F, R>(&'static self, f: F) -> Self::Task<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Umcg::spawn_blocking(self, f)
    }

    fn detach<T: Send + 'static>(task: Self::Task<T>) {
        Umcg::detach(task);
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        Umcg::yield_now()
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
        <Umcg as System>::sleep(duration)
    }

    fn block_on<F: Future>(&'static self, future: F) -> F::Output {
        Umcg::block_on(self, future)
    }
}
