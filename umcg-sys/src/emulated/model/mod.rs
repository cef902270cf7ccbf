//! Model checks of the protocol: the code that runs in the product, on loom's atomics, in all
//! interleavings of a few threads. README.md beside this says which rule each check holds.

mod adoption;
mod arming;
mod lists;
mod sleep_cell;
mod slots;
mod stale_steps;
mod take_over;
mod unregister;
mod verdicts;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32 as Plain32, Ordering::SeqCst as Plain},
    },
};

use loom::thread;

use super::{
    helpers::cells::HelperCells,
    memory::Memory,
    packed::{Index, Phase, Run, Slot, Tag},
    record::status,
    registry::{OwnTask, Registry},
    repair::Repair,
    verdict::Judge,
};
use crate::{
    List, UmcgTask, state,
    sync::{AtomicU32, SeqCst, stop},
};

/// All interleavings of one small scenario, up to the number of preemptions in
/// LOOM_MAX_PREEMPTIONS.
fn check(scenario: impl Fn() + Sync + Send + 'static) {
    builder().check(scenario);
}

/// For scenarios of many steps: those with one preemption less.
fn check_large(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = builder();
    builder.preemption_bound = builder
        .preemption_bound
        .map(|bound| bound.saturating_sub(1));
    builder.check(scenario);
}

/// The same with a judge that is stopped for ever before its first step, after it, and so on.
fn check_with_stops(steps: u32, scenario: impl Fn(u32) + Sync + Send + Copy + 'static) {
    for stop in 0..=steps {
        check(move || scenario(stop));
    }
}

/// Both.
fn check_large_with_stops(steps: u32, scenario: impl Fn(u32) + Sync + Send + Copy + 'static) {
    for stop in 0..=steps {
        check_large(move || scenario(stop));
    }
}

fn builder() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    // A server may come round its loop several times in one execution.
    builder.max_branches = 10_000;
    builder
}

/// A world of tasks whose thread ids are their indices: servers first, from 1, then workers.
struct Model {
    registry: Registry,
    /// By index; 0 is nobody.
    tasks: Vec<*mut UmcgTask>,
    /// By server: workers that queued themselves for it, a bit each. The application's.
    inboxes: Vec<AtomicU32>,
    /// Workers that have finished. Not a loom atomic: it is no part of what is checked.
    done: Plain32,
}

// SAFETY: the tasks are atomics, and are freed with the model.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        for &task in &self.tasks {
            // SAFETY: from `Box::into_raw`, used by nobody any more.
            drop(unsafe { Box::from_raw(task) });
        }
    }
}

impl Model {
    /// `servers` servers, all awake, and workers of the given servers, all asleep in the gate
    /// and owned by whoever the scenario says.
    fn new(servers: u32, workers: &[u32]) -> Arc<Self> {
        let registry = Registry::new(
            Memory::new(servers as usize + workers.len()),
            HelperCells::new(),
        );
        let mut tasks = vec![Box::into_raw(Box::new(UmcgTask::new()))];
        for tid in 1..=servers {
            let task = Box::into_raw(Box::new(UmcgTask::of_model(tid, tid)));
            assert_eq!(registry.open(task, tid, status::SERVER), Some(tid));
            tasks.push(task);
        }
        for (i, &server) in workers.iter().enumerate() {
            let tid = servers + 1 + i as u32;
            let task = Box::into_raw(Box::new(UmcgTask::of_model(tid, server)));
            assert_eq!(registry.open(task, tid, status::WORKER), Some(tid));
            registry.record(tid).host.store(server, SeqCst);
            tasks.push(task);
        }
        let model = Self {
            registry,
            tasks,
            inboxes: (0..=servers).map(|_| AtomicU32::new(0)).collect(),
            done: Plain32::new(0),
        };
        for tid in 1..model.tasks.len() as u32 {
            let first = if tid <= servers {
                state::RUNNING
            } else {
                state::RUNNABLE
            };
            model.task(tid).transition(state::NONE, first).unwrap();
        }
        Arc::new(model)
    }

    fn task(&self, index: Index) -> &UmcgTask {
        // SAFETY: alive as long as the model.
        unsafe { &*self.tasks[index as usize] }
    }

    /// The task of the calling thread: a scenario has one thread for each task that makes calls.
    fn own(&self, index: Index) -> OwnTask<'_> {
        // SAFETY: the task lives as long as the model, and one thread at a time makes its calls.
        unsafe { self.registry.own_task(index) }
    }

    /// The tid of a worker that a list handed out.
    fn tid_of(&self, worker: std::ptr::NonNull<UmcgTask>) -> u32 {
        // SAFETY: tasks live as long as the model.
        unsafe { worker.as_ref() }.tid()
    }

    fn run(&self, index: Index) -> Run {
        self.registry.record(index).run()
    }

    fn slot(&self, server: Index) -> Slot {
        self.registry.record(server).slot()
    }

    /// Setting up: the worker runs in the slot of the server, by its next epoch.
    fn runs_in(&self, worker: Index, server: Index) -> Run {
        let record = self.registry.record(worker);
        let run = Run::new(record.run().epoch() + 1, 0, Phase::Acked);
        record.run.store(run.0, SeqCst);
        record.host.store(server, SeqCst);
        let slot = Slot::held(worker, run.epoch());
        self.registry.record(server).slot.store(slot.0, SeqCst);
        self.task(worker)
            .transition(state::RUNNABLE, state::RUNNING)
            .unwrap();
        run
    }

    /// Setting up: the same, with `armed` for its next.
    fn runs_armed(&self, worker: Index, server: Index, armed: Index) -> Run {
        let run = self.runs_in(worker, server).naming(armed);
        self.registry.record(worker).run.store(run.0, SeqCst);
        self.registry.record(armed).host.store(server, SeqCst);
        self.task(worker).set_next_tid(armed);
        run
    }

    /// Setting up: the server sleeps, or is about to, and its slot stays as it is.
    fn sleeps(&self, server: Index) {
        self.task(server).begin_drain();
    }

    /// Setting up: the server sleeps so, and permits take-overs from now on.
    fn sleeps_with_take_over(&self, server: Index) {
        self.sleeps(server);
        self.registry
            .record(server)
            .take_over_allowed
            .store(1, SeqCst);
    }

    /// Setting up: the worker was judged in the slot of the server, which is its own again.
    fn judged_in(&self, worker: Index, server: Index) -> Run {
        let run = self.runs_in(worker, server).to(Phase::Judged);
        self.registry.record(worker).run.store(run.0, SeqCst);
        self.registry
            .record(server)
            .slot
            .store(Slot::SERVER.0, SeqCst);
        self.task(worker)
            .transition(state::RUNNING, state::BLOCKED)
            .unwrap();
        self.registry.record(server).remember_judged(worker);
        run
    }

    /// What a worker that was just told RUNNING may rely on: as long as nobody has judged it, a
    /// slot names it, by this dispatch. Slots name one worker each, so no two of them hold one.
    fn holds(&self, worker: Index) {
        let run = self.run(worker);
        if run.phase() != Phase::Acked {
            assert!(run.is_judged() || run.phase() == Phase::Adopting, "{run:?}");
            return;
        }
        let host = self.registry.record(worker).host.load(SeqCst);
        let slot = self.slot(host);
        if slot != Slot::held(worker, run.epoch()) {
            let now = self.run(worker);
            assert!(now != run, "{now:?} of {worker} while the slot is {slot:?}");
        }
    }

    /// The memory of a task that has left is its owner's: loom fails if anybody may use it.
    fn scribble(&self, index: Index) {
        let task = self.tasks[index as usize];
        // SAFETY: the task has unregistered, so nobody uses it; if that is wrong, loom says so.
        unsafe { &mut *task }.scribble();
    }

    /// The end of a worker that has left; the application tells its servers.
    fn end(&self) {
        self.done.fetch_add(1, Plain);
        self.wake_servers();
    }

    /// The end of a worker: out of its slot as it leaves at the end of its thread.
    fn finish(&self, worker: Index) {
        self.done.fetch_add(1, Plain);
        self.registry
            .take_out(worker)
            .expect("a worker that ends runs");
        let run = self.run(worker);
        assert_eq!(
            run.phase(),
            Phase::Out,
            "{worker} was dispatched as it ended"
        );
        self.wake_servers();
    }

    /// The application tells its servers of an end.
    fn wake_servers(&self) {
        for index in 1..self.tasks.len() as u32 {
            if self.registry.record(index).status.load(SeqCst) == status::SERVER {
                self.registry.preempt(index).unwrap();
            }
        }
    }

    /// A worker from its gate to its end.
    fn one_task(&self, worker: Index) {
        self.registry
            .sleep_in_gate(&self.own(worker))
            .expect("the server lives");
        self.holds(worker);
        self.finish(worker);
    }

    /// A worker that returns from the kernel, stops at its checkpoint, and ends.
    fn one_checkpoint(&self, worker: Index) {
        self.registry
            .checkpoint(&self.own(worker))
            .expect("the server lives");
        self.holds(worker);
        self.finish(worker);
    }

    /// These workers return from the kernel at once, each on a thread of its own, and stop at
    /// their checkpoints; server 1 serves them to their ends.
    fn all_come_back(self: &Arc<Self>, workers: &[Index]) {
        let threads: Vec<_> = workers
            .iter()
            .map(|&worker| {
                let m = self.clone();
                thread::spawn(move || m.one_checkpoint(worker))
            })
            .collect();
        self.serve(1, &[], workers.len() as u32);
        for thread in threads {
            thread.join().unwrap();
        }
        self.all_out();
    }

    /// A worker leaves RUNNING, queues itself for that server, and waits until it is picked.
    fn hand_over(&self, worker: Index, server: Index) {
        while !self.task(worker).leave() {
            self.registry
                .checkpoint(&self.own(worker))
                .expect("the server lives");
        }
        self.inboxes[server as usize].fetch_or(1 << worker, SeqCst);
        self.registry
            .wait_worker(&self.own(worker), None)
            .expect("the server lives");
        self.holds(worker);
    }

    /// A worker between two tasks, with more to do: takes a slot that it can have at once, or
    /// goes to rest and waits until it is picked.
    fn pass(&self, worker: Index, server: Index) {
        let holds = self
            .registry
            .try_checkpoint(&self.own(worker), &|| true)
            .expect("the server lives");
        if !holds {
            self.task(worker).leave_judged();
            self.inboxes[server as usize].fetch_or(1 << worker, SeqCst);
            self.registry
                .wait_worker(&self.own(worker), None)
                .expect("the server lives");
        }
        self.holds(worker);
    }

    fn all_done(&self, workers: u32) -> bool {
        self.done.load(Plain) >= workers
    }

    /// The mail's server loop until that many workers have finished. `ready`: workers that it
    /// owns. Each dispatch that it owns the token for must succeed, and none may be left over.
    fn serve(&self, server: Index, ready: &[Index], workers: u32) {
        self.serve_picking(server, ready, workers, |held| !held);
    }

    /// The same. `picks` says whether the server picks although a worker is (or is not) in its
    /// slot: a server that looks before its `wait` may be wrong by then.
    fn serve_picking(
        &self,
        server: Index,
        ready: &[Index],
        workers: u32,
        picks: impl Fn(bool) -> bool,
    ) {
        let task = self.task(server);
        let mut ready: VecDeque<Index> = ready.iter().copied().collect();
        loop {
            self.drain(server, &mut ready);
            if self.all_done(workers) {
                assert!(ready.is_empty(), "{ready:?} have been queued twice");
                return;
            }
            let held = self.slot(server).tag() == Tag::Held;
            let pick = ready.front().copied().filter(|_| picks(held));
            task.set_next_tid(pick.unwrap_or(0));
            match self.registry.wait_server(&self.own(server), None) {
                Ok(()) => {
                    assert_eq!(task.state(), state::RUNNING);
                    if pick.is_some() && task.next_tid() == 0 {
                        ready.pop_front();
                    }
                }
                Err((errno, why)) => {
                    assert_eq!(errno, libc::EBUSY, "{why}");
                    assert!(why.contains("another worker"), "{pick:?}: {why}");
                }
            }
        }
    }

    /// The loop of a server that polls its inbox instead of sleeping, until that many workers
    /// have finished; it sleeps while a worker is in its slot.
    fn serve_busily(&self, server: Index, workers: u32) {
        let mut ready = VecDeque::new();
        while !self.all_done(workers) {
            self.drain(server, &mut ready);
            let Some(pick) = ready.pop_front() else {
                let _ = self
                    .task(server)
                    .transition(state::RUNNABLE, state::RUNNING);
                thread::yield_now();
                continue;
            };
            self.task(server).set_next_tid(pick);
            self.registry
                .wait_server(&self.own(server), None)
                .expect("a worker that is ours");
            if self.task(server).next_tid() != 0 {
                ready.push_front(pick);
            }
        }
    }

    /// After all threads have ended: no worker is left in a slot.
    fn all_out(&self) {
        for index in 1..self.tasks.len() as u32 {
            let slot = self.slot(index);
            assert!(
                !slot.is_held(),
                "the slot of {index} is {slot:?} in the end"
            );
        }
    }

    /// The first half of the server's loop: RUNNABLE, next_tid 0, take, process.
    fn drain(&self, server: Index, ready: &mut VecDeque<Index>) {
        let task = self.task(server);
        task.begin_drain();
        task.set_next_tid(0);
        let runnable = task.take(List::Runnable);
        let blocked = task.take(List::Blocked);
        blocked.for_each(drop);
        for worker in runnable {
            ready.push_back(self.tid_of(worker));
        }
        let inbox = self.inboxes[server as usize].swap(0, SeqCst);
        for worker in (1..self.tasks.len() as u32).filter(|tid| inbox & (1 << tid) != 0) {
            // Whoever owns a worker may take it over from another server.
            self.task(worker).set_server_tid(server);
            ready.push_back(worker);
        }
    }

    /// One look of a judge: read, confirm, judge. True: a verdict was given.
    fn look_and(&self, server: Index, judge: Judge, confirm: impl FnOnce(Run) -> bool) -> bool {
        let slot = self.slot(server);
        if !slot.is_held() {
            return false;
        }
        let run = self.run(slot.index());
        run.phase() == Phase::Acked
            && run.epoch() == slot.epoch()
            && confirm(run)
            && self.registry.judge(slot.index(), run, judge)
    }

    /// One look of a judge that takes everybody for asleep.
    fn look(&self, server: Index, judge: Judge) -> bool {
        self.look_and(server, judge, |_| true)
    }

    /// A sentinel that looks once and is stopped for ever after that many steps.
    fn sentinel(&self, server: Index, steps: u32) {
        stop::after(steps, || {
            self.look(server, Judge::Sentinel);
        });
    }

    /// The monitor's tick, at a time when work waits and the slot has not changed for long.
    fn tick(&self, server: Index) -> Repair {
        match self.registry.guard(server, status::SERVER) {
            Some(server) => self.registry.repair(&server, server.slot()),
            None => Repair::Gone,
        }
    }
}
