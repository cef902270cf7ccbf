//! A helper sleeps only while there is nothing to watch, and is woken when there is.

use loom::{sync::atomic::AtomicU32, thread};

use super::{Judge, Model, check};
use crate::{
    emulated::helpers::sleep_cell::SleepCell,
    sync::{Futex32, Relaxed, SeqCst},
};

/// Work arrives twice, and a helper that sleeps whenever it finds none sees both.
#[test]
fn sleep_cell_no_wake_up_of_a_helper_is_lost() {
    check(|| {
        let shared = loom::sync::Arc::new((SleepCell::new(Futex32::new(0)), AtomicU32::new(0)));
        let waker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (cell, work) = &*shared;
                for _ in 0..2 {
                    work.fetch_add(1, Relaxed);
                    cell.wake();
                }
            })
        };
        let (cell, work) = &*shared;
        while work.load(SeqCst) < 2 {
            cell.sleep_while(|| work.load(Relaxed) < 2);
        }
        waker.join().unwrap();
    });
}

/// A server dispatches while the sentinel goes to sleep, because it saw no slot held.
#[test]
fn sleep_cell_a_sentinel_sees_a_dispatch() {
    check(|| {
        let m = Model::new(1, &[1]);
        let sentinel = m.spawn(|m| {
            m.registry
                .helpers()
                .sentinel
                .sleep_while(|| !m.slot(1).is_held());
            assert!(m.slot(1).is_held());
            m.look(1, Judge::Sentinel);
        });
        m.task(1).begin_drain();
        m.task(1).set_next_tid(2);
        let worker = m.spawn(move |m| {
            m.registry.sleep_in_gate(&m.own(2)).unwrap();
            // The worker keeps the slot until the sentinel has seen it.
            sentinel.join().unwrap();
            m.one_checkpoint(2);
        });
        m.registry.wait_server(&m.own(1), None).unwrap();
        m.serve_to_the_end(&[], 1, [worker]);
    });
}
