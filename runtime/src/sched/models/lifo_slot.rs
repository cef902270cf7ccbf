//! No task is lost in a LIFO slot, and none comes out twice.

use loom::sync::{Arc, atomic::AtomicBool};

use super::{check, start};
use crate::{
    sched::{idle::IdleServers, run_queue::lifo_slot::LifoSlot},
    sync::{Ordering::SeqCst, fence},
};

/// A worker that was blocked, and runs unmanaged, puts a task into the slot of its server while
/// the server goes to sleep: the server sees the task in its last look, or is woken.
///
/// The pusher and the server are lines of this model, which stand for `enqueue` and `notify` in
/// `mod.rs` and for `server/run.rs`.
#[test]
fn a_task_is_not_stranded_when_its_server_falls_asleep() {
    check(|| {
        let shared = Arc::new((LifoSlot::new(), IdleServers::new(1), AtomicBool::new(false)));
        let worker = start(&shared, |(slot, idle_servers, woken)| {
            assert!(slot.put(Box::new(7)).is_none());
            fence(SeqCst);
            if !idle_servers.is_awake(0) && idle_servers.claim(|| true).is_some() {
                woken.store(true, SeqCst);
            }
        });
        let (slot, idle_servers, woken) = &*shared;
        let mut taken = slot.take();
        if taken.is_none() {
            idle_servers.enter_idle(0, None);
            if !slot.is_empty() {
                idle_servers.answer(idle_servers.wake_up(0));
                taken = slot.take();
                assert!(taken.is_some(), "nobody else takes it");
            }
        }
        worker.join().unwrap();
        assert!(
            taken.is_some() || woken.load(SeqCst),
            "the task is in the slot, and its server sleeps"
        );
    });
}

/// Two workers of one server, one of them unmanaged, put a task in each, and the server's next
/// worker takes: each task comes out once.
#[test]
fn each_task_comes_out_once() {
    check(|| {
        let slot = Arc::new(LifoSlot::new());
        let threads: Vec<_> = (1..3)
            .map(|task| {
                start(&slot, move |slot| {
                    slot.put(Box::new(task)).map_or(0, |task| *task)
                })
            })
            .collect();
        let mut sum = slot.take().map_or(0, |task| *task);
        for thread in threads {
            sum += thread.join().unwrap();
        }
        sum += slot.take().map_or(0, |task| *task);
        assert_eq!(sum, 3);
    });
}
