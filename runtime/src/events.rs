//! The events that the runtime emits by `tracing` (feature `tracing`, target `umcg`).
//!
//! Without the feature each of these functions is empty. A server calls none of them between its
//! first look at the queues and its `wait`: a subscriber takes locks, and there the server must
//! not block.

#[cfg(feature = "tracing")]
mod on {
    use std::io;

    use tracing::{debug, error, info, warn};

    /// A runtime started: which provider it uses, why, and how that provider sees blocks on this
    /// machine. A provider without sentinels says so in `description`.
    pub(crate) fn started(
        provider: &str,
        why: &str,
        description: &str,
        servers: usize,
        max_workers: usize,
    ) {
        info!(
            target: "umcg", provider, why, description, servers, max_workers,
            "runtime started"
        );
    }

    pub(crate) fn stopped(how: &str, left: usize) {
        info!(target: "umcg", how, threads_left = left, "runtime shut down");
    }

    pub(crate) fn worker_started(worker: u32, server: usize, total: usize) {
        debug!(target: "umcg", worker, server, total, "worker added");
    }

    pub(crate) fn worker_gone(worker: u32) {
        debug!(target: "umcg", worker, "worker left");
    }

    pub(crate) fn worker_limit_reached(max_workers: usize) {
        debug!(
            target: "umcg", max_workers,
            "max_workers reached: tasks wait until a worker unblocks"
        );
    }

    /// Tasks have waited for a second, because `max_workers` is reached, or because of `error`.
    pub(crate) fn tasks_wait_for_worker(
        max_workers: usize,
        workers: usize,
        queued: usize,
        error: Option<&io::Error>,
    ) {
        match error {
            None => warn!(
                target: "umcg", max_workers, workers, queued,
                "tasks have waited for a second because max_workers is reached and its workers \
                 are blocked: set a higher limit with Builder::max_workers or UMCG_MAX_WORKERS, \
                 or let fewer tasks block at a time"
            ),
            Some(error) => warn!(
                target: "umcg", max_workers, workers, queued, %error, errno = error.raw_os_error(),
                "tasks have waited for a second because the system refused a thread for another \
                 worker: raise what limits threads (RLIMIT_NPROC, pids.max of the cgroup, \
                 vm.max_map_count, kernel.threads-max, kernel.pid_max, memory), or let fewer \
                 tasks block at a time"
            ),
        }
    }

    pub(crate) fn worker_limit_exceeded(max_workers: usize, total: usize) {
        warn!(
            target: "umcg", max_workers, total,
            "a worker was added beyond max_workers: tasks are queued, and other workers wait for \
             tasks of this runtime"
        );
    }

    pub(crate) fn spawn_failed(error: &io::Error, retry_ms: u64) {
        error!(
            target: "umcg", %error, retry_ms,
            "no thread for another worker: tasks stay queued until a later attempt succeeds"
        );
    }

    pub(crate) fn no_timer_thread(error: &io::Error, retry_ms: u64) {
        error!(
            target: "umcg", %error, retry_ms,
            "no thread for timers: tasks that wait for one are polled repeatedly meanwhile"
        );
    }

    pub(crate) fn register_failed(error: &umcg_sys::Error) {
        error!(target: "umcg", %error, "a new worker could not register");
    }

    pub(crate) fn contained_panic(what: &str) {
        error!(target: "umcg", what, "user code panicked; the panic ends here");
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use std::io;

    pub(crate) fn started(_: &str, _: &str, _: &str, _: usize, _: usize) {}
    pub(crate) fn stopped(_: &str, _: usize) {}
    pub(crate) fn worker_started(_: u32, _: usize, _: usize) {}
    pub(crate) fn worker_gone(_: u32) {}
    pub(crate) fn worker_limit_reached(_: usize) {}
    pub(crate) fn tasks_wait_for_worker(_: usize, _: usize, _: usize, _: Option<&io::Error>) {}
    pub(crate) fn worker_limit_exceeded(_: usize, _: usize) {}
    pub(crate) fn spawn_failed(_: &io::Error, _: u64) {}
    pub(crate) fn no_timer_thread(_: &io::Error, _: u64) {}
    pub(crate) fn register_failed(_: &umcg_sys::Error) {}
    pub(crate) fn contained_panic(_: &str) {}
}

#[cfg(not(feature = "tracing"))]
pub(crate) use off::*;
#[cfg(feature = "tracing")]
pub(crate) use on::*;
