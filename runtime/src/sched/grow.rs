//! How workers come to be: one thread that makes the others.
//!
//! Neither a server nor a worker makes a thread itself. A server would stop its slot for the
//! 50 to 150 us that it takes, and it would wait for the allocator's lock, which may be held by
//! a worker that only this server can let go on. So they ask here, by a flag and an unpark, and
//! go on. The thread sleeps for good while nobody asks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::{Duration, Instant},
};

use super::{Shared, server::Server, worker};
use crate::{panic::AbortIfPanic, parker::Parker, trace};

/// So many workers may be added beyond `max_workers` while others wait in the runtime's own
/// waits (trace A12). Not infinite, so that a runaway recursion of joins ends in an event and a
/// wait instead of in the machine's last thread.
const BEYOND_CAP: usize = 32_768;

/// A thread that could not be made is tried again after this, doubling ...
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// ... up to this.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// How many workers there are, and may be.
pub(super) struct Grow {
    /// Workers that exist or are being made.
    total: AtomicUsize,
    /// The most that `total` was.
    peak: AtomicUsize,
    /// Those that sleep in the runtime's own waits: they do not count against the cap.
    own_waits: AtomicUsize,
    /// A server could not get a worker because of the cap; whoever makes room says so.
    capped: AtomicBool,
    /// A worker that was made could not register.
    refused: AtomicBool,
    /// Of the thread that makes workers.
    maker: Parker,
    /// Threads that could not be made, or could not register.
    failures: AtomicU64,
    /// Workers that were added although there were `max_workers` already.
    beyond_cap: AtomicU64,
    /// Times that a server went without because of the cap.
    at_cap: AtomicU64,
}

/// A snapshot for metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct GrowCounts {
    pub(super) peak: usize,
    pub(super) failures: u64,
    pub(super) beyond_cap: u64,
    pub(super) at_cap: u64,
}

impl Grow {
    pub(super) fn new() -> Self {
        Self {
            total: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            own_waits: AtomicUsize::new(0),
            capped: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            maker: Parker::new(),
            failures: AtomicU64::new(0),
            beyond_cap: AtomicU64::new(0),
            at_cap: AtomicU64::new(0),
        }
    }

    /// Asks for a worker for this server. Never blocks. The wish is checked again before it is
    /// granted.
    pub(super) fn want(&self, server: &Server) {
        if server.want() {
            self.rouse();
        }
    }

    /// Has the maker look at all the servers again.
    pub(super) fn rouse(&self) {
        self.maker.unpark();
    }

    /// Whether another worker would be allowed.
    pub(super) fn has_room(&self, max: usize) -> bool {
        let total = self.total.load(SeqCst);
        total.saturating_sub(self.own_waits.load(SeqCst)) < max
            && total < max.saturating_add(BEYOND_CAP)
    }

    /// Whether there are more workers than `max` allows for: those that were added while others
    /// waited leave when they have nothing to do.
    pub(super) fn is_over(&self, max: usize) -> bool {
        self.total.load(Relaxed) > max
    }

    pub(super) fn begin_own_wait(&self) {
        self.own_waits.fetch_add(1, SeqCst);
        self.made_room();
    }

    pub(super) fn end_own_wait(&self) {
        self.own_waits.fetch_sub(1, SeqCst);
    }

    /// A worker is gone, or was not made.
    pub(super) fn release(&self) {
        self.total.fetch_sub(1, SeqCst);
        self.made_room();
    }

    /// After the counts changed; pairs with the fence in `reserve`: either it saw the change,
    /// or we see its flag.
    fn made_room(&self) {
        fence(SeqCst);
        if self.capped.load(Relaxed) && self.capped.swap(false, SeqCst) {
            self.rouse();
        }
    }

    /// Takes a place for a worker. False: the cap.
    fn reserve(&self, max: usize) -> bool {
        if self.try_reserve(max) {
            return true;
        }
        let first = !self.capped.swap(true, SeqCst);
        fence(SeqCst);
        // Again, behind the flag.
        if self.try_reserve(max) {
            return true;
        }
        if first {
            self.at_cap.fetch_add(1, Relaxed);
            trace::at_cap(max);
        }
        false
    }

    fn try_reserve(&self, max: usize) -> bool {
        let mut total = self.total.load(SeqCst);
        loop {
            let counted = total.saturating_sub(self.own_waits.load(SeqCst));
            if counted >= max || total >= max.saturating_add(BEYOND_CAP) {
                return false;
            }
            match self
                .total
                .compare_exchange(total, total + 1, SeqCst, SeqCst)
            {
                Ok(_) => break,
                Err(found) => total = found,
            }
        }
        self.peak.fetch_max(total + 1, Relaxed);
        if total >= max {
            self.beyond_cap.fetch_add(1, Relaxed);
            trace::beyond_cap(max, total + 1);
        }
        true
    }

    /// A worker came to life and could not register: not to be tried again at once.
    pub(super) fn note_refusal(&self) {
        self.failures.fetch_add(1, Relaxed);
        self.refused.store(true, SeqCst);
    }

    pub(super) fn counts(&self) -> GrowCounts {
        GrowCounts {
            peak: self.peak.load(Relaxed),
            failures: self.failures.load(Relaxed),
            beyond_cap: self.beyond_cap.load(Relaxed),
            at_cap: self.at_cap.load(Relaxed),
        }
    }
}

impl fmt::Debug for Grow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Why a worker was not added.
#[derive(Debug)]
pub(super) enum NoWorker {
    /// `max_workers`.
    Cap,
    /// The operating system gave no thread.
    Thread(std::io::Error),
}

impl Shared {
    /// Makes a worker for `server`, on a thread that no server schedules.
    pub(super) fn add_worker(self: &Arc<Self>, server: &Server) -> Result<(), NoWorker> {
        if !self.grow.reserve(self.config.max_workers) {
            return Err(NoWorker::Cap);
        }
        let record = self.arena.take();
        record.prepare(server);
        server.expect_worker();
        self.life.thread_comes();
        let index = record.index();
        let shared = Arc::clone(self);
        let builder = std::thread::Builder::new()
            .name(format!("{}-w{index}", self.config.thread_name))
            .stack_size(self.config.stack_size);
        match builder.spawn(move || worker::main(shared, index)) {
            Ok(thread) => {
                record.set_thread(thread);
                trace::worker_started(index, server.index(), self.grow.total.load(Relaxed));
                Ok(())
            }
            Err(error) => {
                server.expect_no_more();
                record.set_seat(worker::seat::FREE);
                self.arena.put(index);
                self.grow.release();
                self.life.thread_goes();
                self.grow.failures.fetch_add(1, Relaxed);
                Err(NoWorker::Thread(error))
            }
        }
    }

    /// The thread that makes workers.
    pub(super) fn make_workers(self: &Arc<Self>) {
        let guard = AbortIfPanic("the thread that makes workers");
        let mut retry = FIRST_RETRY;
        while !self.life.is_stopping() {
            let failed = self.grow.refused.swap(false, SeqCst) || !self.grant_wishes(retry);
            if failed {
                // Unparks do not shorten this: a queue that fills would make us spin on EAGAIN.
                let until = Instant::now() + retry;
                while !self.life.is_stopping() && self.grow.maker.park_timeout(left(until)) {}
                retry = (retry * 2).min(LAST_RETRY);
            } else {
                retry = FIRST_RETRY;
                self.grow.maker.park();
            }
        }
        guard.disarm();
        self.life.thread_goes();
    }

    /// One worker for each server that wants one and still needs it. False: no thread could be
    /// had.
    fn grant_wishes(self: &Arc<Self>, retry: Duration) -> bool {
        for server in &self.servers {
            let index = server.index();
            let starved = self.sleep.is_starved(index);
            if !server.unwant() && !starved {
                continue;
            }
            if server.is_starting() {
                // It comes, and wakes its server.
                continue;
            }
            if server.idle() > 0 || !self.backlog.reachable(index, &self.sleep) {
                // The tasks went elsewhere. A server that starves is told of no new ones: it
                // has to look for itself.
                if starved {
                    let _ = self.provider.preempt(server.tid());
                }
                continue;
            }
            match self.add_worker(server) {
                Ok(()) | Err(NoWorker::Cap) => {}
                Err(NoWorker::Thread(error)) => {
                    trace::spawn_failed(&error, retry.as_millis() as u64);
                    server.want();
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn own_waits_make_room_up_to_the_hard_limit() {
        let grow = Grow::new();
        assert!(grow.reserve(2) && grow.reserve(2));
        assert!(!grow.reserve(2));
        assert_eq!(grow.counts().at_cap, 1);
        grow.begin_own_wait();
        assert!(grow.has_room(2) && grow.reserve(2));
        assert_eq!(grow.counts().beyond_cap, 1);
        assert!(!grow.reserve(2));
        grow.end_own_wait();
        assert!(grow.is_over(2));
        grow.release();
        assert!(!grow.is_over(2));
        assert_eq!(grow.counts().peak, 3);
    }

    #[test]
    fn who_makes_room_rouses_the_maker_once() {
        let grow = Grow::new();
        assert!(grow.reserve(1) && !grow.reserve(1));
        grow.begin_own_wait();
        assert!(grow.maker.park_timeout(Duration::ZERO));
        grow.end_own_wait();
        grow.begin_own_wait();
        assert!(!grow.maker.park_timeout(Duration::ZERO));
    }
}
