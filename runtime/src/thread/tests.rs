use std::{
    io,
    panic::catch_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::*;
use crate::testing::runtime;

#[test]
fn result_reaches_the_joiner() {
    let runtime = runtime();
    let _entered = runtime.enter();
    assert_eq!(spawn(|| 7).join().unwrap(), 7);
}

#[test]
fn panic_reaches_the_joiner_as_its_payload() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let payload = spawn(|| panic!("inside")).join().unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"inside"));
}

#[test]
fn cancelled_thread_is_an_error_of_join() {
    let runtime = runtime();
    runtime.shared().stop();
    let _entered = runtime.enter();
    let payload = spawn(|| 7).join().unwrap_err();
    assert!(payload.downcast::<JoinError>().unwrap().is_cancelled());
    // A builder says so at once.
    let error = Builder::new().spawn(|| 7).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.to_string().contains("shut down"), "{error}");
}

#[test]
fn dropped_handle_lets_the_thread_run() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (send, receive) = mpsc::channel();
    drop(spawn(move || send.send(7).unwrap()));
    assert_eq!(receive.recv_timeout(Duration::from_secs(30)), Ok(7));
}

#[test]
fn thread_spawns_threads() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let sum = spawn(|| spawn(|| 3).join().unwrap() + spawn(|| 4).join().unwrap());
    assert_eq!(sum.join().unwrap(), 7);
}

#[test]
fn handle_and_thread_name_the_same_thread() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let thread = Builder::new()
        .name("some name".to_owned())
        .spawn(current)
        .unwrap();
    let seen_outside = thread.thread().clone();
    let seen_inside = thread.join().unwrap();
    assert_eq!(seen_inside.id(), seen_outside.id());
    assert_eq!(seen_inside.name(), Some("some name"));
    assert_ne!(seen_inside.id(), current().id());
}

#[test]
fn current_is_the_same_until_the_task_changes() {
    assert_eq!(current().id(), current().id());
    let sched = crate::testing::ManualSched::new();
    let outside = current().id();
    let ids = || {
        let first = current().id();
        (first, current().id())
    };
    let one = crate::task::spawn_closure(&sched, None, ids);
    let two = crate::task::spawn_closure(&sched, None, ids);
    sched.run_all();
    let (one, two) = (one.join().unwrap(), two.join().unwrap());
    assert_eq!(one.0, one.1);
    assert_eq!(two.0, two.1);
    assert_ne!(one.0, two.0);
    assert_ne!(one.0, outside);
}

#[test]
fn unpark_before_park_is_kept() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (begun, seen) = mpsc::channel::<()>();
    let thread = spawn(move || {
        seen.recv().unwrap();
        park();
    });
    thread.thread().unpark();
    begun.send(()).unwrap();
    thread.join().unwrap();
}

#[test]
fn unpark_wakes_a_parked_thread() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let ready = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&ready);
    let thread = spawn(move || {
        while !theirs.load(SeqCst) {
            park();
        }
    });
    ready.store(true, SeqCst);
    thread.thread().unpark();
    thread.join().unwrap();
}

#[test]
fn park_timeout_ends() {
    let start = Instant::now();
    park_timeout(Duration::from_millis(5));
    assert!(start.elapsed() >= Duration::from_millis(5));
}

#[test]
fn is_finished_becomes_true() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (end, ended) = mpsc::channel::<()>();
    let thread = spawn(move || ended.recv());
    assert!(!thread.is_finished());
    drop(end);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "the thread did not finish");
        yield_now();
    }
    assert!(thread.join().unwrap().is_err());
}

#[test]
fn too_large_a_stack_is_an_error() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let error = Builder::new().stack_size(1 << 40).spawn(|| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("thread_stack_size"));
    Builder::new()
        .stack_size(4096)
        .spawn(|| ())
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn name_with_a_nul_byte_panics_at_spawn_as_in_std() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let ours = catch_unwind(|| Builder::new().name("a\0b".into()).spawn(|| ()));
    let theirs = catch_unwind(|| std::thread::Builder::new().name("a\0b".into()).spawn(|| ()));
    for payload in [ours.unwrap_err(), theirs.unwrap_err()] {
        let message = crate::testing::panic_message(&*payload);
        assert!(message.contains("interior null bytes"), "{message}");
    }
}

#[test]
fn builder_outside_of_a_runtime_is_an_error() {
    let error = Builder::new().spawn(|| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn sleep_sleeps() {
    let start = Instant::now();
    sleep(Duration::from_millis(3));
    assert!(start.elapsed() >= Duration::from_millis(3));
}
