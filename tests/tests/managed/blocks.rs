//! A task that sleeps in a call gives its slot to another task, and the counters say who saw it.

use std::{
    hint,
    os::fd::AsRawFd,
    panic::{self, AssertUnwindSafe},
    ptr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::{Handle, Runtime};
use umcg_tests::{
    Subprocess,
    blockers::{self, Blocker},
    cpu, eventually, isolated,
    runtime::runtime_with,
    wrong_verdicts,
};

use crate::support::{Blocks, Tid, managed};

/// How often each call is made.
const ROUNDS: u64 = 20;

/// The blockers whose sleep the worker announces. The others may sleep or not, which nobody can
/// tell beforehand, so somebody has to notice.
const ANNOUNCED: [&str; 5] = ["futex", "poll", "epoll_wait", "socket receive", "flock"];

/// Calls that end by something else than a blocker of `umcg_tests` does. Each is announced.
fn more() -> Vec<Blocker> {
    vec![
        channel(),
        condition(),
        pthread_mutex(),
        pthread_condition(),
        semaphore(),
        child(),
        joined_thread(),
    ]
}

fn new(
    name: &'static str,
    call: impl FnOnce() -> i64 + Send + 'static,
    release: impl FnOnce() + Send + 'static,
) -> Blocker {
    Blocker {
        name,
        call: Box::new(call),
        release: Box::new(release),
        expect: 7,
    }
}

fn channel() -> Blocker {
    let (sender, receiver) = mpsc::channel();
    new(
        "mpsc",
        move || receiver.recv().expect("a message"),
        move || sender.send(7).expect("the receiver waits"),
    )
}

fn condition() -> Blocker {
    let pair = Arc::new((Mutex::new(0), Condvar::new()));
    let other = Arc::clone(&pair);
    new(
        "condvar",
        move || {
            let mut value = pair.0.lock().expect("the lock");
            while *value == 0 {
                value = pair.1.wait(value).expect("the lock");
            }
            *value
        },
        move || {
            *other.0.lock().expect("the lock") = 7;
            other.1.notify_one();
        },
    )
}

/// Pthread's objects, as a C library has them.
struct Pthread {
    mutex: libc::pthread_mutex_t,
    condition: libc::pthread_cond_t,
    semaphore: libc::sem_t,
}

/// They are made to be shared by threads, and are never freed.
#[derive(Clone, Copy)]
struct Shared(*mut Pthread);

// SAFETY: see above.
unsafe impl Send for Shared {}

impl Shared {
    fn new() -> Self {
        // SAFETY: all zeros are a semaphore to be initialized, which follows.
        let mut semaphore: libc::sem_t = unsafe { std::mem::zeroed() };
        // SAFETY: it is moved before its first use, which Linux allows.
        unsafe { libc::sem_init(&raw mut semaphore, 0, 0) };
        Self(Box::into_raw(Box::new(Pthread {
            mutex: libc::PTHREAD_MUTEX_INITIALIZER,
            condition: libc::PTHREAD_COND_INITIALIZER,
            semaphore,
        })))
    }

    fn mutex(self) -> *mut libc::pthread_mutex_t {
        // SAFETY: never freed.
        unsafe { &raw mut (*self.0).mutex }
    }

    fn condition(self) -> *mut libc::pthread_cond_t {
        // SAFETY: never freed.
        unsafe { &raw mut (*self.0).condition }
    }

    fn semaphore(self) -> *mut libc::sem_t {
        // SAFETY: never freed.
        unsafe { &raw mut (*self.0).semaphore }
    }
}

fn pthread_mutex() -> Blocker {
    let shared = Shared::new();
    let (release, released) = mpsc::channel::<()>();
    let (locked, is_locked) = mpsc::channel();
    let holder = thread::spawn(move || {
        // SAFETY: an initialized mutex, which this thread locks and unlocks.
        unsafe { libc::pthread_mutex_lock(shared.mutex()) };
        locked.send(()).expect("the test waits for this");
        let _ = released.recv();
        // SAFETY: as above.
        unsafe { libc::pthread_mutex_unlock(shared.mutex()) };
    });
    is_locked.recv().expect("the lock is taken");
    new(
        "pthread mutex",
        // SAFETY: an initialized mutex, which this thread locks and unlocks.
        move || unsafe {
            7 + i64::from(libc::pthread_mutex_lock(shared.mutex()))
                + i64::from(libc::pthread_mutex_unlock(shared.mutex()))
        },
        move || {
            drop(release);
            holder.join().expect("the holder of the lock");
        },
    )
}

fn pthread_condition() -> Blocker {
    let shared = Shared::new();
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    new(
        "pthread condition",
        move || {
            // SAFETY: initialized objects, and the mutex is locked around the wait.
            unsafe {
                libc::pthread_mutex_lock(shared.mutex());
                while !flag.load(SeqCst) {
                    libc::pthread_cond_wait(shared.condition(), shared.mutex());
                }
                libc::pthread_mutex_unlock(shared.mutex());
            }
            7
        },
        move || {
            // SAFETY: as above.
            unsafe {
                libc::pthread_mutex_lock(shared.mutex());
                set.store(true, SeqCst);
                libc::pthread_cond_signal(shared.condition());
                libc::pthread_mutex_unlock(shared.mutex());
            }
        },
    )
}

fn semaphore() -> Blocker {
    let shared = Shared::new();
    new(
        "semaphore",
        // SAFETY: an initialized semaphore.
        move || 7 + i64::from(unsafe { libc::sem_wait(shared.semaphore()) }),
        move || {
            // SAFETY: as above.
            unsafe { libc::sem_post(shared.semaphore()) };
        },
    )
}

/// `waitpid`, by std.
fn child() -> Blocker {
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("cat");
    let stdin = child.stdin.take();
    new(
        "child",
        move || {
            assert!(child.wait().expect("its status").success());
            7
        },
        move || drop(stdin),
    )
}

fn joined_thread() -> Blocker {
    let (release, released) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _ = released.recv();
        7
    });
    new(
        "pthread_join",
        move || thread.join().expect("its value"),
        move || drop(release),
    )
}

/// One task makes the call, and a task that is queued behind it ends it. Returns which blocks were
/// seen meanwhile. With one server nothing but the slot of the first task can run the second one.
fn round(runtime: &Runtime, blocker: Blocker) -> Blocks {
    let before = Blocks::of(&runtime.metrics());
    let name = blocker.name;
    let task = runtime.spawn_blocking(move || {
        let releases = umcg::spawn_blocking(blocker.release);
        let result = (blocker.call)();
        releases.join().expect("it ends the sleep");
        result
    });
    assert_eq!(task.join().expect(name), blocker.expect, "{name}");
    Blocks::of(&runtime.metrics()).since(before)
}

#[test]
fn a_call_that_sleeps_gives_the_slot_to_the_task_that_ends_it() {
    isolated(120, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let on = managed(&runtime);
            let names: Vec<_> = blockers::all()
                .iter()
                .chain(&more())
                .map(|b| b.name)
                .collect();
            for name in names {
                let (mut announced, mut noticed) = (0, 0);
                for _ in 0..ROUNDS {
                    let blocker = blockers::all()
                        .into_iter()
                        .chain(more())
                        .find(|blocker| blocker.name == name);
                    let seen = round(&runtime, blocker.expect("as above"));
                    announced += u64::from(seen.announced > 0);
                    noticed += u64::from(seen.noticed > 0);
                }
                println!("{servers} servers, {name}: announced {announced}, noticed {noticed}");
                // With more servers another one may run the second task, and a wrong verdict comes
                // before an announcement.
                if servers > 1 || wrong_verdicts() {
                    continue;
                }
                let is_announced = on
                    && (ANNOUNCED.contains(&name) || more().iter().any(|more| more.name == name));
                if is_announced {
                    // A worker may also wait for a socket in its gate, which gives the slot away
                    // without an announcement, and leaves nothing to notice.
                    let parked = name == "socket receive" && noticed <= ROUNDS / 2;
                    assert!(
                        announced >= ROUNDS / 2 || parked,
                        "{name}: announced {announced} times, noticed {noticed} times"
                    );
                } else if name != "mutex" {
                    assert!(noticed >= ROUNDS / 2, "{name}: noticed {noticed} times");
                }
                if !on {
                    assert_eq!(announced, 0, "{name}");
                }
            }
        }
    });
}

/// What a worker that sleeps for a while has given away: the task behind it runs at once, and not
/// after the sleep.
#[test]
fn a_sleep_is_announced_and_the_queued_task_runs_in_the_meantime() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let before = Blocks::of(&runtime.metrics());
        for _ in 0..ROUNDS {
            let task = runtime.spawn_blocking(|| {
                let ran = Arc::new(AtomicBool::new(false));
                let sets = Arc::clone(&ran);
                let other = umcg::spawn_blocking(move || sets.store(true, SeqCst));
                thread::sleep(Duration::from_millis(20));
                let in_time = ran.load(SeqCst);
                other.join().expect("it sets a flag");
                in_time
            });
            assert!(task.join().expect("it sleeps"), "the other task waited");
        }
        let seen = Blocks::of(&runtime.metrics()).since(before);
        if managed(&runtime) {
            assert!(seen.announced >= ROUNDS / 2 || wrong_verdicts(), "{seen:?}");
        } else {
            assert_eq!(seen.announced, 0);
        }
    });
}

/// Code that no definition reaches: the raw system call is not seen, and the announcement is.
#[test]
fn block_in_place_gives_the_slot_away_at_once() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let before = runtime.metrics().provider().blocks_announced;
        for _ in 0..ROUNDS {
            let task = runtime.spawn_blocking(|| {
                let (sender, receiver) = std::os::unix::net::UnixStream::pair().expect("a pair");
                let other = umcg::spawn_blocking(move || {
                    // SAFETY: a live byte.
                    unsafe { libc::syscall(libc::SYS_write, sender.as_raw_fd(), b"x".as_ptr(), 1) }
                });
                // Waits for what the queued task sends, and then for that task.
                let received = umcg::block_in_place(|| {
                    let mut byte = 0_u8;
                    let into = &raw mut byte;
                    // SAFETY: a live byte.
                    unsafe { libc::syscall(libc::SYS_read, receiver.as_raw_fd(), into, 1) }
                });
                (received, other.join().expect("it writes"))
            });
            assert_eq!(task.join().expect("it reads"), (1, 1));
        }
        let announced = runtime.metrics().provider().blocks_announced - before;
        let emulated = runtime.metrics().provider_kind() == umcg_sys::ProviderKind::Emulated;
        if emulated && !wrong_verdicts() {
            assert!(announced >= ROUNDS / 2, "{announced}");
        }
    });
}

/// The longest block of the metrics is at least as long as a sleep, also if the worker handed its
/// slot to another one and nobody else looked at the sleep.
#[test]
fn a_block_that_is_handed_off_is_measured() {
    isolated(60, || {
        const SLEEP: Duration = Duration::from_millis(20);
        let runtime = runtime_with(1);
        if !managed(&runtime) || wrong_verdicts() {
            return;
        }
        for _ in 0..ROUNDS {
            let task = runtime.spawn_blocking(|| {
                let metrics = || Handle::current().metrics();
                let other = umcg::thread::spawn(umcg::thread::park);
                while metrics().workers().blocked() == 0 {
                    umcg::thread::yield_now();
                }
                // It has parked, and waits for the slot from here on.
                other.thread().unpark();
                let before = metrics().provider().blocks_announced;
                // `poll` sleeps in the call, and never in the worker's gate.
                // SAFETY: no entries.
                unsafe { libc::poll(ptr::null_mut(), 0, SLEEP.as_millis() as i32) };
                let seen = metrics().provider().blocks_announced - before;
                other.join().expect("it was unparked");
                seen
            });
            // Another thread may have seen the sleep first. Then there is another round.
            if task.join().expect("it sleeps") > 0 {
                let longest = runtime.metrics().longest_block();
                assert!(longest >= SLEEP, "{longest:?}");
                return;
            }
        }
        panic!("no sleep was announced");
    });
}

/// A block while nothing else could run costs nothing: no slot changes hands for it.
#[test]
fn a_block_is_not_announced_while_nothing_waits_for_the_slot() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let before = Blocks::of(&runtime.metrics());
        let task = runtime.spawn_blocking(|| {
            for _ in 0..50 {
                thread::sleep(Duration::from_micros(200));
            }
        });
        task.join().expect("it sleeps");
        let seen = Blocks::of(&runtime.metrics()).since(before);
        assert_eq!(seen.announced, 0, "{seen:?}");
    });
}

/// A worker that sleeps in its slot, because nothing else would run, loses the slot to work that is
/// queued later: whoever queues it retakes the slot, and nobody has to notice the sleep. Beside a
/// thread that keeps the CPU busy, since on an idle CPU the sentinel frees the slot beforehand.
#[test]
fn work_that_is_queued_later_retakes_the_slot_of_a_worker_that_sleeps() {
    isolated(60, || {
        let runtime = runtime_with(1);
        if !managed(&runtime) || wrong_verdicts() {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, cpu) = (Arc::clone(&stop), runtime.metrics().servers()[0].cpu());
        let neighbour = thread::spawn(move || {
            if let Some(cpu) = cpu {
                cpu::set_affinity(0, &[cpu]).expect("own CPUs");
            }
            while !stopped.load(SeqCst) {
                hint::spin_loop();
            }
        });
        // The provider may have noticed the sleep first, in some rounds.
        let retaken = (0..ROUNDS).any(|_| {
            let before = Blocks::of(&runtime.metrics());
            let tid = Tid::default();
            let (tells, (wakes, sleeps)) = (tid.clone(), mpsc::channel());
            let sleeper = runtime.spawn_blocking(move || {
                tells.tell();
                sleeps.recv().expect("the sender waits");
            });
            eventually("the worker sleeps in the call", || tid.asleep());
            let other = runtime.spawn_blocking(|| 7);
            assert_eq!(other.join().expect("it runs"), 7);
            let seen = Blocks::of(&runtime.metrics()).since(before);
            wakes.send(()).expect("the receiver waits");
            sleeper.join().expect("it ends");
            seen.announced == 1 && seen.noticed == 0
        });
        stop.store(true, SeqCst);
        neighbour.join().expect("it spins");
        assert!(retaken, "each sleep had to be noticed by the provider");
    });
}

/// A panic ends the management of the task that panicked and of no other, and one that is caught
/// does not end it.
#[test]
fn calls_are_managed_after_a_panic_that_was_caught_and_in_the_task_after_one() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let lock = Arc::new(Mutex::new(0_u32));
        let count = Arc::new(AtomicU32::new(0));
        for _ in 0..ROUNDS {
            let (lock, counts) = (Arc::clone(&lock), Arc::clone(&count));
            let failed = runtime.spawn_blocking(move || {
                let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                    let _held = lock.lock().unwrap_or_else(|poison| poison.into_inner());
                    thread::sleep(Duration::from_millis(1));
                    panic::resume_unwind(Box::new("first"));
                }));
                assert!(caught.is_err());
                let other = umcg::spawn_blocking(move || counts.fetch_add(1, SeqCst));
                thread::sleep(Duration::from_millis(2));
                other.join().expect("it counts");
                panic::resume_unwind(Box::new("second"));
            });
            assert!(failed.join().expect_err("it panics").is_panic());
        }
        assert_eq!(u64::from(count.load(SeqCst)), ROUNDS);
        let seen = Blocks::of(&runtime.metrics());
        if managed(&runtime) && !wrong_verdicts() {
            assert!(seen.announced >= ROUNDS / 2, "{seen:?}");
        }
    });
}

/// `UMCG_MANAGED_CALLS=0` and the builder turn managed calls off, and the description says so.
#[test]
fn managed_calls_are_turned_off_by_the_environment_and_by_the_builder() {
    Subprocess::new(60)
        .setup(|command| {
            // The runtime that is built here has the default number of servers.
            command
                .env("UMCG_MANAGED_CALLS", "0")
                .env_remove("UMCG_SERVERS");
        })
        .run(|| {
            let runtime = runtime_with(1);
            assert!(!managed(&runtime));
            let on = umcg::Builder::new()
                .managed_calls(true)
                .build()
                .expect("a runtime");
            // Nothing but the builder's word counts then.
            let emulated = on.metrics().provider_kind() == umcg_sys::ProviderKind::Emulated;
            assert_eq!(managed(&on), emulated);
            let off = umcg::Builder::new()
                .managed_calls(false)
                .build()
                .expect("a runtime");
            assert!(!managed(&off));
            for runtime in [&runtime, &off] {
                let blocker = channel();
                let seen = round(runtime, blocker);
                assert_eq!(seen.announced, 0);
            }
        });
}

/// `pthread_mutex_trylock` and the like come first, so what does not sleep is not announced.
#[test]
fn calls_that_do_not_sleep_are_not_announced() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let before = Blocks::of(&runtime.metrics());
        let task = runtime.spawn_blocking(|| {
            let shared = Shared::new();
            // Somebody waits for the slot all the time.
            let other = umcg::spawn_blocking(|| ());
            let (a, mut b) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
            let lock = Mutex::new(0);
            for _ in 0..1000 {
                use std::io::Write;
                b.write_all(b"x").expect("write");
                crate::support::receive(&a).expect("a byte");
                *lock.lock().expect("the lock") += 1;
                // SAFETY: an initialized mutex and semaphore; no descriptors.
                unsafe {
                    libc::pthread_mutex_lock(shared.mutex());
                    libc::pthread_mutex_unlock(shared.mutex());
                    libc::sem_post(shared.semaphore());
                    libc::sem_wait(shared.semaphore());
                    libc::poll(ptr::null_mut(), 0, 0);
                }
            }
            other.join().expect("it does nothing");
        });
        task.join().expect("it does not sleep");
        let seen = Blocks::of(&runtime.metrics()).since(before);
        // `join` at the end is a wait of the runtime's own, which is not announced either.
        assert!(seen.announced <= 1, "{seen:?}");
    });
}
