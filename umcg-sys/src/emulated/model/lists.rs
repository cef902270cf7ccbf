//! The two lists of a server, and the linked bit of each link.

use loom::thread;

use super::{Model, check};
use crate::List;

/// Two threads push the same event, a judge and the worker itself: one of them does it, and the
/// list stays a list.
#[test]
fn a03_one_event_is_pushed_once_by_two_who_know_of_it() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        let push = |m: &Model, worker| {
            // SAFETY: the tasks live as long as the model.
            unsafe { m.task(1).push(List::Blocked, m.task(worker)) }
        };
        let other = {
            let m = m.clone();
            thread::spawn(move || (push(&m, 2), push(&m, 3)))
        };
        let mine = push(&m, 2);
        let (two, three) = other.join().unwrap();
        assert!(mine ^ two, "pushed by {mine} and {two}");
        assert!(three);
        let mut taken: Vec<_> = m
            .task(1)
            .take(List::Blocked)
            .map(|worker| m.tid_of(worker))
            .collect();
        taken.sort_unstable();
        assert_eq!(taken, [2, 3]);
        assert!(!m.task(2).is_linked(List::Blocked) && !m.task(3).is_linked(List::Blocked));
    });
}

/// An event that is pushed while the server takes is in this take or in the next one, once. An
/// event that is pushed again after it was unlinked is not lost.
#[test]
fn a03_a_push_beside_a_take_is_in_this_one_or_the_next() {
    check(|| {
        let m = Model::new(1, &[1, 1]);
        let pusher = {
            let m = m.clone();
            thread::spawn(move || {
                let mut pushed = 0;
                for worker in [2, 3, 2] {
                    // SAFETY: the tasks live as long as the model.
                    pushed += u32::from(unsafe { m.task(1).push(List::Runnable, m.task(worker)) });
                }
                pushed
            })
        };
        let first = m.task(1).take(List::Runnable).count();
        let pushed = pusher.join().unwrap();
        let second = m.task(1).take(List::Runnable).count();
        assert_eq!(first + second, pushed as usize);
        assert!(pushed >= 2);
        assert!(!m.task(1).has_events(List::Runnable));
        assert!(!m.task(2).is_linked(List::Runnable) && !m.task(3).is_linked(List::Runnable));
    });
}

/// A worker blocks and unblocks while its server drains: it is queued afterwards, whichever of the
/// two events the drain found.
#[test]
fn a02_a_worker_that_unblocks_during_a_drain_stays_queued() {
    check(|| {
        let m = Model::new(1, &[1]);
        let worker = m.spawn(|m| {
            // SAFETY: the tasks live as long as the model.
            unsafe {
                m.task(1).push(List::Blocked, m.task(2));
                m.task(1).push(List::Runnable, m.task(2));
            }
        });
        let mut queued = false;
        let mut pass = || {
            let task = m.task(1);
            // The order that the contract asks for. `Model::drain` has the same.
            let runnable = task.take(List::Runnable);
            let blocked = task.take(List::Blocked);
            for _ in blocked {
                queued = false;
            }
            for _ in runnable {
                queued = true;
            }
        };
        pass();
        worker.join().unwrap();
        pass();
        assert!(queued, "in no queue");
    });
}
