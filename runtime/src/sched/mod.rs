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
mod run_queue;
mod server;
mod shutdown;
mod signals;
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
        atomic::{Ordering::SeqCst, fence},
    },
};

use umcg_sys::Provider;

use self::{
    arena::Arena,
    counters::OutsideCounts,
    idle::IdleServers,
    lifecycle::Lifecycle,
    policy::PlaceTask,
    run_queue::RunQueues,
    server::Server,
    shutdown::JobQueues,
    signals::SignalMask,
    spawner::Spawner,
    task_ref::{TaskRef, count::RefCount},
    worker::{Worker, WorkerState},
};
pub(crate) use self::{config::Config, shutdown::JobQueue, start::Threads};
use crate::{
    driver::Driver,
    error::Refusal,
    task::{Origin, OwnedTasks, Runnable, Schedule},
    wait,
};

/// All that the threads of one runtime share.
pub(crate) struct Shared {
    config: Config,
    provider: Arc<dyn Provider>,
    /// The mask of the thread that built the runtime, for its workers.
    signals: SignalMask,
    /// The provider watches whoever has work waiting.
    watched: bool,
    /// It is a worker, whose pin and policy new threads inherit.
    built_on_worker: bool,
    /// Why it is this provider, in a sentence.
    why: String,
    run_queues: Arc<RunQueues>,
    servers: Box<[Server]>,
    /// Shared with the provider's thread, as the run_queues is.
    idle_servers: Arc<IdleServers>,
    arena: Arena,
    /// Fires the timers of the futures that are polled in this runtime.
    driver: Driver,
    spawner: Spawner,
    lifecycle: Lifecycle,
    owned: OwnedTasks,
    /// Counts the references of tasks to this.
    task_refs: RefCount,
    job_queues: JobQueues,
    tasks: OutsideCounts,
    /// This, for those that have it by a task's reference.
    this: Weak<Self>,
}

impl Shared {
    fn new(config: Config, provider: Arc<dyn Provider>, why: String, this: Weak<Self>) -> Self {
        let servers = config.servers;
        Self {
            watched: provider.facts().watches,
            signals: SignalMask::current(),
            built_on_worker: wait::with_worker(|_| ()).is_some(),
            provider,
            why,
            run_queues: Arc::new(RunQueues::new(servers)),
            servers: (0..servers).map(Server::new).collect(),
            idle_servers: Arc::new(IdleServers::new(servers)),
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

    /// Whether the runtime takes no more tasks.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lifecycle.is_stopping()
    }

    /// Why this runtime takes no task just now, for `try_spawn`.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.is_stopping() {
            return Some(Refusal::ShutDown);
        }
        let limit = self.config.queue_limit?;
        let full = limit == 0 || self.run_queues.len_exceeds(limit - 1);
        full.then_some(Refusal::Full)
    }

    /// The stack of a worker, in bytes.
    pub(crate) fn thread_stack_size(&self) -> usize {
        self.config.stack_size
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Whether the calling thread is a worker's of this runtime, hooks included.
    pub(crate) fn is_current(&self) -> bool {
        worker::current::is_thread_of(self)
    }

    /// The first step of a thread that runs no code of the user's: no signal is handled on it,
    /// and it has the CPUs of the process.
    fn begin_thread(&self) {
        SignalMask::all().apply();
        if self.built_on_worker {
            umcg_sys::unmanage_current_thread();
        }
    }

    /// Wakes one idle server for something that was queued before the call, unless one is being
    /// woken already. True: one was woken.
    fn wake_one(&self) -> bool {
        // After what was queued, before the look at who sleeps: see `IdleServers::claim`.
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
                // ESRCH: it has left, which only a runtime that shuts down does.
                let _ = self.provider.wake(self.servers[server].tid());
                true
            }
            None => false,
        }
    }

    /// Takes the worker back that is armed in `worker`. The caller owns it.
    fn disarm(&self, worker: &Worker) -> Option<&Worker> {
        let tid = self.provider.disarm(worker.task())?;
        let armed = self.arena.get(worker.armed());
        if armed.task().tid() == tid {
            return Some(armed);
        }
        // `armed` has been overwritten since: look for the tid.
        self.worker_by_tid(tid)
    }

    /// The worker with this thread id, by a walk over all records.
    fn worker_by_tid(&self, tid: u32) -> Option<&Worker> {
        self.arena
            .iter()
            .find(|worker| worker.task().tid() == tid && worker.state() != WorkerState::Free)
    }

    /// Puts a task where it belongs.
    fn enqueue(&self, task: Runnable, origin: Origin) -> Announce {
        let mut task = Some(task);
        let on_worker = worker::current::with_worker(self, |worker| {
            let task = task.take().expect("called once");
            let server = worker.server();
            if matches!(origin, Origin::Spawn | Origin::Fork) {
                worker.record().counts().count_spawn();
            }
            let own = &self.run_queues.servers[server.index()];
            let nothing_queued = || own.lifo.is_empty() && own.queue.is_empty();
            let left_to_own = match policy::place_task(origin, self.watched, nothing_queued) {
                PlaceTask::LifoSlot => match own.lifo.put(task) {
                    Some(previous) => {
                        own.queue.push(previous);
                        false
                    }
                    None => true,
                },
                PlaceTask::Queue { left_to_own } => {
                    own.queue.push(task);
                    left_to_own
                }
            };
            if left_to_own {
                Announce::ToOwn(server.index())
            } else {
                Announce::ToAll(server.index())
            }
        });
        on_worker.unwrap_or_else(|| {
            if matches!(origin, Origin::Spawn | Origin::Fork) {
                self.tasks.count_spawn();
            }
            let task = task.take().expect("not on a worker of this runtime");
            self.run_queues.injector.push(task);
            Announce::FromOutside
        })
    }

    /// Tells whoever has to know of a task that was just queued. After a SeqCst fence.
    fn announce(&self, what: Announce) {
        match what {
            Announce::ToAll(server) => {
                self.provider.work_waiting(self.servers[server].tid());
                self.wake_one_after_fence();
            }
            // Left to this server, unless it sleeps: then this worker was blocked and runs
            // unmanaged, and nobody may come past.
            Announce::ToOwn(server) => {
                self.provider.work_waiting(self.servers[server].tid());
                if !self.idle_servers.is_awake(server) {
                    self.wake_one_after_fence();
                }
            }
            // A server that is woken has its provider watch when it dispatches.
            Announce::FromOutside => {
                if !self.wake_one_after_fence() {
                    self.provider.work_waiting(self.servers[0].tid());
                }
            }
        }
    }
}

/// Who is to know of a task; with the index of a server.
#[derive(Clone, Copy, Debug)]
enum Announce {
    /// It is in the queue of this server.
    ToAll(usize),
    /// It is in the LIFO slot of this server, or alone in its queue.
    ToOwn(usize),
    /// It is in the injector.
    FromOutside,
}

impl Schedule for Shared {
    type Ref = TaskRef;

    fn reference(this: &Arc<Self>) -> TaskRef {
        TaskRef::new(this)
    }

    fn schedule(&self, task: Runnable, origin: Origin) {
        let new = matches!(origin, Origin::Spawn | Origin::Fork);
        if new && self.lifecycle.is_stopping() {
            self.tasks.count_spawn();
            self.cancel(task);
            return;
        }
        let what = self.enqueue(task, origin);
        // After the push. Pairs with the store and the sweep in `stop`: either the sweep finds
        // the task, or we see the phase. And with the fences of whoever is about to sleep: servers
        // (`IdleServers::enter_idle`) and the provider's watcher.
        fence(SeqCst);
        if self.lifecycle.is_stopping() {
            self.cancel_late_push(origin);
        } else {
            self.announce(what);
        }
    }

    fn finished(&self) {
        let on_worker =
            worker::current::with_worker(self, |worker| worker.record().counts().count_finish());
        if on_worker.is_none() {
            self.tasks.count_finish();
        }
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
