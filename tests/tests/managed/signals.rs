//! Signals that interrupt workers in managed calls, and handlers that make managed calls.

use std::{
    cell::UnsafeCell,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{
            AtomicBool, AtomicI32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{JoinHandle, Runtime};
use umcg_tests::{
    blockers, eventually, isolated,
    runtime::{SERVERS, runtime_with},
    signals::{self, Storm},
    threads,
};

use crate::support::{Blocks, Tid, managed, receive, yield_cpu};

/// A semaphore of C, for a signal handler.
struct Semaphore(UnsafeCell<libc::sem_t>);

// SAFETY: semaphores are for all threads.
unsafe impl Sync for Semaphore {}

/// All zeros are a semaphore of this process with the value 0, which `sem_init` would make.
static SEMAPHORE: Semaphore = Semaphore(UnsafeCell::new(
    // SAFETY: see above.
    unsafe { std::mem::zeroed() },
));
/// Both ends of a pipe.
static PIPE: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];
/// How often [`handler`] ran, and how often a call in it failed.
static HANDLED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Makes managed calls, each of which may sleep for a moment.
extern "C" fn handler(_: i32) {
    let check = |fine: bool| {
        if !fine {
            FAILED.fetch_add(1, SeqCst);
        }
    };
    // SAFETY: the address of this thread's errno; async-signal-safe calls on live objects. Each
    // handler puts into the pipe and the semaphore what it takes out.
    unsafe {
        let errno = *libc::__errno_location();
        let mut byte = 7_u8;
        let write = libc::write(PIPE[1].load(Relaxed), (&raw const byte).cast(), 1);
        check(write == 1);
        let read = libc::read(PIPE[0].load(Relaxed), (&raw mut byte).cast(), 1);
        check(read == 1 && byte == 7);
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1000,
        };
        libc::nanosleep(&raw const time, std::ptr::null_mut());
        check(libc::sem_post(SEMAPHORE.0.get()) == 0);
        check(libc::sem_wait(SEMAPHORE.0.get()) == 0);
        check(libc::sched_yield() == 0);
        *libc::__errno_location() = errno;
    }
    HANDLED.fetch_add(1, SeqCst);
}

/// Tasks that block and come back all the time, in every family of calls.
fn busy_tasks(runtime: &Runtime, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    let mut spawn = |body: Box<dyn FnOnce() + Send>| tasks.push(runtime.spawn_blocking(body));
    for tag in 0..3_u64 {
        let (mut here, mut there) = UnixStream::pair().expect("a socket pair");
        let stopped = Arc::clone(stop);
        spawn(Box::new(move || {
            let mut buffer = [0; 8];
            while there.read_exact(&mut buffer).is_ok() {
                there.write_all(&buffer).expect("the other end reads");
            }
        }));
        spawn(Box::new(move || {
            let mut k = 0_u64;
            while !stopped.load(SeqCst) {
                let sent = (tag << 32) | k;
                here.write_all(&sent.to_le_bytes()).expect("it echoes");
                let mut buffer = [0; 8];
                here.read_exact(&mut buffer).expect("it echoes");
                assert_eq!(u64::from_le_bytes(buffer), sent);
                k += 1;
            }
        }));
    }
    let turn = Arc::new((Mutex::new(0_u64), Condvar::new()));
    for me in 0..2 {
        let (turn, stopped) = (Arc::clone(&turn), Arc::clone(stop));
        spawn(Box::new(move || {
            let mut held = turn.0.lock().expect("nobody panics with it");
            while !stopped.load(SeqCst) {
                if *held % 2 == me {
                    *held += 1;
                    turn.1.notify_all();
                } else {
                    let limit = Duration::from_millis(1);
                    held = turn.1.wait_timeout(held, limit).expect("as above").0;
                }
            }
        }));
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let stopped = Arc::clone(stop);
    spawn(Box::new(move || {
        let mut k = 0;
        while !stopped.load(SeqCst) {
            sender.send(k).expect("the other end receives");
            k += 1;
        }
    }));
    spawn(Box::new(move || {
        for (k, received) in receiver.iter().enumerate() {
            assert_eq!(k, received);
        }
    }));
    for _ in 0..2 {
        let stopped = Arc::clone(stop);
        spawn(Box::new(move || {
            while !stopped.load(SeqCst) {
                let begun = Instant::now();
                thread::sleep(Duration::from_micros(300));
                assert!(begun.elapsed() >= Duration::from_micros(300));
                thread::yield_now();
            }
        }));
    }
    tasks
}

/// Sends `signal` to all workers again and again. On a machine that is busy, a handler may take
/// longer than the pause between two signals, and then its thread would do nothing else. So the
/// next ones are not sent before most handlers have run, and the workers have had as long for
/// themselves.
fn paced_storm(signal: i32) -> Storm {
    let mut sent = 0;
    let mut last = (Instant::now(), HANDLED.load(SeqCst));
    Storm::on(signal, move || {
        let (at, handled) = last;
        let given_up = at + Duration::from_millis(50);
        while HANDLED.load(SeqCst) < handled + sent && Instant::now() < given_up {
            thread::sleep(Duration::from_micros(50));
        }
        thread::sleep(at.elapsed());
        let workers: Vec<u32> = threads::list(|thread| thread.name.starts_with("umcg-w"))
            .into_iter()
            .map(|thread| thread.tid)
            .collect();
        sent = workers.len() as u64;
        last = (Instant::now(), HANDLED.load(SeqCst));
        workers
    })
}

/// A storm of signals on all workers. Their handlers run in the middle of calls, and of what comes
/// before and after them.
fn storm(flags: i32) {
    let (reader, writer) = blockers::pipe();
    PIPE[0].store(reader.as_raw_fd(), SeqCst);
    PIPE[1].store(writer.as_raw_fd(), SeqCst);
    let signal = signals::unused();
    signals::handle(signal, handler, flags);
    for servers in SERVERS {
        let runtime = runtime_with(servers);
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = busy_tasks(&runtime, &stop);
        let before = HANDLED.load(SeqCst);
        let storm = paced_storm(signal);
        let end = Instant::now() + Duration::from_millis(700);
        while Instant::now() < end || HANDLED.load(SeqCst) - before < 500 {
            // Others do their work all the time.
            assert_eq!(runtime.spawn_blocking(|| 7).join().expect("it runs"), 7);
            thread::sleep(Duration::from_millis(1));
        }
        drop(storm);
        stop.store(true, SeqCst);
        for task in tasks {
            task.join().expect("no call has lost anything");
        }
        let handled = HANDLED.load(SeqCst) - before;
        let blocks = Blocks::of(&runtime.metrics());
        println!("{servers} servers: {handled} signals, {blocks:?}");
        assert_eq!(FAILED.load(SeqCst), 0, "calls in handlers have failed");
        if managed(&runtime) {
            assert!(blocks.announced > 0);
        }
    }
}

/// With `SA_RESTART`, as most handlers are installed.
#[test]
fn handlers_that_make_managed_calls_may_interrupt_workers_anywhere() {
    isolated(90, || storm(libc::SA_RESTART));
}

/// The calls in the handlers are not interrupted themselves, since the signal is blocked meanwhile;
/// those of the tasks are, and std makes them again.
#[test]
fn the_same_without_sa_restart() {
    isolated(90, || storm(0));
}

/// One call that sleeps until something happens, and the result of it with its errno.
struct Call {
    name: &'static str,
    call: Box<dyn FnOnce() -> (i64, i32) + Send>,
    happen: Box<dyn FnOnce() + Send>,
}

fn with_errno(call: impl FnOnce() -> i64) -> (i64, i32) {
    // SAFETY: the address of this thread's errno.
    unsafe {
        *libc::__errno_location() = 0;
        let result = call();
        (result, *libc::__errno_location())
    }
}

fn calls() -> Vec<Call> {
    let (here, mut there) = UnixStream::pair().expect("a socket pair");
    let recv = Call {
        name: "recv",
        call: Box::new(move || with_errno(|| receive(&here).map_or_else(|_| -1, i64::from))),
        happen: Box::new(move || {
            // It may have given up.
            let _ = there.write_all(b"x");
        }),
    };
    let (mut reader, mut writer) = blockers::pipe();
    let read = Call {
        name: "read",
        call: Box::new(move || {
            with_errno(|| reader.read(&mut [0]).map_or(-1, |count| count as i64))
        }),
        happen: Box::new(move || {
            let _ = writer.write_all(b"x");
        }),
    };
    let (reader, mut writer) = blockers::pipe();
    let poll = Call {
        name: "poll",
        call: Box::new(move || {
            with_errno(|| {
                let mut entry = libc::pollfd {
                    fd: reader.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one valid entry.
                i64::from(unsafe { libc::poll(&raw mut entry, 1, -1) })
            })
        }),
        happen: Box::new(move || {
            let _ = writer.write_all(b"x");
        }),
    };
    let nanosleep = Call {
        name: "nanosleep",
        call: Box::new(|| {
            with_errno(|| {
                let time = libc::timespec {
                    tv_sec: 60,
                    tv_nsec: 0,
                };
                let mut left = libc::timespec {
                    tv_sec: -1,
                    tv_nsec: 0,
                };
                // SAFETY: live values.
                let result = unsafe { libc::nanosleep(&raw const time, &raw mut left) };
                // The kernel counts its own slack as left, too.
                assert!((0..=60).contains(&left.tv_sec), "{} s left", left.tv_sec);
                i64::from(result)
            })
        }),
        happen: Box::new(|| panic!("it ends by the signal")),
    };
    // SAFETY: all zeros are a semaphore.
    let semaphore = Arc::new(Semaphore(UnsafeCell::new(unsafe { std::mem::zeroed() })));
    let posts = Arc::clone(&semaphore);
    let sem_wait = Call {
        name: "sem_wait",
        call: Box::new(move || {
            // SAFETY: alive.
            with_errno(|| i64::from(unsafe { libc::sem_wait(semaphore.0.get()) }))
        }),
        happen: Box::new(move || {
            // SAFETY: alive.
            unsafe { libc::sem_post(posts.0.get()) };
        }),
    };
    let word = blockers::Futex::default();
    let waits = word.clone();
    let futex = Call {
        name: "futex",
        call: Box::new(move || {
            with_errno(|| {
                // SAFETY: the word is alive; no timeout.
                unsafe {
                    libc::syscall(
                        libc::SYS_futex,
                        waits.0.as_ptr(),
                        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                        0,
                        std::ptr::null::<libc::timespec>(),
                    )
                }
            })
        }),
        happen: Box::new(move || word.set()),
    };
    vec![recv, read, poll, nanosleep, sem_wait, futex]
}

/// Makes a call on a thread that `start` starts, sends it one signal while it sleeps, and returns
/// the result of the call.
fn interrupted(
    call: Call,
    signal: i32,
    start: impl FnOnce(Box<dyn FnOnce() + Send>),
) -> (i64, i32) {
    let (tid, (sender, receiver)) = (Tid::default(), mpsc::channel());
    let (tells, sleeps) = (tid.clone(), call.call);
    start(Box::new(move || {
        tells.tell();
        sender.send(sleeps()).expect("somebody waits");
    }));
    eventually("the thread sleeps", || tid.asleep());
    let handled = signals::handled(signal);
    tid.send(signal);
    eventually("the signal is handled", || {
        signals::handled(signal) > handled
    });
    // It has failed, or it sleeps again.
    let mut result = None;
    eventually("the call has failed or goes on", || {
        result = receiver.try_recv().ok();
        result.is_some() || tid.asleep()
    });
    // Another look, because it may have failed, and sleep for the slot.
    result.unwrap_or_else(|| {
        receiver
            .recv_timeout(Duration::from_millis(100))
            .unwrap_or_else(|_| {
                (call.happen)();
                receiver.recv().expect("the call ends")
            })
    })
}

/// What a call that is interrupted returns is what it returns without a scheduler: on a worker that
/// is alone, and on one whose slot another task has taken meanwhile.
#[test]
fn interrupted_calls_fail_or_go_on_as_without_a_scheduler() {
    isolated(120, || {
        for flags in [0, libc::SA_RESTART] {
            let signal = signals::unused();
            signals::count(signal, flags);
            let names: Vec<_> = calls().into_iter().map(|call| call.name).collect();
            for (index, name) in names.into_iter().enumerate() {
                let call = || calls().swap_remove(index);
                let expected = interrupted(call(), signal, |body| {
                    thread::spawn(body);
                });
                for (busy, servers) in [(false, 1), (true, 1), (true, 2)] {
                    let runtime = runtime_with(servers);
                    let stop = Arc::new(AtomicBool::new(false));
                    let seen = interrupted(call(), signal, |body| {
                        let (handle, stopped) = (runtime.handle().clone(), Arc::clone(&stop));
                        runtime.spawn_blocking(move || {
                            for _ in 0..if busy { 3 } else { 0 } {
                                let stopped = Arc::clone(&stopped);
                                handle.spawn_blocking(move || {
                                    while !stopped.load(SeqCst) {
                                        yield_cpu();
                                        // Others come to the slot.
                                        umcg::thread::yield_now();
                                    }
                                });
                            }
                            body();
                        });
                    });
                    stop.store(true, SeqCst);
                    assert_eq!(
                        seen, expected,
                        "{name}, flags {flags}, busy {busy}, {servers} servers"
                    );
                }
            }
        }
    });
}
