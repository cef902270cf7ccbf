//! What servers know of queued tasks while they sleep behind a worker that computes, and which
//! server gives its slot on for them.
//!
//! The README of the directory above, section 5, describes the slices; `policy.rs` decides.

use std::{
    fmt,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use crossbeam_utils::CachePadded;
use umcg_sys::Provider;

use crate::sched::policy::{self, MAX_LEFTOVERS};

/// Shared by the servers of a runtime, and with the provider's watcher, which calls `overdue`.
pub(in crate::sched) struct Slices {
    /// When a server last gave its slot on for queued tasks, CLOCK_MONOTONIC ns; 0: never.
    gave_way: CachePadded<AtomicU64>,
    /// One for each server: it sleeps behind a worker and looks again when the time slice is over.
    /// Written by the server before each `wait`.
    looks_again: Box<[CachePadded<AtomicBool>]>,
}

impl Slices {
    pub(in crate::sched) fn new(servers: usize) -> Self {
        Self {
            gave_way: CachePadded::new(AtomicU64::new(0)),
            looks_again: (0..servers)
                .map(|_| CachePadded::new(AtomicBool::new(false)))
                .collect(),
        }
    }

    /// For the server, before it sleeps: whether it wakes up by itself when the slice is over.
    pub(super) fn set_looks_again(&self, server: usize, looks_again: bool) {
        // Relaxed, here and below: the watcher asks at each of its looks for as long as the worker
        // computes and work waits, so it finds the last value at the next one.
        self.looks_again[server].store(looks_again, Relaxed);
    }

    /// For the watcher, which has seen work wait behind a worker that computes: whether the server
    /// has to be woken, so that it begins to count the slice.
    pub(super) fn must_be_woken(&self, server: usize) -> bool {
        !self.looks_again[server].load(Relaxed)
    }

    /// Whether the calling server gives its slot on `now` for queued tasks, of which there are
    /// `queued`. If another one has just done so for them: when to ask again.
    pub(super) fn give_way(&self, now: u64, queued: usize) -> Result<(), u64> {
        let last = self.gave_way.load(SeqCst);
        let next = policy::next_to_give_way(last, queued, self.looks_again.len());
        if now < next {
            return Err(next);
        }
        // SeqCst: the exchange alone decides between two servers.
        self.gave_way
            .compare_exchange(last, now, SeqCst, SeqCst)
            .map(drop)
            .map_err(|by_another| {
                policy::next_to_give_way(by_another, queued, self.looks_again.len())
            })
    }
}

impl fmt::Debug for Slices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slices").finish_non_exhaustive()
    }
}

/// The workers that one server has preempted and that may still run without a slot.
///
/// A server allocates nothing, so this is an array. It is looked through only when it is full: the
/// provider reads `/proc` for each leftover.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// Their tids, in the first `len` places.
    tids: [u32; MAX_LEFTOVERS],
    len: usize,
}

impl Leftovers {
    pub(super) const fn new() -> Self {
        Self {
            tids: [0; MAX_LEFTOVERS],
            len: 0,
        }
    }

    /// Notes a worker that is about to be preempted. One that does not fit is not noted: it was
    /// preempted for a worker that waits, which brings in no further thread.
    pub(super) fn add(&mut self, tid: u32) {
        if self.len < MAX_LEFTOVERS && !self.tids[..self.len].contains(&tid) {
            self.tids[self.len] = tid;
            self.len += 1;
        }
    }

    /// Whether the server has its limit of leftovers, and brings in no further worker for queued
    /// tasks.
    pub(super) fn at_limit(&mut self, provider: &dyn Provider) -> bool {
        if self.len == MAX_LEFTOVERS {
            self.retain(|tid| provider.is_leftover(tid));
        }
        self.len == MAX_LEFTOVERS
    }

    fn retain(&mut self, mut is_leftover: impl FnMut(u32) -> bool) {
        let mut kept = 0;
        for place in 0..self.len {
            let tid = self.tids[place];
            if is_leftover(tid) {
                self.tids[kept] = tid;
                kept += 1;
            }
        }
        self.len = kept;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn one_server_gives_way_for_one_task() {
        let slices = Slices::new(4);
        assert_eq!(slices.give_way(100 * MS, 1), Ok(()));
        assert_eq!(slices.give_way(101 * MS, 1), Err(105 * MS));
        assert_eq!(slices.give_way(105 * MS, 1), Ok(()));
        // Four servers give way for many tasks, one after the other.
        assert_eq!(slices.give_way(106 * MS, 9), Err(106 * MS + MS / 4));
        assert_eq!(slices.give_way(107 * MS, 9), Ok(()));
    }

    #[test]
    fn leftovers_that_have_come_back_make_room() {
        let mut leftovers = Leftovers::new();
        for tid in 1..=MAX_LEFTOVERS as u32 + 1 {
            leftovers.add(tid);
            leftovers.add(tid);
        }
        assert_eq!(leftovers.len, MAX_LEFTOVERS);
        leftovers.retain(|tid| tid % 2 == 0);
        assert_eq!(leftovers.len, MAX_LEFTOVERS / 2);
        assert!(
            leftovers.tids[..leftovers.len]
                .iter()
                .all(|tid| tid % 2 == 0)
        );
    }
}
