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

/// Servers that one CPU can have.
pub(super) const SERVERS: usize = 64;

/// One CPU and its sentinel.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub(super) cell: SleepCell,
    /// Records of the servers pinned here, 0 = free place. Places are taken and freed by
    /// registering servers under the table's lock, read by the sentinel without.
    pub(super) servers: [AtomicU32; SERVERS],
    /// Servers in `servers`.
    pub(super) users: AtomicU32,
    /// Servers pinned here, with or without a sentinel to watch them. Relaxed: chosen by under
    /// the table's lock.
    pub(super) pinned: AtomicU32,
    /// 1 while a sentinel thread exists, or is being made.
    pub(super) running: AtomicU32,
    /// One of [`start_gate`]. Written by who starts a sentinel, under the table's lock.
    pub(super) start_gate: Futex32,
}

/// A new sentinel waits for its policy on a word that says one of these, and in the bits above
/// which start it is of: a thread that is sent away may not have looked by the time of the next.
pub(super) mod start_gate {
    /// Not yet SCHED_IDLE.
    pub(crate) const CLOSED: u32 = 0;
    /// Watch.
    pub(crate) const OPEN: u32 = 1;
    /// SCHED_IDLE was refused: end.
    pub(crate) const REFUSED: u32 = 2;
    /// One start more.
    pub(crate) const GENERATION: u32 = 4;
}

static CPUS: OnceLock<Box<[Cpu]>> = OnceLock::new();

/// The record of a CPU.
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

    /// Servers that are watched here right now.
    pub(super) fn users(&self) -> u32 {
        self.users.load(SeqCst)
    }

    /// Servers that are pinned here right now.
    pub(crate) fn pinned(&self) -> u32 {
        self.pinned.load(Relaxed)
    }

    /// One more server is pinned here.
    pub(crate) fn enter(&self) {
        self.pinned.fetch_add(1, Relaxed);
    }

    /// One less.
    pub(crate) fn exit(&self) {
        self.pinned.fetch_sub(1, Relaxed);
    }

    /// Takes a server off this CPU. The last one ends the sentinel.
    pub(crate) fn detach(&self, server: Index) {
        for place in &self.servers {
            if place.load(SeqCst) == server {
                place.store(0, SeqCst);
                self.users.fetch_sub(1, SeqCst);
                break;
            }
        }
        self.cell.wake();
    }

    /// A slot here was given to a worker.
    pub(crate) fn wake(&self) {
        self.cell.wake();
    }
}
