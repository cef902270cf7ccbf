//! Managed calls: what a worker does before the application's code sleeps in libc, and after.
//!
//! *Problem.* A worker that blocks in the kernel and wakes up again runs on without a slot, to its
//! next checkpoint. Code that is `read, work, write` in a loop never reaches one, so after its
//! first block it would never be scheduled again.
//!
//! *Mechanism.* The crate `umcg-managed-calls` calls [`enter`](ManagedWorker::enter) before such a
//! call and [`exit`](ManagedWorker::exit) after it. `enter` gives the slot away: directly to a
//! worker that waits for it, else to the server. If nothing would run, the worker keeps its slot,
//! and whoever queues work next retakes it (`sleepers.rs`). `exit` is a checkpoint: the
//! worker takes the slot if it is free and nobody waits, and otherwise queues behind those that
//! came back before it. This directory's README, section 8, has the three classes of return and the
//! argument.
//!
//! Both run on the application's stack, possibly with its locks held or in a signal handler. They
//! neither allocate nor take a lock, and a managed call made meanwhile goes straight to libc,
//! because the thread counts as unmanaged until they return.

use std::{
    cell::Cell,
    ptr::{self, NonNull},
    sync::atomic::{Ordering::SeqCst, fence},
};

use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Parked, Readiness, Return, Sleep, Waker,
    Worker as ManagedWorker, set_current,
};
use umcg_sys::{Inheritance, InterruptHook};

use super::{WorkerState, run::WorkerThread};
use crate::{
    sched::{policy, reactor::Reactor},
    wait::WorkerHook,
};

/// What a managed call leaves for its end. Written and read by the worker's thread only.
#[derive(Default)]
pub(super) struct ManagedState {
    /// `enter` handed the slot off: the worker is RUNNABLE, is on no list, and owns itself. Only
    /// then may `exit` call `end_block`, and it must.
    handed_off: Cell<bool>,
    /// The worker sleeps in the slot of the server with this index, as
    /// [`Sleepers`](crate::sched::sleepers::Sleepers) has been told.
    asleep_in_slot: Cell<Option<usize>>,
    /// A signal has ended the worker's wait for a descriptor.
    interrupted: Cell<bool>,
    /// What this thread had before it was given the process's own CPUs and policy, for a child.
    before_child: Cell<Option<Inheritance>>,
}

/// A signal handler has run while this worker slept in its gate, after which its call fails with
/// EINTR, as it would in the kernel. `worker`: the calling thread's.
fn interrupted(worker: *const ()) {
    // SAFETY: `park_for`, further up this stack, has passed it.
    let worker = unsafe { &*worker.cast::<WorkerThread>() };
    worker.managed.interrupted.set(true);
    worker.record().io_parker().unpark();
}

/// Ends the wait of the worker with this record for a descriptor, which looks once more then. From
/// any thread, while the worker waits.
fn wake(record: *const ()) {
    // SAFETY: the record of a worker that waits, in the arena of a runtime that its thread keeps.
    let record = unsafe { &*record.cast::<super::Worker>() };
    record.io_parker().unpark();
}

/// Whether the program has asked for managed calls ([`managed_calls!`](crate::managed_calls)).
pub(in crate::sched) fn is_defined() -> bool {
    umcg_managed_calls::is_defined()
}

/// While it lives, managed calls of this thread go straight to libc.
struct Unmanaged(Option<NonNull<CurrentWorker>>);

impl Unmanaged {
    fn begin() -> Self {
        // SAFETY: `None` needs nothing to stay valid.
        Self(unsafe { set_current(None) })
    }
}

impl Drop for Unmanaged {
    fn drop(&mut self) {
        // SAFETY: what was set before: `run_managed`, further up this stack, set it.
        unsafe { set_current(self.0) };
    }
}

/// For the runtime's own code on a worker that sleeps in the provider: calls `f`, in which nothing
/// is managed. The provider's own wait must not be taken for a block of the application.
pub(super) fn unmanaged<R>(f: impl FnOnce() -> R) -> R {
    if !umcg_managed_calls::is_managed() {
        return f();
    }
    let _unmanaged = Unmanaged::begin();
    f()
}

impl WorkerThread {
    /// Runs the application's code. Its calls are managed meanwhile, if the program has asked for
    /// it.
    pub(super) fn run_managed(&self, f: impl FnOnce()) {
        if !self.shared.managed_calls {
            f();
            return;
        }
        let managed = CurrentWorker::new(NonNull::from(self as &dyn ManagedWorker));
        // SAFETY: both outlive the call, and `_reset` takes them back before it returns.
        let before = unsafe { set_current(Some(NonNull::from(&managed))) };
        let _reset = Unmanaged(before);
        f();
    }

    /// Gives the slot away if somebody has use for it. True: handed off directly, to a worker.
    ///
    /// `owner`: the worker may come back with a lock. Then it is not held up at the end, so it must
    /// not be handed off: a worker without a slot that is not held up would pass its checkpoints.
    fn begin_block(&self, owner: bool) -> bool {
        if !self.is_own_thread() {
            return false;
        }
        self.poll_events();
        let shared = &*self.shared;
        let server = self.server();
        let queues = &shared.run_queues.servers[server.index()];
        let has_task = shared
            .run_queues
            .has_task_for(server.index(), &shared.idle_servers);
        let successor = policy::block_successor(
            owner,
            server.server_must_pick(&shared.run_queues),
            queues.has_resumed(),
            has_task,
            || queues.is_task_due(),
        );
        match successor {
            policy::BlockSuccessor::Nobody if self.sleep_in_slot() => false,
            policy::BlockSuccessor::Nobody | policy::BlockSuccessor::Server => {
                // An error says that this thread has no slot to give.
                let _ = shared.provider.begin_block(0);
                false
            }
            policy::BlockSuccessor::Resumed => {
                // A worker that has lost its slot already has none to hand off.
                if shared.provider.current(server.tid()) != Some(self.record().task().tid()) {
                    return false;
                }
                let Some(next) = self.pop_resumed(server) else {
                    // Somebody else was faster, or only the server can find it.
                    let _ = shared.provider.begin_block(0);
                    return false;
                };
                queues.count_handoff();
                self.disarm();
                if matches!(shared.provider.begin_block(next.task().tid()), Ok(true)) {
                    return true;
                }
                // This worker has lost its slot meanwhile, and still owns `next`.
                self.return_to_server(next);
                shared.notify_inbox(&shared.servers[next.server()]);
                false
            }
        }
    }

    /// Nobody would run if this worker gave its slot away: says that it sleeps in the slot. False:
    /// somebody has come in between.
    pub(super) fn sleep_in_slot(&self) -> bool {
        // Inside of a `BlockGuard` it may have said so already.
        self.wake_up_in_slot();
        let shared = &*self.shared;
        let server = self.server();
        let tid = self.record().task().tid();
        if shared.provider.current(server.tid()) != Some(tid) {
            // Another worker runs in the slot, or the server looks for one.
            return true;
        }
        let run_queues = &shared.run_queues;
        run_queues.sleepers.enter(server.index(), tid);
        self.managed.asleep_in_slot.set(Some(server.index()));
        if self.somebody_would_run() {
            self.wake_up_in_slot();
            return false;
        }
        if run_queues.parked.load(SeqCst) > 0 {
            // As for a server that sleeps without a worker.
            if let Some(reactor) = &shared.reactor {
                reactor.ensure_polled();
            }
        }
        true
    }

    /// The end of [`sleep_in_slot`](Self::sleep_in_slot).
    pub(super) fn wake_up_in_slot(&self) {
        if let Some(server) = self.managed.asleep_in_slot.take() {
            let tid = self.record().task().tid();
            self.shared.run_queues.sleepers.leave(server, tid);
        }
    }

    /// Whether the calling thread is this worker. A forked child's is not: it has a copy of this
    /// memory, or shares it (`vfork`), and shares the epoll instance, whose events are not meant
    /// for it.
    fn is_own_thread(&self) -> bool {
        umcg_sys::gettid() == self.record().task().tid()
    }

    /// Whether somebody would run if this worker gave its slot away.
    pub(super) fn somebody_would_run(&self) -> bool {
        let run_queues = &self.shared.run_queues;
        let server = self.server();
        server.is_slot_wanted(run_queues)
            || run_queues.has_task_for(server.index(), &self.shared.idle_servers)
    }

    /// Sleeps in the gate until an event that `arm` asks the reactor for; see `reactor.rs`.
    ///
    /// `restarts`: the call goes on after a signal handler with `SA_RESTART`.
    fn park_for(
        &self,
        reactor: &Reactor,
        call: ManagedCall,
        restarts: bool,
        arm: impl FnOnce() -> bool,
    ) -> Parked {
        if !self.is_own_thread() {
            return Parked::Refused;
        }
        self.poll_events();
        let record = self.record();
        let queues = &self.shared.run_queues.servers[self.server().index()];
        if !queues.parks(self.somebody_would_run()) {
            return Parked::Refused;
        }
        let parker = record.io_parker();
        if parker.prepare_park() {
            // An event of an earlier wait.
            return Parked::Woken;
        }
        if !arm() {
            parker.leave();
            return Parked::Refused;
        }
        let parked = &self.shared.run_queues.parked;
        parked.fetch_add(1, SeqCst);
        // The count, then the looks of servers that sleep; see `reactor.rs`.
        fence(SeqCst);
        if self.shared.needs_poller() {
            reactor.ensure_polled();
        }
        self.server().counters.count_park();
        record.set_current_call(call.name, call.argument);
        record.set_waits_for_io(true);
        self.managed.interrupted.set(false);
        umcg_sys::set_interrupt_hook(Some(InterruptHook {
            call: interrupted,
            argument: ptr::from_ref(self).cast(),
            even_if_restarted: !restarts,
        }));
        self.sleep_in(parker);
        umcg_sys::set_interrupt_hook(None);
        record.set_waits_for_io(false);
        record.clear_current_call();
        parked.fetch_sub(1, SeqCst);
        if parker.leave() {
            if self.managed.interrupted.get() {
                Parked::Interrupted
            } else {
                Parked::Woken
            }
        } else {
            // The server has gone: this is an ordinary thread, and the next wait is refused.
            Parked::Woken
        }
    }

    /// The other end of a managed call: returns when this worker may go on.
    fn end_block(&self, handed_off: bool, how: Return) {
        let shared = &*self.shared;
        // A slot that is free may be taken only past an empty queue.
        let nobody_waits = || !self.server().is_slot_wanted(&shared.run_queues);
        let outcome = if handed_off {
            shared.provider.end_block(&nobody_waits)
        } else {
            shared.provider.try_checkpoint(&nobody_waits)
        };
        match outcome {
            Ok(true) => {}
            Ok(false) => self.queue_returned(how),
            Err(error) if error.is_gone() => self.detached.set(true),
            Err(error) => unreachable!("a registered worker could not end its block: {error}"),
        }
    }

    /// This worker has no slot and owns itself: queues up for one, and sleeps until it was picked.
    fn queue_returned(&self, how: Return) {
        self.disarm();
        let record = self.record();
        let server = self.server();
        let queues = &self.shared.run_queues.servers[server.index()];
        record.task().leave_judged();
        record.set_state(WorkerState::Resumed);
        // From here on whoever pops this worker owns it.
        let queued = match how {
            Return::Io => queues
                .returned
                .push_io(record.index(), record.take_precedence()),
            Return::File | Return::Woken | Return::Owner => {
                queues.returned.push_woken(record.index())
            }
        };
        if !queued {
            queues.count_resumed_into_inbox();
            server.inbox().push(&self.shared.arena, record.index());
        }
        // Passes a fence between the push and the looks at the server; see there.
        self.shared.notify_returned(server);
        if let Err(error) = self.wait_until_picked() {
            self.detach(&error);
        }
    }
}

impl ManagedWorker for WorkerThread {
    fn enter(&self, call: ManagedCall, sleep: Sleep, how: Return) {
        self.record().set_current_call(call.name, call.argument);
        if sleep == Sleep::Certain && !self.detached.get() {
            let handed_off = self.begin_block(how == Return::Owner);
            self.managed.handed_off.set(handed_off);
        }
    }

    fn passed(&self) {
        let record = self.record();
        // The child of a `vfork` has this memory, and is not this worker.
        if record.is_preempted() && self.is_own_thread() {
            record.clear_preempted();
            self.wake_up_in_slot();
            if self.checkpoint_in_task() {
                self.wake_sleeping_server();
            }
        }
    }

    fn woke_others(&self) {
        self.record().end_precedence();
    }

    fn exit(&self, how: Return) {
        self.wake_up_in_slot();
        if matches!(how, Return::Woken | Return::Owner) {
            self.record().give_precedence();
        }
        if !self.detached.get() {
            let handed_off = self.managed.handed_off.replace(false);
            if handed_off || how != Return::Owner {
                self.end_block(handed_off, how);
            }
        }
        self.record().clear_current_call();
    }

    fn park(&self, call: ManagedCall, fd: c_int, readiness: Readiness) -> Parked {
        match &self.shared.reactor {
            Some(reactor) if !self.detached.get() => self.park_for(reactor, call, true, || {
                let writable = readiness == Readiness::Writable;
                reactor.arm(fd, writable, self.record().index())
            }),
            _ => Parked::Refused,
        }
    }

    fn waker(&self) -> Waker {
        Waker {
            call: wake,
            argument: self.record.as_ptr().cast_const().cast(),
        }
    }

    fn park_until(&self, call: ManagedCall, deadline: u64) -> Parked {
        match &self.shared.reactor {
            Some(reactor) if !self.detached.get() => self.park_for(reactor, call, false, || {
                reactor.arm_deadline(deadline, self.record().index())
            }),
            _ => Parked::Refused,
        }
    }

    fn yield_now(&self) {
        WorkerHook::yield_now(self);
    }

    fn affinity(&self, mask: &mut [u8]) {
        umcg_sys::process_affinity(mask);
    }

    fn unmanage(&self) -> fn(Inherited) {
        |what| Inheritance::unmanage(what.cpus, what.policy)
    }

    fn before_child(&self) {
        self.managed.before_child.set(Some(Inheritance::suspend()));
    }

    fn after_child(&self) {
        if let Some(inheritance) = self.managed.before_child.take() {
            inheritance.resume();
        }
    }
}
