//! In which order workers go on that come back from calls.
//!
//! One server, so there is one order. A task holds the slot while the others come back: it
//! computes, and lets the kernel run other threads of its CPU. The thread of the test, which is no
//! worker, ends the calls of the others one after the other, and waits each time until the worker
//! has queued up. That must be done before the slice of the task in the slot is over (5 ms), so an
//! attempt may fail; then there is another one.

umcg::managed_calls!();

// The test program `managed` uses the rest of it.
#[allow(dead_code)]
mod support;

use std::{
    io::Write,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{JoinHandle, Runtime};
use umcg_tests::{
    cpu, eventually, isolated,
    runtime::{compute, runtime_with},
    wrong_verdicts,
};

use self::support::{Tid, managed, receive, yield_cpu};

/// The numbers of the attempts, until their time is over.
fn attempts() -> impl Iterator<Item = u32> {
    let begun = Instant::now();
    (0..).take_while(move |_| begun.elapsed() < ATTEMPTS)
}

/// How many workers wait in `recv`.
const READERS: usize = 6;
/// How long a test makes attempts. On a CPU that another process keeps busy none may succeed.
const ATTEMPTS: Duration = Duration::from_secs(40);

/// These tests run one after the other: on a CPU that two of them share no attempt succeeds.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task that was blocked in a call, and writes down when it went on.
struct Sleeper {
    tid: Tid,
    /// 0: it sleeps or queues. Else it is the how-manieth that went on.
    position: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

/// The sleepers of one attempt, and how many of them have gone on.
struct Scene {
    runtime: Runtime,
    count: Arc<AtomicU32>,
}

impl Scene {
    /// `None`: nothing holds workers up when they come back, or wrong verdicts do.
    fn new() -> Option<Self> {
        let runtime = runtime_with(1);
        if !managed(&runtime) || wrong_verdicts() {
            return None;
        }
        // The thread of the test goes to another CPU than the workers', if there is one.
        let workers = runtime.metrics().servers()[0].cpu();
        let others: Vec<_> = cpu::affinity()
            .into_iter()
            .filter(|&cpu| Some(cpu) != workers)
            .collect();
        if !others.is_empty() {
            cpu::set_affinity(0, &others).expect("own CPUs");
        }
        Some(Self {
            runtime,
            count: Arc::default(),
        })
    }

    /// A task that makes `call`, and is about to sleep in it when this returns.
    fn sleeper<R>(&self, call: impl FnOnce() -> R + Send + 'static) -> Sleeper {
        let (tid, position) = (Tid::default(), Arc::new(AtomicU32::new(0)));
        let (tells, count, writes) = (tid.clone(), Arc::clone(&self.count), Arc::clone(&position));
        let task = self.runtime.spawn_blocking(move || {
            tells.tell();
            let result = call();
            writes.store(count.fetch_add(1, SeqCst) + 1, SeqCst);
            drop(result);
        });
        eventually("the worker sleeps in the call", || tid.asleep());
        Sleeper {
            tid,
            position,
            task,
        }
    }

    fn reader(&self) -> (Sleeper, UnixStream) {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        let reader = self.sleeper(move || {
            receive(&here).expect("a byte");
            here
        });
        (reader, there)
    }

    /// A task that holds the slot until the end.
    fn holder(&self) -> (JoinHandle<()>, Arc<AtomicBool>) {
        let end = Arc::new(AtomicBool::new(false));
        let (ends, begun) = (Arc::clone(&end), Arc::new(AtomicBool::new(false)));
        let begins = Arc::clone(&begun);
        let task = self.runtime.spawn_blocking(move || {
            // A worker that comes back takes `sched_yield` for a sleep if the one in the slot began
            // to run less than 0.5 ms ago.
            compute(Duration::from_millis(1));
            begins.store(true, SeqCst);
            while !ends.load(SeqCst) {
                yield_cpu();
            }
        });
        eventually("the task holds the slot", || begun.load(SeqCst));
        (task, end)
    }

    /// How many workers wait for the slot.
    fn waiting(&self) -> usize {
        self.runtime.metrics().workers().waiting()
    }
}

impl Sleeper {
    /// Makes what the worker waits for happen. Returns when the worker has gone on, or waits for
    /// the slot, or goes on to sleep because somebody else has to find out for it.
    fn after(&self, scene: &Scene, happen: impl FnOnce()) {
        let waited = scene.waiting();
        let before = self.tid.look();
        happen();
        // Whoever wakes a thread that sleeps in a call makes it runnable before the waking call
        // returns.
        if self.tid.look() == before {
            return;
        }
        eventually("the worker has come back", || {
            self.went_on() || (scene.waiting() > waited && self.tid.asleep())
        });
    }

    fn went_on(&self) -> bool {
        self.position.load(SeqCst) > 0
    }
}

/// Wakes the readers one after the other.
fn wake(scene: &Scene, readers: &[(Sleeper, UnixStream)]) {
    for (reader, mut socket) in readers.iter().map(|(reader, socket)| (reader, socket)) {
        reader.after(scene, || socket.write_all(b"x").expect("write"));
    }
}

fn nobody_went_on(readers: &[(Sleeper, UnixStream)]) -> bool {
    readers.iter().all(|(reader, _)| !reader.went_on())
}

/// In which order the readers went on.
fn order(readers: Vec<(Sleeper, UnixStream)>) -> Vec<u32> {
    let end = |(reader, _socket): (Sleeper, UnixStream)| {
        reader.task.join().expect("it ends");
        reader.position.load(SeqCst)
    };
    readers.into_iter().map(end).collect()
}

/// Those that come back from I/O go on in the order in which they came.
#[test]
fn workers_that_come_back_from_io_go_on_first_in_first_out() {
    let _alone = alone();
    isolated(120, || {
        let Some(scene) = Scene::new() else { return };
        for attempt in attempts() {
            scene.count.store(0, SeqCst);
            let readers: Vec<_> = (0..READERS).map(|_| scene.reader()).collect();
            let (holder, end) = scene.holder();
            wake(&scene, &readers);
            let together = nobody_went_on(&readers);
            end.store(true, SeqCst);
            holder.join().expect("it ends");
            let order = order(readers);
            assert!(order.is_sorted(), "they went on in this order: {order:?}");
            // An order of those that did not wait together says little.
            if together {
                println!("attempt {attempt}");
                return;
            }
        }
        panic!("never did all of them wait at the same time");
    });
}

/// A waiter for a lock of std that another thread has woken goes on before those that come back
/// from I/O: others may be waiting for what it holds next.
#[test]
fn a_woken_waiter_for_a_lock_goes_on_before_those_that_come_back_from_io() {
    let _alone = alone();
    isolated(120, || {
        static LOCK: Mutex<()> = Mutex::new(());
        let Some(scene) = Scene::new() else { return };
        for attempt in attempts() {
            scene.count.store(0, SeqCst);
            let held: MutexGuard<'_, ()> = LOCK.lock().expect("nobody panics with it");
            let waiter = scene.sleeper(|| drop(LOCK.lock().expect("nobody panics with it")));
            let readers: Vec<_> = (0..READERS).map(|_| scene.reader()).collect();
            let (holder, end) = scene.holder();
            wake(&scene, &readers);
            waiter.after(&scene, || drop(held));
            let together = nobody_went_on(&readers) && !waiter.went_on();
            end.store(true, SeqCst);
            holder.join().expect("it ends");
            waiter.task.join().expect("it ends");
            order(readers);
            if together {
                println!("attempt {attempt}");
                assert_eq!(waiter.position.load(SeqCst), 1, "the waiter was not first");
                return;
            }
        }
        panic!("never did all of them wait at the same time");
    });
}

/// A worker that was woken for a lock may hold it when it comes back from I/O, and goes on before
/// others then.
#[test]
fn a_worker_that_may_hold_a_lock_comes_back_from_io_before_others() {
    let _alone = alone();
    isolated(120, || {
        static LOCK: Mutex<()> = Mutex::new(());
        let Some(scene) = Scene::new() else { return };
        for attempt in attempts() {
            scene.count.store(0, SeqCst);
            let held: MutexGuard<'_, ()> = LOCK.lock().expect("nobody panics with it");
            let (here, mut there) = UnixStream::pair().expect("a socket pair");
            let has_lock = Arc::new(AtomicBool::new(false));
            let tells = Arc::clone(&has_lock);
            let owner = scene.sleeper(move || {
                let lock = LOCK.lock().expect("nobody panics with it");
                tells.store(true, SeqCst);
                receive(&here).expect("a byte");
                drop(lock);
            });
            drop(held);
            eventually("the owner waits for a byte", || {
                has_lock.load(SeqCst) && owner.tid.asleep()
            });
            let readers: Vec<_> = (0..READERS).map(|_| scene.reader()).collect();
            let (holder, end) = scene.holder();
            wake(&scene, &readers);
            owner.after(&scene, || there.write_all(b"x").expect("write"));
            let together = nobody_went_on(&readers) && !owner.went_on();
            end.store(true, SeqCst);
            holder.join().expect("it ends");
            owner.task.join().expect("it ends");
            order(readers);
            if together {
                println!("attempt {attempt}");
                assert_eq!(owner.position.load(SeqCst), 1, "the owner was not first");
                return;
            }
        }
        panic!("never did all of them wait at the same time");
    });
}

/// But workers that wake each other all the time do not hold up one that comes back from a call.
#[test]
fn workers_that_wake_each_other_do_not_starve_those_that_come_back() {
    isolated(60, || {
        let runtime = runtime_with(1);
        if !managed(&runtime) {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        // Four pairs, so that there is always a woken worker in the queue.
        let pairs: Vec<_> = (0..4)
            .flat_map(|_| {
                let (to_first, first) = mpsc::channel();
                let (to_second, second) = mpsc::channel();
                to_first.send(()).expect("the receiver is here");
                let stopped = Arc::clone(&stop);
                [
                    runtime.spawn_blocking(move || {
                        while first.recv().is_ok() && to_second.send(()).is_ok() {}
                    }),
                    runtime.spawn_blocking(move || {
                        while !stopped.load(SeqCst)
                            && second.recv().is_ok()
                            && to_first.send(()).is_ok()
                        {}
                    }),
                ]
            })
            .collect();
        let begun = Instant::now();
        let sleeper = runtime.spawn_blocking(|| {
            for _ in 0..50 {
                thread::sleep(Duration::from_millis(1));
            }
        });
        sleeper.join().expect("it sleeps");
        let took = begun.elapsed();
        println!("50 sleeps took {took:?}");
        stop.store(true, SeqCst);
        for task in pairs {
            task.join().expect("it ends");
        }
        // It waits for eight hand-overs each time, of some 10 us.
        assert!(
            took < Duration::from_secs(2),
            "50 sleeps of 1 ms took {took:?}"
        );
    });
}

/// A worker that comes back with a C lock, which it has taken already, runs on although others
/// wait for the slot: held up, it would hold the lock meanwhile.
#[test]
fn a_worker_that_comes_back_with_a_c_lock_is_not_held_up() {
    let _alone = alone();
    isolated(120, || {
        static LOCK: CLock = CLock(std::cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        let Some(scene) = Scene::new() else { return };
        for attempt in attempts() {
            scene.count.store(0, SeqCst);
            LOCK.lock();
            // While nothing waits for the slot, and while something does: then the block is
            // announced.
            let behind = (attempt % 2 == 0).then(|| scene.reader());
            let waiter = scene.sleeper(|| {
                LOCK.lock();
                LOCK.unlock();
            });
            let readers: Vec<_> = (1..READERS).map(|_| scene.reader()).chain(behind).collect();
            let (holder, end) = scene.holder();
            wake(&scene, &readers);
            // It is never seen to wait for the slot.
            waiter.after(&scene, || LOCK.unlock());
            let first = waiter.went_on() && nobody_went_on(&readers);
            end.store(true, SeqCst);
            holder.join().expect("it ends");
            waiter.task.join().expect("it ends");
            order(readers);
            if first {
                println!("attempt {attempt}");
                return;
            }
        }
        panic!("the owner of the lock never went on before those that waited for the slot");
    });
}

/// A lock of pthread, as C has it.
struct CLock(std::cell::UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: pthread's mutex is for all threads.
unsafe impl Sync for CLock {}

impl CLock {
    fn lock(&self) {
        // SAFETY: an initialized mutex that never moves.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.0.get()) }, 0);
    }

    fn unlock(&self) {
        // SAFETY: as above, and the calling thread has locked it.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.0.get()) }, 0);
    }
}
