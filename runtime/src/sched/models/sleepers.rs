//! Work that is queued while a worker goes to sleep in its slot is not left behind: the worker sees
//! it, or its slot is retaken.

use loom::sync::{Arc, atomic::AtomicU32};

use super::{check, start};
use crate::{
    sched::sleepers::Sleepers,
    sync::{Ordering::SeqCst, fence},
};

/// What the threads of a scene share: the sleepers, the number of queued tasks, and how often the
/// slot was retaken.
type Scene = (Sleepers, AtomicU32, AtomicU32);

fn scene() -> Arc<Scene> {
    Arc::new((Sleepers::new(1), AtomicU32::new(0), AtomicU32::new(0)))
}

/// `notify` in `mod.rs`: queues a task, and retakes the slot of a worker that sleeps in it.
fn push((sleepers, queued, retaken): &Scene) {
    queued.fetch_add(1, SeqCst);
    fence(SeqCst);
    if sleepers.any() && sleepers.retake(0).is_some() {
        retaken.fetch_add(1, SeqCst);
    }
}

/// `begin_block` in `worker/managed.rs`. Whether the worker sleeps.
fn block((sleepers, queued, _): &Scene, tid: u32) -> bool {
    sleepers.enter(0, tid);
    let sleeps = queued.load(SeqCst) == 0;
    if !sleeps {
        sleepers.leave(0, tid);
    }
    sleeps
}

#[test]
fn work_is_not_left_behind_a_worker_that_falls_asleep() {
    check(|| {
        let shared = scene();
        let pushers: Vec<_> = (0..2).map(|_| start(&shared, push)).collect();
        let sleeps = block(&shared, 7);
        for pusher in pushers {
            pusher.join().unwrap();
        }
        let retaken = shared.2.load(SeqCst);
        assert!(
            !sleeps || retaken == 1,
            "the worker sleeps in its slot, and two tasks are queued"
        );
        assert!(retaken <= 1, "one worker was judged twice");
        assert!(!shared.0.any(), "the count stays too high");
    });
}

/// The worker that slept in the slot first has lost it, and another one falls asleep there, while
/// the first one wakes up.
#[test]
fn the_next_sleeper_is_retaken_although_the_last_one_leaves_late() {
    check(|| {
        let shared = scene();
        assert!(block(&shared, 7));
        let first = start(&shared, |(sleepers, ..)| sleepers.leave(0, 7));
        let pusher = start(&shared, push);
        let sleeps = block(&shared, 8);
        first.join().unwrap();
        pusher.join().unwrap();
        let (sleepers, _, retaken) = &*shared;
        // The pusher may have found the tid of the first one, before the second one fell asleep.
        assert!(!sleeps || retaken.load(SeqCst) == 1);
        assert!(!sleepers.any(), "the count stays too high");
    });
}
