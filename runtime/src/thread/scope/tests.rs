use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::*;
use crate::testing::{ManualSched, runtime};

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload.downcast_ref::<&'static str>().copied().unwrap()
}

#[test]
fn threads_borrow_and_are_waited_for() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut numbers = [1, 2, 3, 4];
    scope(|s| {
        for number in &mut numbers {
            s.spawn(move || {
                thread::sleep(Duration::from_millis(2));
                *number *= 2;
            });
        }
    });
    assert_eq!(numbers, [2, 4, 6, 8]);
}

#[test]
fn result_may_borrow() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let text = String::from("some text");
    let word = scope(|s| s.spawn(|| &text[..4]).join().unwrap().len());
    assert_eq!(word, 4);
}

#[test]
fn threads_spawn_siblings() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let count = AtomicUsize::new(0);
    scope(|s| {
        s.spawn(|| {
            for _ in 0..5 {
                s.spawn(|| count.fetch_add(1, SeqCst));
            }
        });
    });
    assert_eq!(count.load(SeqCst), 5);
}

#[test]
fn scopes_nest_in_threads() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let count = AtomicUsize::new(0);
    scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                scope(|s| {
                    for _ in 0..3 {
                        s.spawn(|| count.fetch_add(1, SeqCst));
                    }
                });
            });
        }
    });
    assert_eq!(count.load(SeqCst), 9);
}

#[test]
fn unjoined_panic_is_the_scopes() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let panic = catch_unwind(|| {
        scope(|s| {
            s.spawn(|| panic!("in a thread"));
        });
    })
    .unwrap_err();
    assert_eq!(message(&*panic), "a scoped thread panicked");
}

#[test]
fn joined_panic_is_the_joiners() {
    let runtime = runtime();
    let _entered = runtime.enter();
    scope(|s| {
        let panic = s.spawn(|| panic!("in a thread")).join().unwrap_err();
        assert_eq!(message(&*panic), "in a thread");
    });
}

#[test]
fn panic_in_the_drop_of_an_unjoined_result_is_the_scopes() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    let runtime = runtime();
    let _entered = runtime.enter();
    let panic = catch_unwind(|| {
        scope(|s| {
            s.spawn(|| Bad);
        });
    });
    assert!(panic.is_err());
}

#[test]
fn panic_of_the_body_waits_for_the_threads_and_wins() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let done = AtomicUsize::new(0);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            s.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                done.store(1, SeqCst);
            });
            panic!("in the body");
        })
    }))
    .unwrap_err();
    assert_eq!(message(&*panic), "in the body");
    assert_eq!(done.load(SeqCst), 1);
}

/// Says when it is dropped, in a place that the scope's end makes invalid.
struct Borrows<'a>(&'a Mutex<Option<&'static str>>);

impl Drop for Borrows<'_> {
    fn drop(&mut self) {
        let seen = self.0.lock().unwrap();
        assert!(seen.is_none(), "the scope was over");
        drop(seen);
        // Long enough for a scope that does not wait for this to be over.
        std::thread::sleep(Duration::from_millis(10));
        let seen = self.0.lock().unwrap();
        assert!(
            seen.is_none(),
            "the scope ended before the result was dropped"
        );
    }
}

#[test]
fn end_waits_for_the_drop_of_unjoined_results() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let over = Mutex::new(None);
    scope(|s| {
        s.spawn(|| Borrows(&over));
    });
    *over.lock().unwrap() = Some("over");
}

#[test]
fn cancelled_closure_ends_the_scope_with_a_panic() {
    let sched = ManualSched::new();
    sched.shutdown();
    let data = Arc::new(ScopeData {
        running: CountLatch::default(),
        panicked: AtomicBool::new(false),
        cancelled: AtomicBool::new(false),
    });
    let job = Job {
        f: || (),
        thread: Thread::new(None),
        running: data.begin(),
    };
    assert_eq!(data.running.count(), 1);
    drop(crate::task::spawn_closure(&sched, None, move || job.call()));
    data.running.wait();
    assert!(data.cancelled.load(SeqCst));
}

#[test]
fn named_threads_know_their_name() {
    let runtime = runtime();
    let _entered = runtime.enter();
    scope(|s| {
        let handle = thread::Builder::new()
            .name("worker bee".to_owned())
            .spawn_scoped(s, || thread::current().name().map(str::to_owned))
            .unwrap();
        assert_eq!(handle.thread().name(), Some("worker bee"));
        assert_eq!(handle.join().unwrap().as_deref(), Some("worker bee"));
    });
}

#[test]
fn scope_outside_of_a_runtime_says_what_to_do() {
    let panic = catch_unwind(|| scope(|_| ())).unwrap_err();
    assert!(
        panic
            .downcast_ref::<String>()
            .unwrap()
            .contains("Handle::enter")
    );
}
