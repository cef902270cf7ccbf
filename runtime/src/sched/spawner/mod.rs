//! How workers come to be: one thread that makes the others.
//!
//! Neither a server nor a worker makes a thread itself. A server would stop its slot for the
//! 50 to 150 us that it takes, and it would wait for the allocator's lock, which may be held by
//! a worker that only this server can let go on. So they ask here, by a flag and an unpark, and
//! go on. The thread sleeps for good while nobody asks.

mod limit;
mod request;

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

use self::limit::{Place, WorkerLimit};
pub(in crate::sched) use self::request::WorkerRequest;
use super::{Shared, server::Server, worker};
use crate::{
    events,
    panic::AbortIfPanic,
    wait::{ManagedWait, Parker},
};

/// A thread that could not be made is tried again after this, doubling ...
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// ... up to this.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// What the maker of workers shares with those that ask it.
pub(in crate::sched) struct Spawner {
    pub(in crate::sched) limit: WorkerLimit,
    /// Of the thread that makes workers.
    parker: Parker,
    /// A worker that was made could not register.
    register_failed: AtomicBool,
    /// The most workers that there were.
    peak: AtomicUsize,
    /// Threads that could not be made, or could not register.
    failures: AtomicU64,
    /// Workers that were added although there were `max_workers` already.
    beyond_limit: AtomicU64,
    /// Times that a server went without because of the limit.
    at_limit: AtomicU64,
}

/// A snapshot for metrics.
#[derive(Clone, Copy, Debug)]
pub(in crate::sched) struct SpawnerCounts {
    pub(in crate::sched) peak: usize,
    pub(in crate::sched) failures: u64,
    pub(in crate::sched) beyond_limit: u64,
    pub(in crate::sched) at_limit: u64,
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
        }
    }

    /// Asks for a worker for this server. Never blocks. The wish is checked again before it is
    /// granted.
    pub(in crate::sched) fn request(&self, server: &Server) {
        if server.request_worker() {
            self.wake();
        }
    }

    /// Has the maker look at all the servers again.
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

    /// A worker is gone, or was not made.
    pub(in crate::sched) fn release(&self) {
        if self.limit.release() {
            self.wake();
        }
    }

    /// Takes a place for a worker, and counts. `None`: the limit.
    fn reserve(&self) -> Option<usize> {
        match self.limit.reserve() {
            Place::Taken(total) => {
                // Relaxed, here and below: numbers for people.
                self.peak.fetch_max(total, Relaxed);
                if total > self.limit.max() {
                    self.beyond_limit.fetch_add(1, Relaxed);
                    events::beyond_cap(self.limit.max(), total);
                }
                Some(total)
            }
            Place::Refused { first } => {
                if first {
                    self.at_limit.fetch_add(1, Relaxed);
                    events::at_cap(self.limit.max());
                }
                None
            }
        }
    }

    /// A worker came to life and could not register: not to be tried again at once.
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
    /// `max_workers`.
    Limit,
    /// The operating system gave no thread.
    Thread(std::io::Error),
}

impl Shared {
    /// Makes a worker for `server`, on a thread that no server schedules.
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
        match builder.spawn(move || worker::main(shared, index)) {
            Ok(thread) => {
                record.set_thread(thread);
                events::worker_started(index, server.index(), total);
                Ok(())
            }
            Err(error) => {
                server.worker_started();
                self.lose_worker(server);
                record.set_seat(worker::seat::FREE);
                self.arena.put(index);
                self.spawner.release();
                self.lifecycle.remove_thread();
                self.spawner.failures.fetch_add(1, Relaxed);
                Err(NoWorker::Thread(error))
            }
        }
    }

    /// The thread that makes workers.
    pub(in crate::sched) fn run_spawner(self: &Arc<Self>) {
        let guard = AbortIfPanic("the thread that makes workers");
        self.begin_thread();
        // A destructor that this thread calls in the end may drop the `Runtime`, which does not
        // wait for its own threads.
        worker::become_thread_of(self);
        let mut retry = FIRST_RETRY;
        while !self.lifecycle.is_stopping() {
            let failed =
                self.spawner.register_failed.swap(false, SeqCst) || !self.serve_requests(retry);
            if failed {
                // Unparks do not shorten this: a queue that fills would make us spin on EAGAIN.
                let until = Instant::now() + retry;
                while !self.lifecycle.is_stopping()
                    && ManagedWait::begin().park_until(&self.spawner.parker, Some(until))
                {
                }
                retry = (retry * 2).min(LAST_RETRY);
            } else {
                retry = FIRST_RETRY;
                ManagedWait::begin().park(&self.spawner.parker);
            }
        }
        while !self.lifecycle.is_sweeping() {
            ManagedWait::begin().park(&self.spawner.parker);
        }
        self.sweep_on_spawner();
        guard.disarm();
        self.lifecycle.remove_thread();
    }

    /// One worker for each server that wants one and still needs it. False: no thread could be
    /// had.
    fn serve_requests(self: &Arc<Self>, retry: Duration) -> bool {
        for server in &self.servers {
            let index = server.index();
            let (wanted, starved) = server.take_request(|| self.idle_servers.is_starved(index));
            if !wanted && !starved {
                continue;
            }
            if server.has_starting_worker() {
                // It comes, and wakes its server.
                continue;
            }
            if server.idle_with_inbox() > 0
                || !self.run_queues.has_task_for(index, &self.idle_servers)
            {
                // The tasks went elsewhere. A server that starves is told of no new ones: it
                // has to look for itself.
                if starved {
                    let _ = self.provider.wake(server.tid());
                }
                continue;
            }
            match self.add_worker(server) {
                Ok(()) | Err(NoWorker::Limit) => {}
                Err(NoWorker::Thread(error)) => {
                    // A server that starves is looked at again by that; a worker that would like
                    // a spare asks with its next task.
                    events::spawn_failed(&error, retry.as_millis() as u64);
                    return false;
                }
            }
        }
        true
    }
}
