//! The end of a runtime. The steps are numbered in this directory's README, section 6.

use std::{
    sync::{
        Arc,
        atomic::{Ordering::SeqCst, fence},
    },
    time::Instant,
};

use umcg_sys::Error;

use super::{
    Shared, Threads,
    server::Server,
    worker::{self, Worker, seat},
};
use crate::{
    Handle,
    context::{self, Helper},
    events,
    panic::AbortIfPanic,
    task::Origin,
};

impl Helper for Shared {
    fn help(&self) {
        if (self.run_queues.len() > 0 || self.at_stop.is_left()) && !self.start_sweeper() {
            self.sweep();
        }
    }
}

impl Shared {
    /// Takes no more tasks, and cancels those that are queued or suspended: they are dropped
    /// here, on the calling thread, or on a worker. Workers leave when they have nothing left
    /// on their stack. Idempotent.
    pub(crate) fn stop(&self) {
        self.life.phase.stop();
        // Their wakers queue the suspended ones. All of them before any is dropped: a destructor
        // may wait for another's end.
        self.owned.close();
        self.spawner.rouse();
        self.wake_servers();
        // Here the first destructor runs, at the earliest.
        self.life.phase.begin_sweep();
        self.sweep();
        // The timers that are left belong to futures of other executors, or of a `block_on`.
        self.driver.shut_down();
    }

    /// Drops what is queued, here and in pools, on this thread. If a destructor waits, by a wait of the runtime's own,
    /// the others are left to another thread: it may wait for one of them. Never on this stack:
    /// one of them may wait for it, or for a lock that it holds.
    pub(super) fn sweep(&self) {
        context::with_helper(self, || {
            self.at_stop.run();
            self.run_queues.sweep();
        });
    }

    /// A task was queued while the runtime stops, and the caller has passed a SeqCst fence since.
    /// It is dropped by whoever stops the runtime, or by a worker.
    ///
    /// Not here: a waker is called with any lock of the user's held, and on threads that must not
    /// wait for a destructor of the user's.
    pub(super) fn leave_to_a_sweep(&self, origin: Origin) {
        if !self.life.phase.is_swept() {
            return;
        }
        if origin == Origin::Yield && worker::with_current(self, |_| ()).is_some() {
            // It has just polled the task, and comes to its own sweep.
            return;
        }
        // The waker was stopped for as long as all of `stop` took.
        if !self.start_sweeper() {
            self.sweep();
        }
    }

    /// A thread that drops what is queued. False: it cannot be had.
    fn start_sweeper(&self) -> bool {
        let Some(shared) = self.this.upgrade() else {
            return false;
        };
        // One that has not looked yet will find what we know of. Pairs with the swap by which it
        // says that it looks now.
        if self.sweeper_comes.swap(true, SeqCst) {
            return true;
        }
        self.life.thread_comes();
        let started = std::thread::Builder::new()
            .name(format!("{}-sweep", self.config.thread_name))
            .stack_size(self.config.stack_size)
            .spawn(move || {
                let guard = AbortIfPanic("a sweep");
                // Then the queues.
                shared.sweeper_comes.swap(false, SeqCst);
                shared.signals.apply();
                umcg_sys::unmanage_current_thread();
                worker::become_thread_of(&shared);
                let handle = Handle::new(Arc::clone(&shared));
                let entered = context::enter(&handle);
                shared.sweep();
                drop(entered);
                guard.disarm();
                shared.life.thread_goes();
            });
        match started {
            Ok(thread) => {
                self.sweepers.lock().push(thread);
                true
            }
            Err(_) => {
                self.sweeper_comes.store(false, SeqCst);
                self.life.thread_goes();
                false
            }
        }
    }

    /// Has the servers leave at once, whatever their workers do: those become ordinary threads
    /// and leave when their task is done.
    pub(crate) fn abandon(&self) {
        self.life.phase.abandon();
        self.wake_servers();
    }

    fn wake_servers(&self) {
        for server in &self.servers {
            // ESRCH: it has left already, or never registered.
            let _ = self.provider.wake(server.tid());
        }
    }

    /// Waits until the last thread of the runtime is about to end. False: the deadline came
    /// first.
    pub(crate) fn wait_for_all(&self, deadline: Option<Instant>) -> bool {
        // Of a worker of another runtime, which may have to run what is waited for.
        let _wait = context::managed_blocking();
        let all = self.life.wait_for_all(deadline);
        events::stopped(
            if all { "all threads ended" } else { "timeout" },
            self.life.threads(),
        );
        all
    }

    /// Waits for the threads to be gone, destructors of thread-locals included. After
    /// [`wait_for_all`](Self::wait_for_all) said that they are about to end.
    pub(crate) fn join(&self, threads: Threads) {
        let _wait = context::managed_blocking();
        let workers = self.arena.iter().filter_map(Worker::take_thread);
        let sweepers = std::mem::take(&mut *self.sweepers.lock());
        for thread in threads.handles.into_iter().chain(workers).chain(sweepers) {
            // They abort rather than panic; a panic in a thread-local's destructor is the
            // user's, and printed.
            let _ = thread.join();
        }
        self.driver.join();
    }

    /// A new worker could not register.
    pub(super) fn worker_refused(&self, home: &Server, error: Error) {
        if !self.life.phase.is_stopping() {
            events::register_failed(&error);
            self.spawner.note_stillborn();
            self.spawner.want(home);
        }
    }

    /// A worker of this server ended, or could not be made.
    pub(super) fn lose_worker(&self, server: &Server) {
        server.lose_worker();
        // Then the look; pairs with the fence in `Phase::stop`. The server may wait for this one
        // alone.
        fence(SeqCst);
        if self.life.phase.is_stopping() {
            let _ = self.provider.wake(server.tid());
        }
    }

    /// A worker is not registered any more: its place is free.
    pub(super) fn worker_leaves(&self, worker: &Worker) {
        let server = &self.servers[worker.server()];
        events::worker_gone(worker.index());
        worker.set_seat(seat::FREE);
        self.lose_worker(server);
        self.spawner.release();
        if !self.life.phase.is_stopping() && server.is_wanting() {
            self.spawner.rouse();
        }
    }

    /// The last thing a worker's thread does.
    pub(super) fn worker_gone(&self, worker: &Worker) {
        if !self.life.phase.is_stopping() {
            // Nobody is going to join it; unjoined, its stack would stay.
            drop(worker.take_thread());
        }
        self.arena.put(worker.index());
        self.life.thread_goes();
    }
}
