//! The table of CPUs: which servers are pinned to one, and where its sentinel sleeps.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst},
};

use super::{
    super::{os, packed::Index},
    sleep_cell::SleepCell,
};
use crate::sync::Futex32;

/// How many servers a sentinel can watch. A bound, so that the sentinel walks a fixed array and
/// needs no lock. A process rarely has more than one server on a CPU; several runtimes, or tests
/// with more servers than CPUs, have a few. The size costs one load for each place and look: 4,000
/// blocks took the same time with 1, 64 and 1,024 places, within the noise.
pub(super) const SERVERS: usize = 64;

/// One CPU: the servers that are pinned to it, and their sentinel.
#[derive(Debug)]
pub(crate) struct Cpu {
    /// Where the sentinel sleeps while no slot here is held.
    pub(super) cell: SleepCell,
    /// The records of the servers that the sentinel watches; 0 is a free place. A server is added
    /// under the lock of `affinity`. It is removed under that lock, or without it when it loses its
    /// CPU. The sentinel reads without it.
    ///
    /// SeqCst: a place and the slot behind it are one side of the Dekker pattern of `cell`. A
    /// server is added before anything is dispatched to its slot, and a dispatcher fills the slot,
    /// passes the fence in `SleepCell::wake`, and looks whether the sentinel sleeps. The sentinel
    /// stores that it sleeps, passes the fence in `sleep_while`, and reads the places and their
    /// slots (`nothing_held`). So the dispatcher wakes it, or it sees the server and the held slot.
    ///
    /// A sentinel may still read a server that was just removed, and then the slot of a record that
    /// is another task's by now. That is harmless: records are never freed, and a verdict changes
    /// the run word that was read, epoch included, or nothing.
    pub(super) servers: [AtomicU32; SERVERS],
    /// How many servers there are in `servers`. `attach` in `sentinel.rs` and the end of `watch`
    /// there have the argument for its order with `running`.
    pub(super) users: AtomicU32,
    /// How many servers are pinned here, with a sentinel or without. Relaxed: it only helps to
    /// choose a CPU for the next server.
    pub(super) pinned: AtomicU32,
    /// 1 while a sentinel thread exists or is being made.
    pub(super) running: AtomicU32,
    /// A verdict of [`start_gate`] and a start generation. Written by the thread that starts a
    /// sentinel, under the lock of `affinity`. The Release of its store of the verdict pairs with
    /// the Acquire of the new sentinel.
    pub(super) start_gate: Futex32,
}

/// The start gate: a new sentinel waits until it is SCHED_IDLE, or this was refused.
///
/// The low two bits are the verdict on SCHED_IDLE, the bits above a start generation. A thread of
/// an earlier start that was refused, and has not looked yet, cannot be released by a later start.
pub(super) mod start_gate {
    /// The policy is not set yet: wait.
    pub(crate) const CLOSED: u32 = 0;
    /// The thread is SCHED_IDLE: begin to watch.
    pub(crate) const OPEN: u32 = 1;
    /// SCHED_IDLE was refused: end the thread.
    pub(crate) const REFUSED: u32 = 2;
    /// Added for each start.
    pub(crate) const GENERATION: u32 = 4;
}

/// By CPU number.
static CPUS: OnceLock<Box<[Cpu]>> = OnceLock::new();

/// The CPU with this number, which is in the affinity mask of the process or is configured.
pub(crate) fn cpu(number: usize) -> &'static Cpu {
    let cpus = CPUS.get_or_init(|| {
        // SAFETY: no pointers.
        let configured = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }.max(1) as usize;
        let highest = os::original_mask().iter().last().unwrap_or(0);
        (0..configured.max(highest + 1))
            .map(|_| Cpu::new())
            .collect()
    });
    &cpus[number]
}

impl Cpu {
    pub(super) fn new() -> Self {
        Self {
            cell: SleepCell::new(Futex32::new(0)),
            servers: [const { AtomicU32::new(0) }; SERVERS],
            users: AtomicU32::new(0),
            pinned: AtomicU32::new(0),
            running: AtomicU32::new(0),
            start_gate: Futex32::new(start_gate::REFUSED),
        }
    }

    /// How many servers the sentinel watches right now.
    pub(super) fn users(&self) -> u32 {
        self.users.load(SeqCst)
    }

    /// How many servers are pinned here right now.
    pub(crate) fn pinned(&self) -> u32 {
        self.pinned.load(Relaxed)
    }

    /// Counts one more server as pinned here.
    pub(crate) fn enter(&self) {
        self.pinned.fetch_add(1, Relaxed);
    }

    /// Counts one server less.
    pub(crate) fn exit(&self) {
        self.pinned.fetch_sub(1, Relaxed);
    }

    /// Takes a server from the sentinel. With the last one the sentinel ends.
    pub(crate) fn detach(&self, server: Index) {
        for place in &self.servers {
            // SeqCst here pairs with the look of the sentinel; see `servers`. The caller is the
            // only one that removes this server, so no other thread changes its place meanwhile.
            if place.load(SeqCst) == server {
                place.store(0, SeqCst);
                // SeqCst: `users`, then, after the fence in `wake`, the look whether the sentinel
                // sleeps. Pairs with the sentinel, which stores that it sleeps, then reads `users`.
                self.users.fetch_sub(1, SeqCst);
                break;
            }
        }
        self.cell.wake();
    }

    /// Wakes the sentinel if it sleeps: a slot here was given to a worker. The caller has filled
    /// the slot before; see `servers`.
    pub(crate) fn wake(&self) {
        self.cell.wake();
    }
}
