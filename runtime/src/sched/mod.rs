//! The scheduler: servers that choose, workers that run, and what they share.
#![doc = include_str!("README.md")]

mod arena;
mod clock;
mod config;
pub(crate) mod context;
mod counters;
mod idle;
mod inbox;
mod lifecycle;
mod policy;
mod reactor;
mod run_queue;
mod server;
mod shutdown;
mod signals;
mod sleepers;
mod snapshot;
mod spawner;
mod start;
mod task_ref;
mod worker;
mod worker_list;

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst, fence},
    },
};

use umcg_sys::{Provider, ProviderKind};

use self::{
    arena::Arena,
    counters::OutsideCounts,
    idle::IdleServers,
    lifecycle::Lifecycle,
    policy::PlaceTask,
    reactor::Reactor,
    run_queue::RunQueues,
    server::{Server, Slices},
    shutdown::JobQueues,
    signals::SignalMask,
    spawner::Spawner,
    task_ref::{TaskRef, count::RefCount},
    worker::{Worker, WorkerState, current, managed_calls_are_defined, run::WorkerThread},
};
pub(crate) use self::{config::Config, shutdown::JobQueue, start::Threads};
use crate::{
    driver::Driver,
    error::Refusal,
    task::{Origin, OwnedTasks, Runnable, Schedule},
    wait,
};

/// Everything that the threads of one runtime share.
pub(crate) struct Shared {
    config: Config,
    provider: Arc<dyn Provider>,
    /// The signal mask of the thread that built the runtime. Its workers get the same mask.
    signals: SignalMask,
    /// The provider watches servers whose work waits (`work_waiting`), and calls `overdue`.
    watched: bool,
    /// The runtime was built on a worker of another one, whose CPU pin and policy new threads
    /// inherit.
    built_on_worker: bool,
    /// Why this provider was chosen, as a sentence.
    why: String,
    /// Shared with the provider, which asks `has_work`.
    run_queues: Arc<RunQueues>,
    /// One for each slot, by index.
    servers: Box<[Server]>,
    /// Shared with the provider, which calls `overdue`.
    idle_servers: Arc<IdleServers>,
    /// Shared with the provider, which calls `overdue`.
    slices: Arc<Slices>,
    /// Calls of libc that sleep are managed: the program has asked for it, it was not turned off,
    /// and the provider has use for it.
    managed_calls: bool,
    /// How many servers are registered, or are being started.
    servers_left: AtomicUsize,
    /// Where workers wait for descriptors. `None`: calls are not managed, or the system refused it.
    reactor: Option<Reactor>,
    /// The records of the workers.
    arena: Arena,
    /// Fires the timers of the futures that are polled in this runtime.
    driver: Driver,
    spawner: Spawner,
    lifecycle: Lifecycle,
    /// The suspended tasks.
    owned: OwnedTasks,
    /// Counts the references of tasks to this.
    task_refs: RefCount,
    /// Jobs that the end of this runtime cancels, outside of its run queues.
    job_queues: JobQueues,
    /// Tasks that threads outside of this runtime spawned or dropped.
    tasks: OutsideCounts,
    /// This value's own `Arc`, for code that came here by a task's reference.
    this: Weak<Self>,
}

impl Shared {
    fn new(config: Config, provider: Arc<dyn Provider>, why: String, this: Weak<Self>) -> Self {
        let servers = config.servers;
        let managed_calls = config.managed_calls
            && managed_calls_are_defined()
            && provider.kind() == ProviderKind::Emulated;
        Self {
            watched: provider.facts().watches,
            managed_calls,
            servers_left: AtomicUsize::new(servers),
            // Without one, workers sleep in their calls.
            reactor: managed_calls.then(Reactor::new).and_then(Result::ok),
            signals: SignalMask::current(),
            built_on_worker: wait::with_worker(|_| ()).is_some(),
            provider,
            why,
            run_queues: Arc::new(RunQueues::new(servers)),
            servers: (0..servers).map(Server::new).collect(),
            idle_servers: Arc::new(IdleServers::new(servers)),
            slices: Arc::new(Slices::new(servers)),
            arena: Arena::new(),
            driver: Driver::new(&config.thread_name),
            spawner: Spawner::new(config.max_workers),
            lifecycle: Lifecycle::new(),
            owned: OwnedTasks::new(servers),
            task_refs: RefCount::new(),
            job_queues: JobQueues::new(),
            tasks: OutsideCounts::default(),
            this,
            config,
        }
    }

    /// Whether the runtime accepts no more tasks.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lifecycle.is_stopping()
    }

    /// Why this runtime accepts no task at this moment, for `try_spawn`.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.is_stopping() {
            return Some(Refusal::ShutDown);
        }
        let limit = self.config.queue_limit?;
        let full = limit == 0 || self.run_queues.len_exceeds(limit - 1);
        full.then_some(Refusal::Full)
    }

    /// The size of a worker's stack, in bytes.
    pub(crate) fn thread_stack_size(&self) -> usize {
        self.config.stack_size
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Whether the calling thread is one of this runtime that runs application code: a worker's,
    /// hooks included, or one that cancels tasks.
    pub(crate) fn is_current(&self) -> bool {
        current::is_thread_of(self)
    }

    /// The first step of a thread that runs no application code: it handles no signals, and may use
    /// all CPUs of the process.
    fn begin_thread(&self) {
        SignalMask::all().apply();
        if self.built_on_worker {
            umcg_sys::unmanage_current_thread();
        }
    }

    /// Wakes one idle server for something that was queued before the call, unless one is being
    /// woken already. True: one was woken.
    fn wake_one(&self) -> bool {
        // Between the push and the look at the idle servers: see `IdleServers::claim`.
        fence(SeqCst);
        self.wake_one_after_fence()
    }

    /// [`wake_one`](Self::wake_one) for a caller that has passed a SeqCst fence since it queued
    /// whatever is waiting.
    fn wake_one_after_fence(&self) -> bool {
        let pending = || {
            self.run_queues.any_queued()
                || (0..self.servers.len()).any(|server| self.run_queues.has_work(server))
        };
        match self.idle_servers.claim(pending) {
            Some(server) => {
                // ESRCH: the server has left, since the runtime shuts down.
                let _ = self.provider.wake(self.servers[server].tid());
                true
            }
            None => {
                self.run_queues.sleepers.any()
                    && (0..self.servers.len()).any(|server| self.retake_slot(server))
            }
        }
    }

    /// After a push and a SeqCst fence: if a worker sleeps in the slot of `server`, takes the slot
    /// from it, so that the server or a spare runs what was pushed. True: it was taken.
    fn retake_slot(&self, server: usize) -> bool {
        // ESRCH: the worker has ended, and its server knows; or the server has left.
        let retake = |tid| {
            let server = self.servers[server].tid();
            self.provider.retake(server, tid).unwrap_or(false)
        };
        self.run_queues.sleepers.retake(server).is_some_and(retake)
    }

    /// Takes the spare back that is armed in `worker`. The caller owns the spare then.
    fn disarm(&self, worker: &Worker) -> Option<&Worker> {
        let tid = self.provider.disarm(worker.task())?;
        let armed = self.arena.get(worker.armed());
        if armed.task().tid() == tid {
            return Some(armed);
        }
        // `armed` has been overwritten since: search for the tid.
        self.worker_by_tid(tid)
    }

    /// The worker with this thread id, by a walk over all records.
    fn worker_by_tid(&self, tid: u32) -> Option<&Worker> {
        self.arena
            .iter()
            .find(|worker| worker.task().tid() == tid && worker.state() != WorkerState::Free)
    }

    /// Puts a task into a queue. `worker`: the calling thread, if it is a worker of this runtime.
    fn enqueue(&self, task: Runnable, origin: Origin, worker: Option<&WorkerThread>) -> Queued {
        let Some(worker) = worker else {
            self.run_queues.injector.push(task);
            return Queued::InInjector;
        };
        let server = worker.server().index();
        let own = &self.run_queues.servers[server];
        let nothing_queued = || own.lifo.is_empty() && own.queue.is_empty();
        match policy::place_task(origin, self.watched, nothing_queued) {
            PlaceTask::LifoSlot => match own.lifo.put(task) {
                Some(previous) => {
                    own.queue.push(previous);
                    Queued::ForAll(server)
                }
                None => Queued::ForOwn(server),
            },
            PlaceTask::Queue { left_to_own } => {
                own.queue.push(task);
                if left_to_own {
                    Queued::ForOwn(server)
                } else {
                    Queued::ForAll(server)
                }
            }
        }
    }

    /// Tells those that have to know of a task which was just queued. The caller has passed a
    /// SeqCst fence since.
    fn notify(&self, queued: Queued) {
        match queued {
            Queued::ForAll(server) => {
                self.provider.work_waiting(self.servers[server].tid());
                self.wake_one_after_fence();
            }
            // Left to this server, unless it sleeps. If it does, the calling worker was blocked and
            // runs unmanaged, and perhaps no worker of this server looks at the queue next.
            Queued::ForOwn(server) => {
                self.provider.work_waiting(self.servers[server].tid());
                if !self.idle_servers.is_awake(server) {
                    self.wake_one_after_fence();
                } else {
                    self.retake_slot(server);
                }
            }
            // A server that is woken has its provider watch when it dispatches.
            Queued::InInjector => {
                if !self.wake_one_after_fence() {
                    self.provider.work_waiting(self.servers[0].tid());
                }
            }
        }
    }

    /// [`Schedule::schedule`], on that worker of this runtime, or on another thread.
    fn schedule_on(&self, task: Runnable, origin: Origin, worker: Option<&WorkerThread>) {
        let is_new = matches!(origin, Origin::Spawn | Origin::Fork);
        if is_new {
            match worker {
                Some(worker) => worker.record().counts().count_spawn(),
                None => self.tasks.count_spawn(),
            }
            if self.lifecycle.is_stopping() {
                self.cancel(task);
                return;
            }
        }
        let queued = self.enqueue(task, origin, worker);
        // Between the push and the look at the phase; pairs with the fence in
        // `Lifecycle::begin_sweep`, between the phase and the sweep: either the sweep finds the
        // task, or this thread sees the phase. Also between the push and the looks in `notify`;
        // pairs with the fences of those that are about to sleep: servers
        // (`IdleServers::enter_idle`) and the provider's watcher.
        fence(SeqCst);
        if self.lifecycle.is_stopping() {
            self.cancel_late_push(origin);
        } else {
            self.notify(queued);
        }
    }
}

/// Where a task was queued, which decides the servers to notify. The index is a server's.
#[derive(Clone, Copy, Debug)]
enum Queued {
    /// In the run queue of this server, for whichever worker is first.
    ForAll(usize),
    /// In the LIFO slot of this server, or alone in its run queue: left to its own workers.
    ForOwn(usize),
    /// In the injector.
    InInjector,
}

impl Schedule for Shared {
    type Ref = TaskRef;

    fn spawn<R>(
        this: &Arc<Self>,
        origin: Origin,
        make: impl FnOnce(TaskRef) -> (Runnable, R),
    ) -> R {
        current::find_worker(this, |worker| {
            let (task, made) = make(TaskRef::new(this, worker));
            this.schedule_on(task, origin, worker);
            made
        })
    }

    fn schedule(&self, task: Runnable, origin: Origin) {
        current::find_worker(self, |worker| self.schedule_on(task, origin, worker));
    }

    fn finished(&self) {
        current::find_worker(self, |worker| match worker {
            Some(worker) => worker.record().counts().count_finish(),
            None => self.tasks.count_finish(),
        });
    }

    fn owned(&self) -> &OwnedTasks {
        &self.owned
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("provider", &self.provider)
            .field("idle_servers", &self.idle_servers)
            .field("spawner", &self.spawner)
            .finish_non_exhaustive()
    }
}
