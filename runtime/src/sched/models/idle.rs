//! No wake-up is lost between those that queue tasks and servers that go to sleep.
//!
//! `IdleServers` is the product's. The queues, the pusher and the server's loop are lines of this
//! file, which stand for `run_queue/`, `wake_one` in `mod.rs`, and `server/run.rs`.

use loom::sync::{Arc, atomic::AtomicUsize};

use super::{check, start};
use crate::{
    sched::idle::IdleServers,
    sync::{
        AtomicU32,
        Ordering::{Release, SeqCst},
        fence,
    },
};

struct Model {
    idle_servers: IdleServers,
    /// The queues: how many tasks are in them.
    queued: AtomicUsize,
    /// For each server, whether its `wait` is to return. Set by the thread that wakes it.
    woken: Vec<AtomicU32>,
}

impl Model {
    fn new(servers: usize) -> Arc<Self> {
        Arc::new(Self {
            idle_servers: IdleServers::new(servers),
            queued: AtomicUsize::new(0),
            woken: (0..servers).map(|_| AtomicU32::new(0)).collect(),
        })
    }

    fn pending(&self) -> bool {
        self.queued.load(SeqCst) > 0
    }

    fn push(&self) {
        // The queue gives Release; the fence in `notify` does the rest.
        self.queued.fetch_add(1, Release);
        self.notify();
    }

    fn notify(&self) {
        fence(SeqCst);
        if let Some(server) = self.idle_servers.claim(|| self.pending()) {
            self.woken[server].store(1, SeqCst);
        }
    }

    fn pop(&self) -> bool {
        self.queued
            .fetch_update(SeqCst, SeqCst, |queued| queued.checked_sub(1))
            .is_ok()
    }

    /// The server's loop: takes tasks, until it finds none and sleeps.
    fn serve(&self, server: usize) {
        let mut owed = None;
        loop {
            if self.pop() {
                self.idle_servers.answer(owed.take());
                if self.pending() {
                    self.notify();
                }
                continue;
            }
            self.idle_servers.enter_idle(server, owed.take());
            if !self.pending() && self.woken[server].load(SeqCst) == 0 {
                return;
            }
            self.woken[server].store(0, SeqCst);
            owed = self.idle_servers.wake_up(server);
        }
    }

    /// What must hold when all threads are done: if a task is left, a server was woken for it.
    fn check_end(&self) {
        if self.pending() {
            assert!(
                self.woken.iter().any(|woken| woken.load(SeqCst) == 1),
                "a task is queued, every server sleeps, and none was woken"
            );
        }
    }
}

fn servers_and_pushers(servers: usize, pushers: usize) {
    check(move || {
        let model = Model::new(servers);
        let threads: Vec<_> = (0..servers)
            .map(|server| start(&model, move |model| model.serve(server)))
            .chain((1..pushers).map(|_| start(&model, Model::push)))
            .collect();
        model.push();
        for thread in threads {
            thread.join().unwrap();
        }
        model.check_end();
    });
}

#[test]
fn no_wake_up_is_lost_one_server_two_pushers() {
    servers_and_pushers(1, 2);
}

#[test]
fn no_wake_up_is_lost_two_servers_one_pusher() {
    servers_and_pushers(2, 1);
}
