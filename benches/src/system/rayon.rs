//! `rayon`, a pool for work that computes.

use super::{System, closures::closures_only};

/// A pool of rayon.
#[derive(Debug)]
pub struct Rayon(rayon::ThreadPool);

impl Rayon {
    /// A system with this many workers.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
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
    closures_only!();

    fn execute<F>(&'static self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        self.0.spawn(f);
    }
}
