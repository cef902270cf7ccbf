//! Several runtimes in a process, whose tasks wait for each other.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg_tests::{isolated, runtime::runtime_with};

/// Tasks of two runtimes exchange messages, over a channel and a socket, and share a lock. One
/// server each, so that each wait needs the slot to be given away.
#[test]
fn tasks_of_two_runtimes_wait_for_each_other() {
    isolated(60, || {
        let (a, b) = (runtime_with(1), runtime_with(1));
        let lock = Arc::new(Mutex::new(0));
        let pairs: Vec<_> = (0..6_u64)
            .flat_map(|tag| {
                let (sender, receiver) = mpsc::sync_channel(1);
                let (mut here, mut there) = UnixStream::pair().expect("a socket pair");
                let (mine, theirs) = (Arc::clone(&lock), Arc::clone(&lock));
                let first = a.spawn_blocking(move || {
                    for k in 0..100_u64 {
                        sender.send(tag + k).expect("the other end receives");
                        let mut buffer = [0; 8];
                        here.read_exact(&mut buffer).expect("the other end sends");
                        assert_eq!(u64::from_le_bytes(buffer), tag + k);
                        *mine.lock().expect("nobody panics with it") += 1;
                    }
                });
                let second = b.spawn_blocking(move || {
                    for (k, received) in receiver.iter().enumerate() {
                        assert_eq!(received, tag + k as u64);
                        let mut held = theirs.lock().expect("nobody panics with it");
                        *held += 1;
                        if k % 10 == 0 {
                            thread::sleep(Duration::from_micros(100));
                        }
                        drop(held);
                        there.write_all(&received.to_le_bytes()).expect("it reads");
                    }
                });
                [first, second]
            })
            .collect();
        for task in pairs {
            task.join().expect("it ends");
        }
        assert_eq!(*lock.lock().expect("nobody panics with it"), 1200);
    });
}

/// A task that waits for a task of another runtime, which waits for one of the first, and so on.
#[test]
fn waits_may_go_to_and_fro_between_runtimes() {
    fn nest(here: &umcg::Handle, there: &umcg::Handle, depth: u32) -> u32 {
        if depth == 0 {
            thread::sleep(Duration::from_millis(1));
            return 0;
        }
        let (mine, theirs) = (here.clone(), there.clone());
        let (sender, receiver) = mpsc::channel();
        // By a channel, which the runtime does not know, and by its own join, in turn.
        let task = there.spawn_blocking(move || {
            let result = nest(&theirs, &mine, depth - 1);
            sender.send(result).expect("somebody receives");
            result
        });
        if depth % 2 == 0 {
            receiver.recv().expect("the result") + 1
        } else {
            task.join().expect("the result") + 1
        }
    }

    isolated(60, || {
        let (a, b) = (runtime_with(1), runtime_with(1));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (here, there) = (a.handle().clone(), b.handle().clone());
                a.spawn_blocking(move || nest(&here, &there, 20))
            })
            .collect();
        for task in tasks {
            assert_eq!(task.join().expect("the nest"), 20);
        }
    });
}

/// A runtime that is built, used and dropped in a task of another one, while others of that one
/// wait.
#[test]
fn a_runtime_lives_and_ends_in_a_task_of_another_one() {
    isolated(60, || {
        let outer = runtime_with(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let ticks = outer.spawn_blocking(move || {
            let mut ticks = 0;
            while !stopped.load(SeqCst) {
                thread::sleep(Duration::from_micros(500));
                ticks += 1;
            }
            ticks
        });
        for _ in 0..10 {
            let task = outer.spawn_blocking(|| {
                let inner = runtime_with(1);
                let slept = inner.spawn_blocking(|| thread::sleep(Duration::from_millis(1)));
                slept.join().expect("it sleeps");
                inner.spawn_blocking(|| thread::sleep(Duration::from_millis(2)));
                drop(inner);
                7
            });
            assert_eq!(task.join().expect("the inner runtime"), 7);
        }
        stop.store(true, SeqCst);
        assert!(ticks.join().expect("it ticks") > 0);
    });
}
