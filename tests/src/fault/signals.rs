//! A storm of signals against all threads of this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::proc;

/// Signals each thread of this process, over and over, until it is dropped.
#[derive(Debug)]
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// Starts it with a counting handler installed with `flags` (0, or `SA_RESTART`), see
    /// [`proc::signals`]. The thread that starts it and the storm's own get none.
    #[must_use]
    pub fn start(signal: i32, flags: i32) -> Self {
        proc::count_signals(signal, flags);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let starter = umcg_sys::gettid();
        let thread = thread::spawn(move || {
            let this = umcg_sys::gettid();
            while !stopped.load(Relaxed) {
                for tid in proc::threads() {
                    if tid != this && tid != starter {
                        proc::signal(tid, signal);
                    }
                }
                thread::sleep(Duration::from_micros(300));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
