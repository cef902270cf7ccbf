//! The ways to end a runtime while workers sleep in managed calls.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Runtime};
use umcg_tests::{
    eventually, isolated,
    runtime::{SERVERS, runtime_with},
    threads,
};

use crate::support::{Tid, yield_cpu};

const BLOCKED: usize = 6;

/// Tasks that sleep in `recv` until their sockets are shut down, some of them with others in the
/// queue, so that they have announced it. Each then goes on, and sleeps in other ways.
struct Blocked {
    sockets: Vec<UnixStream>,
    done: Arc<AtomicUsize>,
}

impl Blocked {
    fn in_recv(runtime: &Runtime) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let lock = Arc::new(Mutex::new(0));
        let mut tids = Vec::new();
        let sockets = (0..BLOCKED)
            .map(|_| {
                let (mut here, there) = UnixStream::pair().expect("a socket pair");
                let (tid, done, lock) = (Tid::default(), Arc::clone(&done), Arc::clone(&lock));
                tids.push(tid.clone());
                runtime.spawn_blocking(move || {
                    // Dropped without being run, or run in this worker's stead.
                    umcg::spawn_blocking(yield_cpu);
                    tid.tell();
                    assert_eq!(here.read(&mut [0]).expect("no error"), 0);
                    let mut held = lock.lock().expect("nobody panics with it");
                    thread::sleep(Duration::from_millis(1));
                    *held += 1;
                    drop(held);
                    thread::yield_now();
                    done.fetch_add(1, SeqCst);
                });
                there
            })
            .collect();
        for tid in &tids {
            eventually("all of them sleep", || tid.asleep());
        }
        Self { sockets, done }
    }

    fn end(&self) {
        for socket in &self.sockets {
            socket.shutdown(Shutdown::Both).expect("a connection");
        }
    }

    fn done(&self) -> usize {
        self.done.load(SeqCst)
    }
}

/// Dropping a runtime waits for the tasks that run, even if they sleep.
#[test]
fn a_drop_waits_for_workers_that_sleep() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let slept = Arc::new(AtomicUsize::new(0));
            let begun = Arc::new(AtomicUsize::new(0));
            for _ in 0..8 {
                let (slept, begun) = (Arc::clone(&slept), Arc::clone(&begun));
                runtime.spawn_blocking(move || {
                    begun.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(50));
                    slept.fetch_add(1, SeqCst);
                });
            }
            eventually("all of them have begun", || begun.load(SeqCst) == 8);
            let blocked = Blocked::in_recv(&runtime);
            let drops = threads::spawn_until_at_rest("the drop of the runtime", || drop(runtime));
            assert!(!drops.is_finished(), "it has not waited for `recv`");
            blocked.end();
            drops.join().expect("the drop");
            assert_eq!(slept.load(SeqCst), 8, "it has not waited for the sleeps");
            assert_eq!(blocked.done(), BLOCKED);
        }
    });
}

/// The other ends leave workers behind that sleep. Their tasks go on on ordinary threads when their
/// calls return, and then these threads end.
#[test]
fn workers_that_sleep_forever_are_left_behind_and_go_on_when_they_can() {
    isolated(90, || {
        let ends: [fn(Runtime); 2] = [
            |runtime| runtime.shutdown_timeout(Duration::from_millis(50)),
            Runtime::shutdown_background,
        ];
        for end in ends {
            for servers in SERVERS {
                let runtime = Builder::new()
                    .servers(servers)
                    .thread_name("left")
                    .build()
                    .expect("a runtime");
                let blocked = Blocked::in_recv(&runtime);
                let begun = Instant::now();
                end(runtime);
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(5), "it took {took:?}");
                assert_eq!(blocked.done(), 0);
                blocked.end();
                eventually("the tasks have gone on", || blocked.done() == BLOCKED);
                eventually("their threads have ended", || threads::named("left") == 0);
            }
        }
    });
}

/// The end comes while workers are on their way into calls and out of them.
#[test]
fn an_end_among_calls_loses_no_task() {
    isolated(90, || {
        for round in 0..60_u64 {
            let runtime = Builder::new()
                .servers(SERVERS[round as usize % 3])
                .thread_name("among")
                .build()
                .expect("a runtime");
            let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            for _ in 0..5 {
                let (mut here, mut there) = UnixStream::pair().expect("a socket pair");
                let (b, e) = (Arc::clone(&begun), Arc::clone(&ended));
                let echo = move || {
                    b.fetch_add(1, SeqCst);
                    let mut byte = [0];
                    while here.read(&mut byte).is_ok_and(|count| count == 1) {
                        here.write_all(&byte).expect("the other end reads");
                    }
                    e.fetch_add(1, SeqCst);
                };
                let (b, e) = (Arc::clone(&begun), Arc::clone(&ended));
                let talk = move || {
                    b.fetch_add(1, SeqCst);
                    for _ in 0..20 {
                        // The other end may have been dropped without being run.
                        let sent = there.write_all(b"x");
                        if sent.is_err() || there.read(&mut [0]).is_ok_and(|count| count == 0) {
                            break;
                        }
                    }
                    e.fetch_add(1, SeqCst);
                };
                runtime.spawn_blocking(echo);
                runtime.spawn_blocking(talk);
            }
            thread::sleep(Duration::from_micros(37 * round));
            match round % 4 {
                0 => runtime.shutdown_background(),
                1 => runtime.shutdown_timeout(Duration::from_micros(100)),
                _ => drop(runtime),
            }
            eventually("all that have begun have ended", || {
                begun.load(SeqCst) == ended.load(SeqCst) && threads::named("among") == 0
            });
        }
    });
}
