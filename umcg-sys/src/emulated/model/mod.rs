//! Model checks of the protocol: the code of the product on loom's atomics, in all interleavings of
//! a few threads. README.md beside this file says which check holds which rule.

mod adoption;
mod announced;
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

use loom::thread::{self, JoinHandle};

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

/// How many steps of a sentinel's verdict other threads can see. Without a spare: the run word, the
/// slot, the wake word, the wake. With one: the run word, the slot, the spare's run word, the wake.
const VERDICT_STEPS: u32 = 4;

/// Explores all interleavings of one small scenario, up to the number of preemptions in
/// LOOM_MAX_PREEMPTIONS.
fn check(scenario: impl Fn() + Sync + Send + 'static) {
    builder().check(scenario);
}

/// [`check`] with one preemption less, for scenarios of many steps.
fn check_large(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = builder();
    builder.preemption_bound = builder
        .preemption_bound
        .map(|bound| bound.saturating_sub(1));
    builder.check(scenario);
}

/// [`check`] for each step of a verdict before which the judge may be stopped permanently, and for
/// a judge that is not stopped.
fn check_with_stops(scenario: impl Fn(u32) + Sync + Send + Copy + 'static) {
    for stop in 0..=VERDICT_STEPS {
        check(move || scenario(stop));
    }
}

/// [`check_with_stops`] with one preemption less.
fn check_large_with_stops(scenario: impl Fn(u32) + Sync + Send + Copy + 'static) {
    for stop in 0..=VERDICT_STEPS {
        check_large(move || scenario(stop));
    }
}

fn builder() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    // The default of 1000 is too few: a server may pass its loop several times in one execution.
    builder.max_branches = 10_000;
    builder
}

/// A registry of its own, and its tasks. The thread id of a task is the index of its record: the
/// servers come first, from 1, then the workers.
struct Model {
    /// The product's.
    registry: Registry,
    /// The user memory of each task, by index; 0 is nobody.
    tasks: Vec<*mut UmcgTask>,
    /// What the application knows, by server: the workers that queued themselves for it, a bit for
    /// each.
    inboxes: Vec<AtomicU32>,
    /// How many workers have finished. Not one of loom's atomics, since it is no part of what is
    /// checked.
    done: Plain32,
}

// SAFETY: the tasks consist of atomics, and are freed with the model.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        for &task in &self.tasks {
            // SAFETY: from `Box::into_raw`, and nobody uses it any more.
            drop(unsafe { Box::from_raw(task) });
        }
    }
}

impl Model {
    /// Creates `servers` servers, all of them awake, and a worker for each of the servers in
    /// `workers`. The workers are RUNNABLE and OUT, and the scenario says who owns them.
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
        // SAFETY: the tasks live as long as the model.
        unsafe { &*self.tasks[index as usize] }
    }

    /// The task of the calling thread. A scenario has one thread for each task that makes calls.
    fn own(&self, index: Index) -> OwnTask<'_> {
        // SAFETY: the tasks live as long as the model, and one thread at a time makes the calls of
        // a task.
        unsafe { self.registry.own_task(index) }
    }

    /// The tid of a worker that a list handed out.
    fn tid_of(&self, worker: std::ptr::NonNull<UmcgTask>) -> u32 {
        // SAFETY: the tasks live as long as the model.
        unsafe { worker.as_ref() }.tid()
    }

    /// Runs `work` on a thread of its own.
    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Self) + 'static) -> JoinHandle<()> {
        let model = self.clone();
        thread::spawn(move || work(&model))
    }

    /// A thread that judges the holder of the slot once, if there is one.
    fn spawn_judge(self: &Arc<Self>, server: Index, judge: Judge) -> JoinHandle<()> {
        self.spawn(move |m| {
            m.look(server, judge);
        })
    }

    fn run(&self, index: Index) -> Run {
        self.registry.record(index).run()
    }

    fn slot(&self, server: Index) -> Slot {
        self.registry.record(server).slot()
    }

    /// For the start of a scenario: the worker runs in the slot of the server, by its next epoch.
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

    /// [`runs_in`](Self::runs_in) with `armed` as the worker's spare.
    fn runs_armed(&self, worker: Index, server: Index, armed: Index) -> Run {
        let run = self.runs_in(worker, server).naming(armed);
        self.registry.record(worker).run.store(run.0, SeqCst);
        self.registry.record(armed).host.store(server, SeqCst);
        self.task(worker).set_next_tid(armed);
        run
    }

    /// For the start of a scenario: the server sleeps or is about to. Its slot stays as it is.
    fn sleeps(&self, server: Index) {
        self.task(server).begin_drain();
    }

    /// [`sleeps`](Self::sleeps) for a server that permits take-overs.
    fn sleeps_with_take_over(&self, server: Index) {
        self.sleeps(server);
        self.registry
            .record(server)
            .take_over_allowed
            .store(1, SeqCst);
    }

    /// For the start of a scenario: the worker was judged in the slot of the server, and the slot
    /// is the server's again.
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

    /// Checks what a worker relies on when it may run: until it is judged, the slot of its host
    /// names it, by this dispatch. A slot names one worker, so no two workers hold it.
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

    /// Overwrites the memory of a task that has unregistered, as its owner may. loom fails if any
    /// other thread may still use it.
    fn scribble(&self, index: Index) {
        let task = self.tasks[index as usize];
        // SAFETY: the task has unregistered, so nobody uses it. If that is wrong, loom reports it.
        unsafe { &mut *task }.scribble();
    }

    /// The end of a worker that is in no slot. The application wakes its servers, so that they
    /// notice.
    fn end(&self) {
        self.done.fetch_add(1, Plain);
        self.wake_servers();
    }

    /// The end of a worker that holds a slot: it steps out as at the end of its thread.
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

    /// Wakes all servers, as the application does when a worker has ended.
    fn wake_servers(&self) {
        for index in 1..self.tasks.len() as u32 {
            if self.registry.record(index).status.load(SeqCst) == status::SERVER {
                self.registry.preempt(index).unwrap();
            }
        }
    }

    /// The life of a worker from its gate to its end.
    fn one_task(&self, worker: Index) {
        self.registry
            .sleep_in_gate(&self.own(worker))
            .expect("the server lives");
        self.holds(worker);
        self.finish(worker);
    }

    /// A worker returns from a block, stops at its checkpoint, and ends when it has a slot.
    fn one_checkpoint(&self, worker: Index) {
        self.registry
            .checkpoint(&self.own(worker))
            .expect("the server lives");
        self.holds(worker);
        self.finish(worker);
    }

    /// These workers return from their blocks at the same time, each on a thread of its own, and
    /// stop at their checkpoints. Server 1 serves them to their ends.
    fn all_come_back<const N: usize>(self: &Arc<Self>, workers: [Index; N]) {
        let threads = workers.map(|worker| self.spawn(move |m| m.one_checkpoint(worker)));
        self.serve_to_the_end(&[], N as u32, threads);
    }

    /// A worker leaves RUNNING. While a verdict on it stands it queues for a slot first.
    fn leave(&self, worker: Index) {
        while !self.task(worker).leave() {
            self.registry
                .checkpoint(&self.own(worker))
                .expect("the server lives");
        }
    }

    /// A worker that its owner gives to a server, by that server's inbox.
    fn enqueue(&self, worker: Index, server: Index) {
        self.inboxes[server as usize].fetch_or(1 << worker, SeqCst);
    }

    /// A worker waits until it is picked.
    fn wait(&self, worker: Index) {
        self.registry
            .wait_worker(&self.own(worker), None)
            .expect("the server lives");
    }

    /// A worker leaves RUNNING, queues itself for a server, and waits until it is picked.
    fn leave_and_wait(&self, worker: Index, server: Index) {
        self.leave(worker);
        self.enqueue(worker, server);
        self.wait(worker);
        self.holds(worker);
    }

    /// A worker between two tasks, with more to do: it takes a slot that it can have at once, or
    /// rests without one and waits until it is picked.
    fn between_tasks(&self, worker: Index, server: Index) {
        let holds = self
            .registry
            .try_checkpoint(&self.own(worker), &|| true)
            .expect("the server lives");
        if !holds {
            self.task(worker).leave_judged();
            self.enqueue(worker, server);
            self.wait(worker);
        }
        self.holds(worker);
    }

    fn all_done(&self, workers: u32) -> bool {
        self.done.load(Plain) >= workers
    }

    /// The mail's server loop, until `workers` workers have finished. `ready` are the workers that
    /// the server owns at the beginning. A worker that it owns must not be refused when it picks
    /// it, and in the end it must own none.
    fn serve(&self, server: Index, ready: &[Index], workers: u32) {
        self.serve_picking(server, ready, workers, |held| !held);
    }

    /// [`serve`](Self::serve), where `picks` says whether the server picks. Its argument is whether
    /// a worker holds the slot, which may have changed when the server calls `wait`.
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

    /// [`serve`](Self::serve) at server 1. Then waits until the other threads of the scenario have
    /// ended, and checks that no worker is left in a slot.
    fn serve_to_the_end<const N: usize>(
        &self,
        ready: &[Index],
        workers: u32,
        threads: [JoinHandle<()>; N],
    ) {
        self.serve(1, ready, workers);
        self.join(threads);
    }

    /// Waits until these threads have ended, and checks that no worker is left in a slot.
    fn join<const N: usize>(&self, threads: [JoinHandle<()>; N]) {
        for thread in threads {
            thread.join().unwrap();
        }
        self.all_out();
    }

    /// The loop of a server that polls its inbox instead of idling, until `workers` workers have
    /// finished. It sleeps while a worker is in its slot.
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
                .expect("a worker that this server owns");
            if self.task(server).next_tid() != 0 {
                ready.push_front(pick);
            }
        }
    }

    /// Checks, after all threads have ended, that no worker is left in a slot.
    fn all_out(&self) {
        for index in 1..self.tasks.len() as u32 {
            let slot = self.slot(index);
            assert!(
                !slot.is_held(),
                "the slot of {index} is {slot:?} in the end"
            );
        }
    }

    /// The first half of a server's loop: RUNNABLE, no pick, take, process.
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
            // The owner of a worker may move it to its own server.
            self.task(worker).set_server_tid(server);
            ready.push_back(worker);
        }
    }

    /// One look of a judge: it reads the run word, confirms, and judges. True: the verdict was
    /// given.
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

    /// One look of a judge that believes every worker to be asleep.
    fn look(&self, server: Index, judge: Judge) -> bool {
        self.look_and(server, judge, |_| true)
    }

    /// A sentinel that looks once, and is stopped permanently before its step number `steps`.
    fn sentinel(&self, server: Index, steps: u32) {
        stop::after(steps, || {
            self.look(server, Judge::Sentinel);
        });
    }

    /// One look of the monitor while work waits and the slot has not changed since its last look.
    fn repair(&self, server: Index) -> Repair {
        match self.registry.guard(server, status::SERVER) {
            Some(server) => self.registry.repair(&server, server.slot()),
            None => Repair::Gone,
        }
    }

    /// [`repair`](Self::repair), and a verdict on a holder for which no step is owed.
    fn repair_or_judge(&self, server: Index) {
        if let Repair::Runs(run) = self.repair(server) {
            self.registry
                .judge(self.slot(server).index(), run, Judge::Monitor);
        }
    }
}
