//! Turns: code that makes managed calls gives way in them, even if none of the calls sleeps.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::{Builder, JoinHandle, Runtime};
use umcg_tests::{
    eventually, isolated,
    runtime::{compute, runtime_with},
};

use crate::support::{Tid, managed};

/// A task that waits for a byte in `recv`, and then does `then`; what it reads from.
fn reader(
    runtime: &Runtime,
    then: impl FnOnce() + Send + 'static,
) -> ((Tid, JoinHandle<()>), UnixStream) {
    let (mut here, there) = UnixStream::pair().expect("a socket pair");
    let tid = Tid::default();
    let tells = tid.clone();
    let task = runtime.spawn_blocking(move || {
        tells.tell();
        here.read_exact(&mut [0]).expect("a byte");
        then();
    });
    eventually("the reader sleeps", || tid.asleep());
    ((tid, task), there)
}

/// A worker that comes back from I/O retakes the slot from one that sleeps in it, and that may wait
/// for the first one. Without CPUs of their own the servers have no sentinels, which would notice
/// it.
#[test]
fn a_worker_that_comes_back_retakes_the_slot_of_one_that_waits_for_it() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).pin(false).build().unwrap();
        if !managed(&runtime) {
            return;
        }
        for _ in 0..5 {
            let (sender, receiver) = mpsc::channel();
            let has_read = Arc::new(AtomicBool::new(false));
            let tells = Arc::clone(&has_read);
            let (waiter, mut to_waiter) = reader(&runtime, move || {
                tells.store(true, SeqCst);
                receiver.recv().expect("the other one sends");
            });
            let (other, mut to_other) = reader(&runtime, move || {
                sender.send(()).expect("the waiter waits");
            });
            // After this the server idles, and the slot is free.
            runtime.spawn_blocking(|| ()).join().expect("it runs");
            // The monitor looks for 10 ms after it has seen work.
            thread::sleep(Duration::from_millis(50));
            // The waiter takes the free slot, and sleeps in it.
            to_waiter.write_all(b"x").expect("it reads");
            eventually("the waiter waits", || {
                has_read.load(SeqCst) && waiter.0.asleep()
            });
            to_other.write_all(b"x").expect("it reads");
            other.1.join().expect("it ends");
            waiter.1.join().expect("it ends");
        }
    });
}

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
