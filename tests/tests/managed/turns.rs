//! Turns: code that makes managed calls gives way in them, even if none of the calls sleeps.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg::{JoinHandle, Runtime};
use umcg_tests::{
    eventually, isolated,
    runtime::{compute, runtime_with},
};

use crate::support::managed;

/// A task that computes and makes calls for which nothing has to be waited for.
fn busy(runtime: &Runtime, begun: &Arc<AtomicUsize>, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (begun, stop) = (Arc::clone(begun), Arc::clone(stop));
    runtime.spawn_blocking(move || {
        let (mut here, mut there) = UnixStream::pair().expect("a socket pair");
        begun.fetch_add(1, SeqCst);
        while !stop.load(SeqCst) {
            compute(Duration::from_micros(50));
            here.write_all(b"x").expect("there is room");
            there.read_exact(&mut [0]).expect("it was written");
        }
    })
}

/// Ends the tasks, also if the test fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// More of them than a server lets run without a slot (32). Each gives way in its calls, so all of
/// them have their turns, and so has a task that is spawned last.
#[test]
fn tasks_begin_beside_any_number_of_workers_that_make_calls_which_do_not_sleep() {
    isolated(120, || {
        let runtime = runtime_with(1);
        if !managed(&runtime) {
            return;
        }
        let (begun, stop) = (Arc::default(), Stop(Arc::default()));
        let tasks: Vec<_> = (0..40).map(|_| busy(&runtime, &begun, &stop.0)).collect();
        eventually("all of them have begun", || begun.load(SeqCst) == 40);
        assert_eq!(runtime.spawn_blocking(|| 7).join().expect("it runs"), 7);
        drop(stop);
        for task in tasks {
            task.join().expect("it ends");
        }
    });
}
