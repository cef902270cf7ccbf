//! Model checks of the parker: its token, and a wait that a timer may end.

// Counts and references are std's: what orders them is not what is checked here.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use loom::thread;

use super::{Alarm, CountLatch, ManagedWait, Parker, Resume, Sleeper};

#[test]
fn model_a_token_is_never_lost() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let waker = {
            let parker = Arc::clone(&parker);
            thread::spawn(move || parker.unpark())
        };
        ManagedWait::begin().park(&parker);
        waker.join().unwrap();
        // Taken: a second one is a second wake.
        parker.unpark();
        ManagedWait::begin().park(&parker);
    });
}

#[test]
fn model_two_wakers_wake_one_wait() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let parker = Arc::clone(&parker);
                thread::spawn(move || parker.unpark())
            })
            .collect();
        ManagedWait::begin().park(&parker);
        for waker in wakers {
            waker.join().unwrap();
        }
    });
}

#[test]
fn model_a_latch_ends_its_wait() {
    loom::model(|| {
        let latch = Arc::new(CountLatch::default());
        latch.add();
        latch.add();
        let other = {
            let latch = Arc::clone(&latch);
            thread::spawn(move || latch.done())
        };
        latch.done();
        latch.wait();
        assert_eq!(latch.count(), 0);
        other.join().unwrap();
    });
}

/// Counts how often the worker was resumed.
struct Runtime(AtomicUsize);

impl Resume for Runtime {
    fn resume(&self, _worker: u32) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A worker's wait in `parker`, from the point where the word is PARKED to the point where the
/// worker runs again.
fn sleep(parker: &Parker, runtime: &Arc<Runtime>) {
    let before = runtime.0.load(SeqCst);
    let held = parker.hold(Sleeper {
        runtime: Arc::clone(runtime) as Arc<dyn Resume>,
        worker: 0,
    });
    while held && runtime.0.load(SeqCst) == before {
        thread::yield_now();
    }
    assert_eq!(runtime.0.load(SeqCst), before + usize::from(held));
    assert!(parker.is_over());
}

/// A timer ends the wait of a worker while somebody unparks it. The worker is resumed once, and the
/// token is there afterwards unless this wait took it.
#[test]
fn model_a_timer_and_an_unpark_end_a_wait_once() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let runtime = Arc::new(Runtime(AtomicUsize::new(0)));
        let alarm = Alarm::arm(&parker);
        let timer = {
            let waker = alarm.waker();
            thread::spawn(move || waker.wake())
        };
        let other = {
            let parker = Arc::clone(&parker);
            thread::spawn(move || parker.unpark())
        };
        let mut tokens = usize::from(parker.prepare_park());
        if tokens == 0 {
            sleep(&parker, &runtime);
            drop(alarm);
            tokens = usize::from(parker.leave());
        } else {
            drop(alarm);
        }
        timer.join().unwrap();
        other.join().unwrap();
        tokens += usize::from(parker.prepare_park());
        assert_eq!(tokens, 1);
    });
}

/// A timer that fires late does not end the next wait in the same parker.
#[test]
fn model_a_late_timer_leaves_the_next_wait_alone() {
    loom::model(|| {
        let parker = Arc::new(Parker::new());
        let alarm = Alarm::arm(&parker);
        let timer = {
            let waker = alarm.waker();
            thread::spawn(move || waker.wake())
        };
        assert!(!parker.prepare_park());
        // The worker finds on another way that the deadline has passed.
        drop(alarm);
        assert!(!parker.leave());
        assert!(!parker.prepare_park());
        timer.join().unwrap();
        assert!(!parker.is_over(), "the timer ended the next wait");
    });
}
