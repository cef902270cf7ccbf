//! The worker spawner: one thread that makes the threads of all workers.
//!
//! Neither a server nor a worker makes a thread itself. It takes 50 to 150 us, for which a server
//! would leave its slot unused. And it allocates: a server would wait for the allocator's lock,
//! which may be held by a worker that only this server can let go on. So they set a flag (a
//! *worker request*), unpark the spawner, and go on. The spawner sleeps without a deadline while
//! nothing is requested.
//!
//! When the runtime stops it needs no more workers, and this thread drops what is cancelled: see
//! `shutdown.rs`.
//!
//! The README of the directory above, section 4, says when a server requests a worker.

mod limit;
mod request;
mod worker_wait;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

pub(in crate::sched) use self::request::WorkerRequest;
use self::{
    limit::{Place, WorkerLimit},
    worker_wait::WorkerWait,
};
use super::{Shared, server::Server, worker, worker::WorkerState};
use crate::{
    events,
    panic::AbortIfPanic,
    wait::{ManagedWait, Parker},
};

/// After a thread could not be made, the spawner waits this long before it tries again. The wait
/// doubles with each failure in a row ...
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// ... up to this.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// A starved server gets at most this many workers at once.
const MAX_BATCH: usize = 4;

/// How many workers a starved server gets at once, when this many tasks are queued.
///
/// All workers of a starved server are blocked, so the queued tasks will probably block as well. If
/// the server got one worker, it would often starve again as soon as that one blocks. It would then
/// sleep, and wake the spawner, for each task. With batches, 4,200 connections of `examples/notes`
/// are open after 7 % less time. The number is at most half of the tasks, so that few workers are
/// left over if the tasks do not block. A server that takes its slot from computing workers gets one:
/// the queued tasks may compute as well.
fn batch(queued: usize) -> usize {
    (queued / 2).clamp(1, MAX_BATCH)
}

/// What the spawner's thread shares with those that request workers.
pub(in crate::sched) struct Spawner {
    /// How many workers there may be.
    pub(in crate::sched) limit: WorkerLimit,
    /// Where the spawner's thread sleeps.
    parker: Parker,
    /// A worker's thread was made but could not register. Set by that thread, cleared by the
    /// spawner, which then waits before it makes another one.
    register_failed: AtomicBool,
    /// The most workers that there have been at a time.
    peak: AtomicUsize,
    /// How many threads could not be made, or could not register.
    failures: AtomicU64,
    /// How many workers were added although there were `max_workers` already.
    beyond_limit: AtomicU64,
    /// How often a server got no worker because of the limit.
    at_limit: AtomicU64,
    /// How often tasks waited long for a worker that could not be made.
    long_waits: AtomicU64,
}

/// A snapshot of the counters of [`Spawner`], for metrics.
#[derive(Clone, Copy, Debug)]
pub(in crate::sched) struct SpawnerCounts {
    pub(in crate::sched) peak: usize,
    pub(in crate::sched) failures: u64,
    pub(in crate::sched) beyond_limit: u64,
    pub(in crate::sched) at_limit: u64,
    pub(in crate::sched) long_waits: u64,
}

impl Spawner {
    pub(in crate::sched) fn new(max_workers: usize) -> Self {
        Self {
            limit: WorkerLimit::new(max_workers),
            parker: Parker::new(),
            register_failed: AtomicBool::new(false),
            peak: AtomicUsize::new(0),
            failures: AtomicU64::new(0),
            beyond_limit: AtomicU64::new(0),
            at_limit: AtomicU64::new(0),
            long_waits: AtomicU64::new(0),
        }
    }

    /// Requests a worker for this server. Never blocks. The spawner checks that the server still
    /// needs one before it makes it.
    pub(in crate::sched) fn request(&self, server: &Server) {
        if server.request_worker() {
            self.wake();
        }
    }

    /// Makes the spawner look at the requests of all servers again.
    pub(in crate::sched) fn wake(&self) {
        self.parker.unpark();
    }

    pub(in crate::sched) fn begin_managed_blocking(&self) {
        if self.limit.begin_managed_blocking() {
            self.wake();
        }
    }

    pub(in crate::sched) fn end_managed_blocking(&self) {
        self.limit.end_managed_blocking();
    }

    /// A worker is gone, or was not made after all: its place is free.
    pub(in crate::sched) fn release(&self) {
        if self.limit.release() {
            self.wake();
        }
    }

    /// Takes a place for a worker, and counts. `None`: the limit is reached.
    fn reserve(&self) -> Option<usize> {
        match self.limit.reserve() {
            Place::Taken(total) => {
                // Relaxed, here and below: numbers for metrics, which nothing depends on.
                self.peak.fetch_max(total, Relaxed);
                if total > self.limit.max() {
                    self.beyond_limit.fetch_add(1, Relaxed);
                    events::worker_limit_exceeded(self.limit.max(), total);
                }
                Some(total)
            }
            Place::Refused { first } => {
                if first {
                    self.at_limit.fetch_add(1, Relaxed);
                    events::worker_limit_reached(self.limit.max());
                }
                None
            }
        }
    }

    /// The thread of a new worker could not register. Another one is not to be made at once.
    pub(in crate::sched) fn note_register_failed(&self) {
        self.failures.fetch_add(1, Relaxed);
        self.register_failed.store(true, SeqCst);
    }

    pub(in crate::sched) fn counts(&self) -> SpawnerCounts {
        SpawnerCounts {
            peak: self.peak.load(Relaxed),
            failures: self.failures.load(Relaxed),
            beyond_limit: self.beyond_limit.load(Relaxed),
            at_limit: self.at_limit.load(Relaxed),
            long_waits: self.long_waits.load(Relaxed),
        }
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner")
            .field("limit", &self.limit)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// Why a worker was not added.
#[derive(Debug)]
pub(in crate::sched) enum NoWorker {
    /// There are `max_workers`.
    Limit,
    /// The operating system refused a thread.
    Thread(std::io::Error),
}

impl Shared {
    /// Makes a worker for `server`. To be called on a thread that no server schedules.
    pub(in crate::sched) fn add_worker(self: &Arc<Self>, server: &Server) -> Result<(), NoWorker> {
        let total = self.spawner.reserve().ok_or(NoWorker::Limit)?;
        let record = self.arena.take();
        record.prepare(server);
        server.worker_starting();
        self.lifecycle.add_thread();
        let index = record.index();
        let shared = Arc::clone(self);
        let builder = std::thread::Builder::new()
            .name(format!("{}-w{index}", self.config.thread_name))
            .stack_size(self.config.stack_size);
        match builder.spawn(move || worker::run::main(shared, index)) {
            Ok(thread) => {
                record.set_thread(thread);
                events::worker_started(index, server.index(), total);
                Ok(())
            }
            Err(error) => {
                server.worker_started();
                self.lose_worker(server);
                record.set_state(WorkerState::Free);
                self.arena.put(index);
                self.spawner.release();
                self.lifecycle.remove_thread();
                self.spawner.failures.fetch_add(1, Relaxed);
                Err(NoWorker::Thread(error))
            }
        }
    }

    /// The loop of the worker spawner's thread.
    pub(in crate::sched) fn run_spawner(self: &Arc<Self>) {
        let guard = AbortIfPanic("the worker spawner");
        self.begin_thread();
        // A destructor that this thread calls in the end may drop the `Runtime`, which does not
        // wait for its own threads.
        worker::current::join_runtime(self);
        let mut retry = FIRST_RETRY;
        let mut wait = WorkerWait::default();
        while !self.lifecycle.is_stopping() {
            let failed = self.spawner.register_failed.swap(false, SeqCst)
                || !self.serve_requests(retry, &mut wait);
            let look = wait.looked(Instant::now());
            if failed {
                // An unpark does not shorten the wait. Otherwise a queue that fills would make this
                // thread spin on EAGAIN.
                let until = Instant::now() + retry;
                while !self.lifecycle.is_stopping()
                    && ManagedWait::begin().park_until(&self.spawner.parker, Some(until))
                {
                }
                retry = (retry * 2).min(LAST_RETRY);
            } else {
                retry = FIRST_RETRY;
                ManagedWait::begin().park_until(&self.spawner.parker, look);
            }
        }
        while !self.lifecycle.is_sweeping() {
            ManagedWait::begin().park(&self.spawner.parker);
        }
        self.sweep_on_spawner();
        guard.disarm();
        self.lifecycle.remove_thread();
    }

    /// Makes workers for each server that has requested one, or starves, and still needs it. False:
    /// a thread could not be made.
    fn serve_requests(self: &Arc<Self>, retry: Duration, wait: &mut WorkerWait) -> bool {
        let mut starved_by_limit = false;
        for server in &self.servers {
            let index = server.index();
            let (requested, starved) = server.take_request(|| self.idle_servers.is_starved(index));
            if !requested && !starved {
                continue;
            }
            if server.has_starting_worker() {
                // That worker is on its way, and its admission wakes the server.
                continue;
            }
            if server.idle_with_inbox() > 0
                || !self.run_queues.has_task_for(index, &self.idle_servers)
            {
                // The server has a worker by now, or the tasks went elsewhere. A starved server is
                // told of no new tasks, so it must wake and look for itself.
                if starved {
                    let _ = self.provider.wake(server.tid());
                }
                continue;
            }
            let number = if starved && !server.gave_way() {
                batch(self.run_queues.len())
            } else {
                1
            };
            match self.add_workers(server, number) {
                Ok(()) => {}
                Err(NoWorker::Limit) => starved_by_limit |= starved,
                Err(NoWorker::Thread(error)) => {
                    // After the wait this function looks at starved servers again. A worker that
                    // would like a spare requests it again with its next task.
                    if retry == FIRST_RETRY {
                        events::spawn_failed(&error, retry.as_millis() as u64);
                    }
                    if starved {
                        self.note_wait(wait, Some(&error));
                    }
                    return false;
                }
            }
        }
        if starved_by_limit {
            self.note_wait(wait, None);
        }
        true
    }

    /// Makes up to `number` workers for `server`. An error means that none was made because of the
    /// limit, or that a thread could not be made.
    fn add_workers(self: &Arc<Self>, server: &Server, number: usize) -> Result<(), NoWorker> {
        self.add_worker(server)?;
        for _ in 1..number {
            match self.add_worker(server) {
                Err(NoWorker::Limit) => break,
                result => result?,
            }
        }
        Ok(())
    }

    /// A starved server gets no worker, because of the worker limit or of this error. Counts and
    /// reports it when tasks have waited long for that reason.
    fn note_wait(&self, wait: &mut WorkerWait, error: Option<&std::io::Error>) {
        let queued = self.run_queues.len();
        let Some(long) = wait.refused(Instant::now(), queued, self.taken_tasks()) else {
            return;
        };
        if long.warn {
            let limit = &self.spawner.limit;
            events::tasks_wait_for_worker(limit.max(), limit.total(), queued, error);
        }
        self.spawner.long_waits.fetch_add(1, Relaxed);
    }
}
