//! One worker hands its slot to another directly, without its server; and sleeps until somebody
//! resumes it. This directory's README, section 7, has the argument.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Instant,
};

use super::{Worker, WorkerThread, seat, with_current};
use crate::sched::{Shared, server::Server};
use crate::wait::{Alarm, Parker, Resume, Sleeper};

impl WorkerThread {
    /// Sleeps without a slot until `parker`, which is PARKED, has its token; or returns because
    /// this is an ordinary thread from here on, with it PARKED.
    pub(in crate::sched) fn sleep_in(&self, parker: &Parker) {
        let record = self.record();
        record
            .parker
            .store(ptr::from_ref(parker).cast_mut(), Relaxed);
        while self.check() && !parker.is_over() {
            // What allocates, locks, or touches memory for the first time comes before `leave`.
            let runtime = Arc::clone(&self.shared) as Arc<dyn Resume>;
            let next = self.successor();
            if !record.task().leave() {
                // Judged: the checkpoint comes first (trace A8).
                self.choose_nobody(next);
                continue;
            }
            if let Some(next) = next {
                self.switch(seat::PARKED, next);
                continue;
            }
            self.disarm_late();
            record.set_seat(seat::PARKED);
            let sleeper = Sleeper {
                runtime,
                worker: record.index(),
            };
            if !parker.hold(sleeper) {
                // The wait is over. It has left, and comes back by way of its server.
                self.push_resumed(self.server());
            }
            record.counts().tell(&self.server().counters);
            let outcome = self.wait();
            record.set_seat(seat::BUSY);
            if let Err(error) = outcome {
                self.is_gone(&error);
            }
        }
        // Of one that lost its server; else the wait is over.
        parker.release();
    }

    /// [`sleep_in`](Self::sleep_in) until `deadline` at most. Returns at once if no timer can be
    /// made for it.
    pub(in crate::sched) fn sleep_until(&self, parker: &Parker, deadline: Instant) {
        let alarm = Alarm::arm(parker);
        if let Ok(timer) = self.shared.driver.arm(deadline, alarm.waker()) {
            self.sleep_in(parker);
            drop(timer);
        }
    }

    /// A worker that was resumed, to hand the slot to directly. `None`: there is none, or
    /// somebody waits whom only the server can pick. Else the caller owns it, and `next_tid`.
    pub(in crate::sched) fn resumed(&self) -> Option<&Worker> {
        let server = self.server();
        let waiting = &self.shared.run_queues.servers[server.index()];
        if !waiting.has_resumed()
            || server.server_must_pick(&self.shared.run_queues)
            || !self.record().choice.choose()
        {
            return None;
        }
        let next = self.pop(server, seat::RESUMED);
        if next.is_none() {
            self.record().choice.give_up();
        }
        next
    }

    /// After [`resumed`](Self::resumed) or [`successor`](Self::successor), and without a switch.
    pub(in crate::sched) fn choose_nobody(&self, next: Option<&Worker>) {
        self.record().choice.give_up();
        if let Some(next) = next {
            self.give_back(next);
            self.shared
                .look_at_inbox(&self.shared.servers[next.server()]);
        }
    }

    /// The newest in the inbox of `server`, if it sits there.
    fn pop(&self, server: &Server, seat: u8) -> Option<&Worker> {
        let links = &self.shared.arena;
        // May be gone by the next line, or sit elsewhere; then another one is popped.
        server
            .inbox()
            .peek()
            .filter(|&newest| links.get(newest).seat() == seat)?;
        let worker = links.get(server.inbox().pop(links)?);
        // Ours, so nobody changes it.
        if worker.seat() != seat {
            server.inbox().push(links, worker.index());
            // It may have drained the inbox in between, and sleep.
            let _ = self.shared.provider.wake(server.tid());
            return None;
        }
        match seat {
            seat::RESUMED => {
                self.shared.run_queues.servers[server.index()].count_resumed_out_of_inbox(1)
            }
            _ => server.count_idle_out_of_inbox(1),
        }
        Some(worker)
    }

    /// Who is to have the slot of this worker, which is about to sleep in the middle of a task:
    /// one that was resumed, or an idle one if there is a task for it. `None`: the server sees to
    /// it. Else the caller owns it, and `next_tid`. Disarms.
    fn successor(&self) -> Option<&Worker> {
        let server = self.server();
        let run_queues = &self.shared.run_queues;
        let waiting = &run_queues.servers[server.index()];
        let tasks = run_queues.has_task_for(server.index(), &self.shared.idle_servers);
        let resumed = waiting.has_resumed() && !(tasks && waiting.is_task_due());
        if resumed
            || !tasks
            || server.server_must_pick(run_queues)
            || !self.record().choice.choose()
        {
            let next = self.resumed();
            if next.is_some() {
                waiting.count_handoff();
            }
            self.disarm();
            return next;
        }
        let next = match self.shared.disarm(self.record()) {
            Some(armed) if armed.server() == server.index() => Some(armed),
            armed => {
                // It is another server's by now.
                if let Some(armed) = armed {
                    self.give_back(armed);
                }
                self.pop(server, seat::IDLE)
            }
        };
        if next.is_none() {
            self.record().choice.give_up();
        }
        next
    }

    /// The second half of handing the slot to `next`, which this worker owns: RUNNABLE already.
    /// False: an ordinary thread from here on.
    pub(in crate::sched) fn switch(&self, seat: u8, next: &Worker) -> bool {
        let record = self.record();
        // B10, as above.
        record.counts().tell(&self.server().counters);
        record.set_seat(seat);
        // Relaxed: `next` reads it after it was dispatched, which orders that.
        record.publication.ask();
        self.disarm_late();
        next.predecessor.store(record.index() + 1, Relaxed);
        record.task().set_next_tid(next.task().tid());
        // If it is judged before it gets there, `next` becomes an event of the server's, runs by
        // and by, and publishes this one all the same.
        let outcome = self.wait();
        record.set_seat(seat::BUSY);
        match outcome {
            Ok(()) => true,
            Err(error) if error.is_busy() => {
                // Not to be had, and nothing has happened: this one runs, and owns `next`.
                next.predecessor.store(0, Relaxed);
                record.publication.withdraw();
                record.task().clear_next_tid(next.task().tid());
                self.choose_nobody(Some(next));
                true
            }
            Err(error) => self.is_gone(&error),
        }
    }

    /// Publishes the worker that handed its slot to this one.
    pub(in crate::sched) fn publish(&self, worker: &Worker) {
        let Some(publishing) = worker.publication.begin() else {
            return;
        };
        if worker.seat() == seat::PARKED {
            let sleeper = Sleeper {
                runtime: Arc::clone(&self.shared) as Arc<dyn Resume>,
                worker: worker.index(),
            };
            // SAFETY: its owner sleeps in `park` on it until it is resumed, and one that lost
            // its server waits until the publication is over.
            let parker = unsafe { &*worker.parker.load(Relaxed) };
            if !parker.hold(sleeper) {
                // The wait is over, and the worker is ours.
                self.shared.resume(worker.index());
            }
        } else {
            let server = &self.shared.servers[worker.server()];
            server.count_idle_into_inbox();
            server.inbox().push(&self.shared.arena, worker.index());
            self.shared.look_at_inbox(server);
        }
        worker.publication.end(publishing);
    }

    /// Puts this worker into its server's inbox as one that was resumed.
    fn push_resumed(&self, server: &Server) {
        let record = self.record();
        record.set_seat(seat::RESUMED);
        self.shared.run_queues.servers[server.index()].count_resumed_into_inbox();
        server.inbox().push(&self.shared.arena, record.index());
    }
}

impl Shared {
    /// After a push on the inbox of `server`: makes sure that somebody looks at it.
    pub(in crate::sched) fn look_at_inbox(&self, server: &Server) {
        // The push, then the looks; pairs with the fence of the watcher, and with the server's
        // "RUNNABLE, then drain" (`begin_drain`).
        fence(SeqCst);
        self.provider.work_waiting(server.tid());
        // Whoever has the slot of that server looks at the inbox between two tasks, and the
        // watcher sees to it if that takes long. Everybody else wakes the server.
        let comes_past = self.watched
            && with_current(self, |caller| {
                self.provider.current(server.tid()) == Some(caller.record().task().tid())
            })
            .unwrap_or(false);
        if !comes_past {
            // ESRCH: it has left, and its workers are ordinary threads.
            let _ = self.provider.wake(server.tid());
        }
    }
}

impl Resume for Shared {
    fn resume(&self, index: u32) {
        let worker = self.arena.get(index);
        // It sleeps, and is the caller's: nobody moves it.
        let server = &self.servers[worker.server()];
        worker.set_seat(seat::RESUMED);
        self.run_queues.servers[server.index()].count_resumed_into_inbox();
        server.inbox().push(&self.arena, index);
        self.look_at_inbox(server);
    }
}
