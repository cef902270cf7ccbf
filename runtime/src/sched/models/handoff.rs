//! A worker that hands its slot off has one owner at any time, and is resumed once.
//!
//! `NextTidOwner`, `Publication` and `Parker` are the product's. What the server, the successor and
//! the worker do around them are lines of this file, which stand for `server/run.rs` and
//! `worker/park.rs`.

use std::sync::Arc as StdArc;

use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use super::{check, start};
use crate::{
    sched::worker::handoff::{NextTidOwner, Publication},
    wait::{Parker, Resume, Sleeper},
};

/// `Provider::disarm`: the thread that clears `next_tid` owns the worker that it named.
fn take(next_tid: &AtomicU32) -> u32 {
    next_tid.swap(0, SeqCst)
}

/// A worker is armed with 7, and takes it back to choose 9 itself, while its server disarms it: the
/// server gets 7 or nothing, never 9.
#[test]
fn a_choice_is_not_taken_for_what_is_armed() {
    check(|| {
        let shared = Arc::new((NextTidOwner::new(), AtomicU32::new(7)));
        let server = start(&shared, |(owner, next_tid)| {
            let mut got = 0;
            if next_tid.load(SeqCst) != 0 {
                owner.while_server_owns(|| got = take(next_tid));
            }
            got
        });
        let (owner, next_tid) = &*shared;
        let (mut armed, chosen) = if owner.claim() {
            let armed = take(next_tid);
            next_tid.store(9, SeqCst);
            // The worker switches to its choice.
            let chosen = take(next_tid);
            owner.give_back();
            (armed, chosen)
        } else {
            (take(next_tid), 9)
        };
        let got = server.join().unwrap();
        armed += got;
        assert!(got == 0 || got == 7, "the server took {got}");
        assert_eq!((armed, chosen), (7, 9));
    });
}

/// Counts how often the worker was resumed.
struct Resumed(AtomicUsize);

impl Resume for Resumed {
    fn resume(&self, _worker: u32) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What its successor does for a worker that parks.
fn publish(publication: &Publication, parker: &Parker, resumed: &StdArc<Resumed>) {
    if let Some(publishing) = publication.begin() {
        hold(parker, resumed);
        publication.end(publishing);
    }
}

fn hold(parker: &Parker, resumed: &StdArc<Resumed>) {
    let sleeper = Sleeper {
        runtime: StdArc::clone(resumed) as StdArc<dyn Resume>,
        worker: 0,
    };
    if !parker.hold(sleeper) {
        // It was unparked before: at once.
        resumed.resume(0);
    }
}

/// A worker parks, its successor publishes it, and another thread unparks it meanwhile: it is
/// resumed exactly once, and has its token.
#[test]
fn a_worker_that_parks_is_resumed_once() {
    check(|| {
        let resumed = StdArc::new(Resumed(AtomicUsize::new(0)));
        let shared = Arc::new((Publication::new(), Parker::new()));
        let (publication, parker) = &*shared;
        assert!(!parker.prepare_park(), "no token");
        publication.request();
        let unparker = start(&shared, |(_, parker)| parker.unpark());
        publish(publication, parker, &resumed);
        unparker.join().unwrap();
        assert_eq!(resumed.0.load(SeqCst), 1);
        assert!(parker.is_over());
    });
}

/// It is resumed, and parks again behind another successor, while the first successor has not quite
/// come to its end.
#[test]
fn a_worker_that_parks_again_is_published_again() {
    check(|| {
        let resumed = StdArc::new(Resumed(AtomicUsize::new(0)));
        let shared = Arc::new((Publication::new(), Parker::new()));
        let (publication, parker) = &*shared;
        assert!(!parker.prepare_park(), "no token");
        publication.request();
        let first = start(&shared, {
            let resumed = StdArc::clone(&resumed);
            move |(publication, parker)| publish(publication, parker, &resumed)
        });
        parker.unpark();
        while resumed.0.load(SeqCst) == 0 {
            thread::yield_now();
        }
        assert!(parker.prepare_park(), "the token");
        assert!(!parker.prepare_park(), "no token");
        publication.request();
        first.join().unwrap();
        publish(publication, parker, &resumed);
        parker.unpark();
        assert_eq!(resumed.0.load(SeqCst), 2);
    });
}

/// The server goes away while the successor publishes: the worker takes itself back, or has been
/// unparked; and nobody uses the parker when the worker has gone on.
#[test]
fn a_worker_that_lost_its_server_is_nobodys() {
    check(|| {
        let resumed = StdArc::new(Resumed(AtomicUsize::new(0)));
        // The cell stands for the parker's memory, which goes when its owner goes on.
        let memory = UnsafeCell::new(());
        let shared = Arc::new((Publication::new(), Parker::new(), memory));
        let (publication, parker, memory) = &*shared;
        assert!(!parker.prepare_park(), "no token");
        publication.request();
        let successor = start(&shared, {
            let resumed = StdArc::clone(&resumed);
            move |(publication, parker, memory)| {
                if let Some(publishing) = publication.begin() {
                    hold(parker, &resumed);
                    memory.with(|_| ());
                    publication.end(publishing);
                }
            }
        });
        let unparker = start(&shared, |(_, parker, _)| parker.unpark());
        publication.retract(thread::yield_now);
        memory.with_mut(|_| ());
        let back = parker.release();
        assert!(
            publication.begin().is_none(),
            "published after it was retracted"
        );
        unparker.join().unwrap();
        successor.join().unwrap();
        assert!(parker.is_over());
        assert!(
            !back || resumed.0.load(SeqCst) == 0,
            "taken back, and resumed"
        );
    });
}
