//! The two words by which a worker hands its slot to another one directly. This directory's
//! README, section 7, says why each is needed.

use std::fmt;

use crate::sync::{
    AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Whose the `next_tid` of a worker is.
pub(in crate::sched) struct NextTidOwner(AtomicU32);

mod choice {
    /// What its server armed it with at a dispatch, if anything. Left by the worker or by its
    /// server, to either of the following.
    pub(in crate::sched) const ARMED: u32 = 0;
    /// The worker's own choice, or about to be. Left by the worker.
    pub(in crate::sched) const OWN: u32 = 1;
    /// Its server is taking back what is armed, without owning the worker. Left by the server.
    pub(in crate::sched) const DISARMED: u32 = 2;
}

impl NextTidOwner {
    pub(in crate::sched) fn new() -> Self {
        Self(AtomicU32::new(choice::ARMED))
    }

    /// For the server of a worker that it does not own: calls `disarm`, unless the worker is about
    /// to make a choice of its own, which must not be taken for what it is armed with.
    pub(in crate::sched) fn while_armed(&self, disarm: impl FnOnce()) {
        // AcqRel, here and in `choose`: who comes second has what the other did behind it.
        let mine = self
            .0
            .compare_exchange(choice::ARMED, choice::DISARMED, AcqRel, Relaxed);
        if mine.is_ok() {
            disarm();
            self.0.store(choice::ARMED, Release);
        }
    }

    /// For the worker: `next_tid` is its own from here on. False: its server is at it.
    pub(in crate::sched) fn choose(&self) -> bool {
        self.0
            .compare_exchange(choice::ARMED, choice::OWN, AcqRel, Relaxed)
            .is_ok()
    }

    /// For the worker, which has no choice standing: it may be armed again.
    pub(in crate::sched) fn give_up(&self) {
        // Only the worker leaves OWN.
        if self.0.load(Relaxed) == choice::OWN {
            self.0.store(choice::ARMED, Release);
        }
    }
}

impl fmt::Debug for NextTidOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NextTidOwner")
            .field(&self.0.load(Relaxed))
            .finish()
    }
}

/// Who publishes a worker that went to sleep: one of [`publication`], and above it the number of
/// the sleep. As soon as it is published the worker may be resumed, run, and go to sleep again
/// behind another successor, before the first one has come to its last step.
pub(in crate::sched) struct Publication(AtomicU32);

mod publication {
    /// It has published itself, or runs.
    pub(in crate::sched) const NONE: u32 = 0;
    /// Its successor is to publish it. Entered by the worker, which owns itself until then; left
    /// by its successor, or by itself if its server has gone.
    pub(in crate::sched) const PENDING: u32 = 1;
    /// Its successor is at it. Left by the successor, or by the worker for its next sleep.
    pub(in crate::sched) const UNDER_WAY: u32 = 2;

    /// The bits of the above.
    pub(in crate::sched) const STATE: u32 = 3;
    /// One sleep.
    pub(in crate::sched) const SLEEP: u32 = 4;
}

/// The right to publish a worker for one of its sleeps, and the duty to say when it is done.
#[must_use]
#[derive(Debug)]
pub(in crate::sched) struct Publishing(u32);

impl Publication {
    pub(in crate::sched) fn new() -> Self {
        Self(AtomicU32::new(publication::NONE))
    }

    /// For the worker, before it goes: its successor is to publish it.
    pub(in crate::sched) fn ask(&self) {
        let sleep = (self.0.load(Acquire) & !publication::STATE).wrapping_add(publication::SLEEP);
        // The successor looks after it was dispatched, which orders that. A swap, so that the last
        // step of an earlier successor comes before or fails.
        self.0.swap(sleep | publication::PENDING, AcqRel);
    }

    /// For the worker that did not go, and nobody was switched to.
    pub(in crate::sched) fn withdraw(&self) {
        let sleep = self.0.load(Relaxed) & !publication::STATE;
        self.0.store(sleep | publication::NONE, Relaxed);
    }

    /// For the successor: `Some`, it is to publish now. `None`: the worker lost its server, and
    /// runs.
    pub(in crate::sched) fn begin(&self) -> Option<Publishing> {
        let word = self.0.load(Relaxed);
        if word & publication::STATE != publication::PENDING {
            return None;
        }
        let at_it = word & !publication::STATE | publication::UNDER_WAY;
        self.0
            .compare_exchange(word, at_it, Acquire, Relaxed)
            .ok()
            .map(|_| Publishing(at_it))
    }

    /// For the successor: done. The worker may be in its next sleep already.
    pub(in crate::sched) fn end(&self, publishing: Publishing) {
        let Publishing(at_it) = publishing;
        let none = at_it & !publication::STATE | publication::NONE;
        // Release: pairs with the Acquire in `retract`.
        let _ = self.0.compare_exchange(at_it, none, Release, Relaxed);
    }

    /// For the worker whose server has gone: when this returns nobody publishes it any more.
    /// Calls `pause` while its successor is at it, which is a few instructions.
    pub(in crate::sched) fn retract(&self, mut pause: impl FnMut()) {
        loop {
            let word = self.0.load(Acquire);
            let none = word & !publication::STATE | publication::NONE;
            match word & publication::STATE {
                publication::NONE => return,
                publication::PENDING => {
                    let mine = self.0.compare_exchange(word, none, Acquire, Relaxed);
                    if mine.is_ok() {
                        return;
                    }
                }
                _ => pause(),
            }
        }
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publication")
            .field(&self.0.load(Relaxed))
            .finish()
    }
}

#[cfg(all(test, loom))]
mod model {
    use std::sync::Arc as Rc;

    use loom::{
        cell::UnsafeCell,
        sync::{
            Arc,
            atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;
    use crate::wait::{Parker, Resume, Sleeper};

    /// `next_tid`, as the provider's `disarm` takes it: whoever clears it owns what it named.
    fn take(next_tid: &AtomicU32) -> u32 {
        next_tid.swap(0, SeqCst)
    }

    /// A worker is armed with 7, and takes it back to choose 9 itself, while its server disarms
    /// it: the server gets 7 or nothing, never 9.
    #[test]
    fn a_choice_is_not_taken_for_what_is_armed() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.max(Some(3));
        builder.check(|| {
            let shared = Arc::new((NextTidOwner::new(), AtomicU32::new(7)));
            let server = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut got = 0;
                    if shared.1.load(SeqCst) != 0 {
                        shared.0.while_armed(|| got = take(&shared.1));
                    }
                    got
                })
            };
            let (choice, next_tid) = &*shared;
            let (mut armed, chosen) = if choice.choose() {
                let armed = take(next_tid);
                next_tid.store(9, SeqCst);
                // It is switched to.
                let chosen = take(next_tid);
                choice.give_up();
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

    struct Runtime(AtomicUsize);

    impl Resume for Runtime {
        fn resume(&self, _worker: u32) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// What its successor does for a worker that parks.
    fn publish(publication: &Publication, parker: &Parker, runtime: &Rc<Runtime>) {
        if let Some(publishing) = publication.begin() {
            entrust(parker, runtime);
            publication.end(publishing);
        }
    }

    fn entrust(parker: &Parker, runtime: &Rc<Runtime>) {
        let sleeper = Sleeper {
            runtime: Rc::clone(runtime) as Rc<dyn Resume>,
            worker: 0,
        };
        if !parker.hold(sleeper) {
            // It was unparked before: at once.
            runtime.resume(0);
        }
    }

    /// A worker parks, its successor entrusts it, and somebody unparks it meanwhile: it is resumed
    /// exactly once, and has its token.
    #[test]
    fn a_worker_that_parks_is_resumed_once() {
        loom::model(|| {
            let runtime = Rc::new(Runtime(AtomicUsize::new(0)));
            let shared = Arc::new((Publication::new(), Parker::new()));
            assert!(!shared.1.prepare_park(), "no token");
            shared.0.ask();
            let unparker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.1.unpark())
            };
            publish(&shared.0, &shared.1, &runtime);
            unparker.join().unwrap();
            assert_eq!(runtime.0.load(SeqCst), 1);
            assert!(shared.1.is_over());
        });
    }

    /// It is resumed, and parks again behind another successor, while the first one has not quite
    /// come to its end.
    #[test]
    fn a_worker_that_parks_again_is_published_again() {
        loom::model(|| {
            let runtime = Rc::new(Runtime(AtomicUsize::new(0)));
            let shared = Arc::new((Publication::new(), Parker::new()));
            assert!(!shared.1.prepare_park(), "no token");
            shared.0.ask();
            let first = {
                let (shared, runtime) = (Arc::clone(&shared), Rc::clone(&runtime));
                thread::spawn(move || publish(&shared.0, &shared.1, &runtime))
            };
            shared.1.unpark();
            while runtime.0.load(SeqCst) == 0 {
                thread::yield_now();
            }
            assert!(shared.1.prepare_park(), "the token");
            assert!(!shared.1.prepare_park(), "no token");
            shared.0.ask();
            first.join().unwrap();
            publish(&shared.0, &shared.1, &runtime);
            shared.1.unpark();
            assert_eq!(runtime.0.load(SeqCst), 2);
        });
    }

    /// The server goes away while the successor publishes: the worker takes itself back, or has
    /// been unparked; and nothing of the parker is used when it has gone on.
    #[test]
    fn a_worker_that_lost_its_server_is_nobodys() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(3);
        builder.check(|| {
            let runtime = Rc::new(Runtime(AtomicUsize::new(0)));
            // The cell stands for the parker's memory, which goes when its owner goes on.
            let memory = UnsafeCell::new(());
            let shared = Arc::new((Publication::new(), Parker::new(), memory));
            assert!(!shared.1.prepare_park(), "no token");
            shared.0.ask();
            let successor = {
                let (shared, runtime) = (Arc::clone(&shared), Rc::clone(&runtime));
                thread::spawn(move || {
                    if let Some(publishing) = shared.0.begin() {
                        entrust(&shared.1, &runtime);
                        shared.2.with(|_| ());
                        shared.0.end(publishing);
                    }
                })
            };
            let unparker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.1.unpark())
            };
            shared.0.retract(thread::yield_now);
            shared.2.with_mut(|_| ());
            let back = shared.1.release();
            assert!(
                shared.0.begin().is_none(),
                "published after it was retracted"
            );
            unparker.join().unwrap();
            successor.join().unwrap();
            assert!(shared.1.is_over());
            assert!(!back || runtime.0.load(SeqCst) == 0, "back, and resumed");
        });
    }
}
