//! A helper goes to bed only when there is nothing to watch, and is woken when there is.

use loom::{sync::atomic::AtomicU32, thread};

use super::{Model, check};
use crate::{
    emulated::helpers::sleep_cell::SleepCell,
    sync::{Futex32, SeqCst},
};

/// Work is made twice; a helper that goes to bed whenever it finds none sees both.
#[test]
fn sleep_cell_no_wake_up_of_a_helper_is_lost() {
    check(|| {
        let shared = loom::sync::Arc::new((SleepCell::new(Futex32::new(0)), AtomicU32::new(0)));
        let maker = {
            let shared = shared.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    shared.1.fetch_add(1, crate::sync::Relaxed);
                    shared.0.wake();
                }
            })
        };
        while shared.1.load(SeqCst) < 2 {
            shared
                .0
                .sleep_while(|| shared.1.load(crate::sync::Relaxed) < 2);
        }
        maker.join().unwrap();
    });
}

/// The sentinel's bed: a server dispatches while the sentinel goes to bed because it saw no slot
/// held.
#[test]
fn sleep_cell_a_sentinel_sees_a_dispatch() {
    check(|| {
        let m = Model::new(1, &[1]);
        let sentinel = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry
                    .helpers()
                    .sentinel
                    .sleep_while(|| !m.slot(1).is_held());
                assert!(m.slot(1).is_held());
                // Seen: the worker may go on.
                m.look(1, super::Judge::Sentinel);
            })
        };
        m.task(1).begin_drain();
        m.task(1).set_next_tid(2);
        let worker = {
            let m = m.clone();
            thread::spawn(move || {
                m.registry.sleep_in_gate(&m.own(2)).unwrap();
                // Until the sentinel has come it keeps the slot.
                sentinel.join().unwrap();
                m.one_checkpoint(2);
            })
        };
        m.registry.wait_server(&m.own(1), None).unwrap();
        m.serve(1, &[], 1);
        worker.join().unwrap();
        m.all_out();
    });
}
