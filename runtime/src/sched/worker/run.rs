//! The thread of a worker: its start, its loop between two tasks, and its end.

use std::{
    cell::{Cell, RefCell},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{Ordering::SeqCst, fence},
    },
    time::Instant,
};

use umcg_sys::{Error, Register};

use super::{
    Worker, WorkerState, current,
    managed::{ManagedState, unmanaged},
};
use crate::{
    events,
    panic::{AbortIfPanic, contain},
    sched::{
        Shared,
        clock::now_ns,
        context, policy,
        run_queue::{Source, TakeHistory},
        server::Server,
        task_ref::Stock,
    },
    task::Runnable,
    wait::{Parker, WorkerHook},
};

/// A worker's thread, as the thread itself sees it.
pub(in crate::sched) struct WorkerThread {
    /// The worker's runtime.
    pub(in crate::sched) shared: Arc<Shared>,
    /// This worker's record, in the arena of `shared`.
    pub(super) record: NonNull<Worker>,
    /// The worker's server has gone: this is an ordinary thread, which leaves as soon as its task
    /// is done.
    pub(super) detached: Cell<bool>,
    /// What the managed call in which this worker is has done before it slept, see `managed.rs`.
    pub(super) managed: ManagedState,
    /// What this worker remembers from one take to the next, for fairness.
    take_history: RefCell<TakeHistory>,
    /// References for the tasks that this worker makes.
    pub(in crate::sched) stock: Stock,
}

/// Whether a worker may take a task after the checkpoint between two tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoint {
    /// The worker has a slot.
    HasSlot,
    /// The worker was judged, and has no slot. It becomes idle.
    NoSlot,
    /// This is an ordinary thread from here on.
    Detached,
}

/// The thread of the worker with this record.
pub(in crate::sched) fn main(shared: Arc<Shared>, index: u32) {
    let guard = AbortIfPanic("a worker's loop");
    current::join_runtime(&shared);
    let this = WorkerThread {
        record: NonNull::from(shared.arena.get(index)),
        stock: Stock::new(&shared),
        shared,
        detached: Cell::new(false),
        managed: ManagedState::default(),
        take_history: RefCell::default(),
    };
    if this.run() {
        let WorkerThread { shared, .. } = this;
        shared.worker_thread_ends(shared.arena.get(index));
    }
    guard.disarm();
}

impl WorkerThread {
    pub(in crate::sched) fn record(&self) -> &Worker {
        // SAFETY: in the arena of `self.shared`, whose chunks live as long as that.
        unsafe { self.record.as_ref() }
    }

    /// The server that this is a worker of right now. Not to be kept across code of the
    /// application.
    pub(in crate::sched) fn server(&self) -> &Server {
        &self.shared.servers[self.record().server()]
    }

    /// From the first line of the thread to the last. False: this is a forked child.
    ///
    /// The hooks run outside of the registration. A start hook that blocks would otherwise be a
    /// blocked worker, in whose place the runtime makes others, whose hooks block as well. As it
    /// is, the server waits for the worker that is starting.
    fn run(&self) -> bool {
        let record = self.record();
        let home = &self.shared.servers[record.server()];
        let hooks = &self.shared.config.hooks;
        // The worker spawner, from which this thread inherits its mask, has all signals blocked.
        self.shared.signals.apply();
        let entered = context::enter(&self.shared);
        if let Some(hook) = &hooks.on_worker_start {
            contain("on_worker_start", || hook(record.index() as usize));
        }
        record.task().prepare(home.tid());
        // SAFETY: the record is in the arena, which `self.shared` keeps, and `unregister` below is
        // called before that goes.
        let registered = unsafe {
            self.shared
                .provider
                .register(self.record.cast(), &Register::worker())
        };
        home.worker_started();
        match registered {
            Ok(()) => {
                record.set_state(WorkerState::Busy);
                current::run_as(self, || self.work());
                if !self.unregister() {
                    return false;
                }
            }
            Err(error) => self.shared.register_failed(home, error),
        }
        // Before the hook, which may wait for a task that needs this worker's place.
        self.shared.worker_unregistered(record);
        if let Some(hook) = &hooks.on_worker_stop {
            contain("on_worker_stop", || hook(record.index() as usize));
        }
        drop(entered);
        true
    }

    /// While the worker is registered.
    fn work(&self) {
        self.run_tasks();
        // This worker may have queued tasks after the first sweep had passed, whatever makes it
        // leave. Between those pushes and the look; pairs with the fence in
        // `Lifecycle::begin_sweep`. Before SWEEPING the first sweep is still to come, and finds
        // them.
        fence(SeqCst);
        if self.shared.lifecycle.is_sweeping() {
            self.shared.sweep();
        }
        self.record().counts().flush_takes(&self.server().counters);
        self.disarm();
    }

    /// False: this is a forked child.
    fn unregister(&self) -> bool {
        // The provider waits until this worker is on no list and lets its server drain.
        while let Err(error) = self.shared.provider.unregister(self.record.cast()) {
            if error.is_gone() {
                // A forked child, whose only thread this is. There is nobody to account to, and a
                // thread of the parent may have held a lock at the fork, which stays locked here.
                return false;
            }
            assert!(error.is_busy(), "a worker could not unregister: {error}");
            let _ = self.shared.provider.checkpoint();
        }
        // A worker that was judged on its way out may have been picked and armed once more.
        let armed = self.record().task().next_tid();
        if armed != 0 && self.record().task().clear_next_tid(armed) {
            if let Some(armed) = self.shared.worker_by_tid(armed) {
                self.return_to_server(armed);
            }
        }
        true
    }

    /// Runs tasks until it is time to leave.
    fn run_tasks(&self) {
        // Since when somebody is known to wait for this worker's slot, and the tasks run since.
        let mut turn: Option<(u64, u32)> = None;
        let shared = &*self.shared;
        loop {
            match self.checkpoint_between_tasks() {
                Checkpoint::HasSlot => {}
                Checkpoint::NoSlot => {
                    turn = None;
                    if !self.become_idle_judged() {
                        return;
                    }
                    continue;
                }
                Checkpoint::Detached => return,
            }
            if shared.lifecycle.is_stopping() || self.record().is_to_retire() {
                return;
            }
            self.poll_events();
            let server = self.server();
            if server.is_slot_wanted(&shared.run_queues) {
                let (since, ran) = turn.get_or_insert_with(|| (now_ns(), 0));
                if policy::turn_is_over(*ran, || now_ns() - *since) {
                    turn = None;
                    if !self.become_idle() {
                        return;
                    }
                    continue;
                }
                *ran += 1;
            } else {
                turn = None;
            }
            if let Some(task) = self.take_task(server) {
                self.request_spare(server);
                self.wake_sleeping_server();
                self.record().set_current_task(task.metadata().id());
                self.run_managed(|| {
                    task.run();
                });
                continue;
            }
            turn = None;
            if shared.lifecycle.is_stopping() {
                // `take_task` may have left a task in a queue: the loop's next round leaves.
                continue;
            }
            if shared.spawner.limit.is_exceeded() || !self.become_idle() {
                return;
            }
        }
    }

    /// The next task, if the worker finds one.
    fn take_task(&self, server: &Server) -> Option<Runnable> {
        let (task, source) = self.shared.run_queues.take(
            server.index(),
            &self.shared.idle_servers,
            &mut self.take_history.borrow_mut(),
        )?;
        if source != Source::Own {
            // Tasks that were moved along were in no queue for a moment, and a sweep may have
            // passed by then. They are in a queue again, and the look follows; pairs with the
            // fences in `Lifecycle`.
            fence(SeqCst);
            if self.shared.lifecycle.is_stopping() {
                // No task begins any more. This one is for a sweep, if no other then this worker's.
                self.shared.run_queues.servers[server.index()]
                    .queue
                    .push(task);
                return None;
            }
        }
        self.record().counts().count_take();
        if source == Source::Stolen {
            server.counters.count_steal();
        }
        Some(task)
    }

    /// Asks for another worker off the block path: tasks wait, a sibling is blocked, and nobody
    /// could take over if this worker blocked as well.
    fn request_spare(&self, server: &Server) {
        if server.block_would_strand_tasks(&self.shared.run_queues)
            && self.shared.config.min_idle > 0
            && self.shared.spawner.limit.has_room()
        {
            self.shared.spawner.request(server);
        }
    }

    /// Before code of the application runs: wakes the server if it sleeps without a deadline while
    /// siblings of this worker are blocked.
    ///
    /// That happens when this worker unblocked while its server idled, and took the slot by itself.
    /// A sibling that unblocks behind this worker would go unnoticed. Once woken, the server sleeps
    /// again with a deadline.
    pub(super) fn wake_sleeping_server(&self) {
        let server = self.server();
        if self.shared.idle_servers.is_asleep(server.index())
            && server.unlisted(&self.shared.run_queues) > 1
        {
            // ESRCH: the server has left, and this is an ordinary thread.
            let _ = self.shared.provider.wake(server.tid());
        }
    }

    /// A checkpoint in the middle of a task: a judged worker stops here until it is picked. False:
    /// an ordinary thread from here on.
    pub(super) fn checkpoint_in_task(&self) -> bool {
        if self.detached.get() {
            return false;
        }
        match self.shared.provider.checkpoint() {
            Ok(()) => true,
            Err(error) if error.is_gone() => {
                self.detached.set(true);
                false
            }
            Err(error) => unreachable!("a registered worker could not checkpoint: {error}"),
        }
    }

    /// The checkpoint between two tasks. The worker has nothing on its stack, so a judged worker
    /// that cannot have a slot at once need not queue up for one: it becomes an idle worker like
    /// others.
    fn checkpoint_between_tasks(&self) -> Checkpoint {
        if self.detached.get() {
            return Checkpoint::Detached;
        }
        let shared = &*self.shared;
        let has_task = || {
            shared
                .run_queues
                .has_task_for(self.record().server(), &shared.idle_servers)
        };
        match shared.provider.try_checkpoint(&has_task) {
            Ok(true) => Checkpoint::HasSlot,
            Ok(false) => Checkpoint::NoSlot,
            Err(error) if error.is_gone() => {
                self.detached.set(true);
                Checkpoint::Detached
            }
            Err(error) => unreachable!("a registered worker could not checkpoint: {error}"),
        }
    }
}

impl WorkerHook for WorkerThread {
    fn sleep(&self, parker: &Parker, deadline: Option<Instant>) {
        unmanaged(|| match deadline {
            None => self.sleep_in(parker),
            Some(deadline) => self.sleep_until(parker, deadline),
        });
    }

    fn begin_managed_blocking(&self) {
        self.record().set_in_managed_blocking(true);
        self.shared.spawner.begin_managed_blocking();
    }

    fn end_managed_blocking(&self) {
        self.shared.spawner.end_managed_blocking();
        self.record().set_in_managed_blocking(false);
        self.checkpoint();
    }

    fn announce_block(&self) {
        unmanaged(|| {
            if !self.detached.get() && (self.somebody_would_run() || !self.sleep_in_slot()) {
                // A verdict that the worker gives on itself: like any other it may be wrong, so
                // whatever the application does next, the runtime's own waits included, is sound.
                // An error says that there is no slot to give.
                let _ = self.shared.provider.begin_block(0);
            }
        });
    }

    fn yield_now(&self) {
        unmanaged(|| self.give_way());
    }

    fn checkpoint(&self) {
        unmanaged(|| {
            self.wake_up_in_slot();
            if self.checkpoint_in_task() {
                self.wake_sleeping_server();
            }
        });
    }
}

impl WorkerThread {
    /// Lets others of this server run first.
    fn give_way(&self) {
        let others = || {
            let server = self.server();
            server.is_slot_wanted(&self.shared.run_queues)
                || self
                    .shared
                    .run_queues
                    .has_task_for(server.index(), &self.shared.idle_servers)
        };
        if self.checkpoint_in_task() && others() {
            self.release_slot(WorkerState::Yielded);
            WorkerHook::checkpoint(self);
        } else {
            self.wake_sleeping_server();
            // Threads that no server knows of want the CPU, too: for example a worker of this
            // runtime that was blocked and runs unmanaged to its next checkpoint.
            std::thread::yield_now();
        }
    }
}

impl Shared {
    /// A new worker of `home` could not register.
    fn register_failed(&self, home: &Server, error: Error) {
        if !self.lifecycle.is_stopping() {
            events::register_failed(&error);
            self.spawner.note_register_failed();
            self.spawner.request(home);
        }
    }

    /// A worker of this server ended, or could not be made.
    pub(in crate::sched) fn lose_worker(&self, server: &Server) {
        server.lose_worker();
        // Between the number of workers and the look at the phase; pairs with the fence in
        // `Lifecycle::stop`. The server may wait for this worker alone.
        fence(SeqCst);
        if self.lifecycle.is_stopping() {
            let _ = self.provider.wake(server.tid());
        }
    }

    /// A worker is not registered any more: its place is free.
    fn worker_unregistered(&self, worker: &Worker) {
        let server = &self.servers[worker.server()];
        events::worker_gone(worker.index());
        worker.set_state(WorkerState::Free);
        self.lose_worker(server);
        self.spawner.release();
        if !self.lifecycle.is_stopping() && server.has_request() {
            self.spawner.wake();
        }
    }

    /// The last thing that a worker's thread does.
    fn worker_thread_ends(&self, worker: &Worker) {
        if !self.lifecycle.is_stopping() {
            // Nobody is going to join the thread; unjoined, its stack would stay.
            drop(worker.take_thread());
        }
        self.arena.put(worker.index());
        self.lifecycle.remove_thread();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::current;
    use crate::testing::runtime;

    /// The record says which task runs, from another thread, and nothing once the worker is idle.
    #[test]
    fn a_record_knows_the_task_of_its_worker() {
        let runtime = runtime();
        let shared = std::sync::Arc::clone(runtime.shared());
        let seen = runtime
            .spawn(async move {
                let index = current::with_worker(&shared, |worker| worker.record().index());
                let record = shared.arena.get(index.expect("on a worker"));
                let seen = std::thread::scope(|scope| {
                    scope.spawn(|| record.current_task()).join().unwrap()
                });
                assert_eq!(seen, Some(crate::task::id().get()));
                index
            })
            .join()
            .unwrap()
            .expect("on a worker");
        let record = runtime.shared().arena.get(seen);
        let deadline = Instant::now() + Duration::from_secs(20);
        while record.current_task().is_some() {
            assert!(Instant::now() < deadline, "idle, with {record:?}");
            std::thread::yield_now();
        }
    }

    /// While a worker sleeps in a managed call its record names the call, and no longer afterwards.
    #[test]
    fn a_record_knows_the_call_of_its_worker() {
        use umcg_managed_calls::{ManagedCall, Return, Sleep, Worker as _};

        let runtime = runtime();
        let shared = std::sync::Arc::clone(runtime.shared());
        runtime
            .spawn_blocking(move || {
                current::with_worker(&shared, |worker| {
                    let call = ManagedCall {
                        name: "recv",
                        argument: 7,
                    };
                    assert_eq!(worker.record().current_call(), None);
                    worker.enter(call, Sleep::Possible, Return::Io);
                    assert_eq!(worker.record().current_call(), Some(("recv", 7)));
                    worker.exit(Return::Io);
                    assert_eq!(worker.record().current_call(), None);
                })
                .expect("on a worker");
            })
            .join()
            .unwrap();
    }
}
