//! How a runtime ends.
//!
//! [`Shared::stop`] does steps 1 to 4 and never waits. It runs no code of the application.
//!
//! 1. **Refuse.** The phase becomes STOPPING. From here on a new task is dropped by the thread that
//!    spawns it, and no worker begins another task.
//! 2. **Queue what is suspended.** `stop` closes the registry of suspended futures and calls their
//!    wakers, which queue the tasks as usual. A future that is running at that moment finds the
//!    registry closed when it would suspend, and is dropped by the worker that polls it.
//! 3. **Allow sweeps.** The phase becomes SWEEPING: everything that is to be cancelled is in a
//!    queue now.
//! 4. **Wake.** `stop` wakes the worker spawner and all servers.
//! 5. **Sweep.** The worker spawner, an ordinary thread that has nothing left to do, drops what is
//!    queued: the jobs that thread pools keep, then the tasks in the run queues. Then it ends.
//!    Destructors of the application run here, inside the context of the runtime, and no lock of
//!    the runtime is held.
//! 6. **Workers leave.** Each server dispatches its idle workers one after the other. A dispatched
//!    worker sees the phase and leaves; a busy worker leaves when its task ends or suspends. Each
//!    of them sweeps before it leaves, since it may have queued a task behind the spawner's back.
//! 7. **Late pushes.** A waker may have been stopped between "this task is woken" and the push on
//!    the queue for as long as steps 1 to 6 took. It finds SWEEPING after its push, and has the
//!    task dropped by a thread that is made for it ([`Shared::cancel_late_push`]).
//! 8. **Servers end.** A server whose last worker has left unregisters and ends. The last server
//!    has the poller end, if there is one.
//! 9. **Wait, or abandon.** `Runtime::drop` waits until all threads are about to end;
//!    `shutdown_timeout` waits until its deadline. After the deadline, and at once in
//!    `shutdown_background`, the phase becomes ABANDONED: servers leave whatever their workers do,
//!    and the provider makes ordinary threads of these workers, which leave when their tasks are
//!    done.
//! 10. **Join.** `Runtime::drop` joins the threads, so that destructors of thread-locals have run.
//!
//! A destructor that runs in a sweep must not wait for another task of the same runtime: that task
//! may be queued behind it, for the same thread to drop. This directory's README, section 6, gives
//! the rule, and the reasons why no task is lost and no server is left asleep.

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering::AcqRel},
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    Shared, Threads, context,
    worker::{Worker, current},
};
use crate::{
    events,
    panic::AbortIfPanic,
    task::{Origin, Runnable},
    wait::ManagedWait,
};

/// Keeps jobs for a runtime outside of its run queues, and hands them over as tasks one by one. A
/// thread pool is one.
pub(crate) trait JobQueue: Send + Sync {
    /// Drops the jobs that were not handed over. Called by each sweep, on several threads perhaps
    /// at once; from the first call on the implementor drops each new job instead of keeping it.
    fn cancel_jobs(&self);
}

/// The job queues of one runtime.
pub(super) struct JobQueues(
    /// Weak, so that a pool may end before its runtime. Held for a few instructions, never while
    /// a job is dropped.
    Mutex<Vec<Weak<dyn JobQueue>>>,
);

impl JobQueues {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn cancel_jobs(&self) {
        let queues: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for queue in queues {
            queue.cancel_jobs();
        }
    }
}

impl fmt::Debug for JobQueues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobQueues")
            .field(&self.0.lock().len())
            .finish()
    }
}

impl Shared {
    /// Has the jobs of this queue dropped when the runtime stops. The runtime may have stopped
    /// already: the implementor looks at [`is_stopping`](Self::is_stopping) before it keeps a job.
    pub(crate) fn add_job_queue(&self, queue: &Arc<dyn JobQueue>) {
        let mut queues = self.job_queues.0.lock();
        if queues.len() == queues.capacity() {
            queues.retain(|queue| queue.strong_count() > 0);
        }
        queues.push(Arc::downgrade(queue));
    }

    /// Steps 1 to 4. May be called more than once.
    pub(crate) fn stop(&self) {
        self.lifecycle.stop();
        self.owned.close();
        self.lifecycle.begin_sweep();
        self.spawner.wake();
        self.wake_servers();
    }

    /// Step 5, on the thread of the worker spawner, once the phase is SWEEPING.
    pub(super) fn sweep_on_spawner(self: &Arc<Self>) {
        // As on a worker: destructors may rely on the signals that the application handles.
        self.signals.apply();
        self.sweep();
        // The timers that are left belong to futures that other executors poll, or a `block_on`.
        self.driver.shut_down();
    }

    /// Drops what is queued, in pools and in the run queues, on this thread.
    pub(super) fn sweep(self: &Arc<Self>) {
        self.in_context(|| {
            self.job_queues.cancel_jobs();
            self.run_queues.sweep();
        });
    }

    /// Drops a task on this thread, which cancels it.
    pub(super) fn cancel(&self, task: Runnable) {
        self.to_arc().in_context(|| drop(task));
    }

    /// Runs `f`, which calls destructors of the application, inside the context of this runtime.
    fn in_context(self: &Arc<Self>, f: impl FnOnce()) {
        let _entered = context::enter(self);
        f();
    }

    /// This value's `Arc`. For callers that have one, or a task's reference.
    fn to_arc(&self) -> Arc<Self> {
        self.this
            .upgrade()
            .expect("the caller, or a task that it has, refers to the runtime")
    }

    /// A task was queued while the runtime stops, and the caller has passed a SeqCst fence since.
    /// Makes sure that it is dropped.
    ///
    /// The caller must not drop it here. A waker may be called with a lock of the application held,
    /// which the destructor takes as well; it may be called by the thread of the timers, which must
    /// not wait for a destructor; and it may be called by a task of this runtime that then joins
    /// the task which it woke.
    pub(super) fn cancel_late_push(&self, origin: Origin) {
        if !self.lifecycle.is_sweeping() {
            // Step 5 is still to come.
            return;
        }
        if origin == Origin::Yield && current::with_worker(self, |_| ()).is_some() {
            // This worker has just polled the task. Nothing else is on its stack, so it leaves and
            // sweeps next.
            return;
        }
        let shared = self.to_arc();
        // Counted, so that `wait_for_all` waits for the destructors, too.
        self.lifecycle.add_thread();
        let made = std::thread::Builder::new()
            .name(format!("{}-cancel", self.config.thread_name))
            .stack_size(self.config.stack_size)
            .spawn(move || {
                let guard = AbortIfPanic("the thread that drops tasks at the end of a runtime");
                shared.signals.apply();
                umcg_sys::unmanage_current_thread();
                current::join_runtime(&shared);
                shared.sweep();
                guard.disarm();
                shared.lifecycle.remove_thread();
            });
        if made.is_err() {
            // The system refuses the thread. To sweep here is the lesser evil: it goes wrong only
            // if a destructor needs what the caller holds, while a task that stays queued hangs
            // whatever joins it.
            self.lifecycle.remove_thread();
            self.to_arc().sweep();
        }
    }

    /// Part of step 9: makes the servers leave at once, whatever their workers do. The workers
    /// become ordinary threads, which leave when their tasks are done.
    pub(crate) fn abandon(&self) {
        self.lifecycle.abandon();
        self.wake_servers();
    }

    /// Part of step 8: the last server has the poller end, since no worker of this runtime sleeps
    /// in its gate any more.
    pub(super) fn server_unregistered(&self) {
        // AcqRel: the last one comes after the others.
        if self.servers_left.fetch_sub(1, AcqRel) == 1 {
            self.stop_poller();
        }
    }

    /// Wakes all servers, after the phase was raised.
    fn wake_servers(&self) {
        for server in &self.servers {
            // ESRCH: the server has left already, or never registered.
            let _ = self.provider.wake(server.tid());
        }
    }

    /// Step 9: waits until the last thread of the runtime is about to end. False: the deadline came
    /// first. For the one thread that shuts the runtime down, which may be a worker of another
    /// runtime, and hands its slot over.
    pub(crate) fn wait_for_all(&self, deadline: Option<Instant>) -> bool {
        let all = self.wait_for_threads(deadline);
        events::stopped(
            if all { "all threads ended" } else { "timeout" },
            self.lifecycle.threads(),
        );
        all
    }

    /// As [`wait_for_all`](Self::wait_for_all), without an event.
    pub(super) fn wait_for_threads(&self, deadline: Option<Instant>) -> bool {
        let waiter = self.lifecycle.waiter();
        while self.lifecycle.threads() > 0 {
            if !ManagedWait::begin().park_until(waiter, deadline) {
                return self.lifecycle.threads() == 0;
            }
        }
        true
    }

    /// Step 10: waits until the threads have ended, destructors of thread-locals included. After
    /// [`wait_for_all`](Self::wait_for_all) said that they are about to end.
    pub(crate) fn join(&self, threads: Threads) {
        let wait = ManagedWait::begin();
        let workers = self.arena.iter().filter_map(Worker::take_thread);
        for thread in threads.handles.into_iter().chain(workers) {
            // A thread of the runtime aborts the process rather than panics. What may panic is the
            // destructor of an application's thread-local, and that has been printed.
            let _ = wait.in_system(|| thread.join());
        }
        self.driver.join();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex, mpsc},
        thread,
    };

    use crate::{
        Handle,
        task::{Origin, spawn_closure},
        testing::{ManualSched, runtime},
    };

    /// Notes its thread and runtime when it is dropped, under a lock.
    struct Witness(
        Arc<Mutex<()>>,
        mpsc::Sender<(Option<String>, Option<Handle>)>,
    );

    impl Drop for Witness {
        fn drop(&mut self) {
            let _held = self.0.lock().unwrap();
            let name = thread::current().name().map(str::to_owned);
            let _ = self.1.send((name, Handle::try_current().ok()));
        }
    }

    /// A waker that was stopped before its push goes on when all threads have ended. It is called
    /// under a lock that the destructor of its task takes.
    #[test]
    fn a_late_push_is_dropped_by_a_thread_of_its_own() {
        let runtime = runtime();
        let shared = runtime.shared();
        shared.stop();
        assert!(shared.wait_for_all(None));
        let (tell, told) = mpsc::channel();
        let lock = Arc::new(Mutex::new(()));
        let witness = Witness(Arc::clone(&lock), tell);
        let sched = ManualSched::new();
        let task = spawn_closure(&sched, None, move || drop(witness));
        let (runnable, _) = sched.take().expect("it was scheduled");
        {
            let _held = lock.lock().unwrap();
            shared.run_queues.injector.push(runnable);
            shared.cancel_late_push(Origin::Wake);
        }
        let (name, handle) = told.recv().expect("it is dropped");
        assert_eq!(name.as_deref(), Some("umcg-cancel"));
        let handle = handle.expect("inside of the runtime");
        assert!(Arc::ptr_eq(handle.shared(), runtime.shared()));
        assert!(task.join().unwrap_err().is_cancelled());
        assert!(shared.wait_for_all(None));
    }
}
