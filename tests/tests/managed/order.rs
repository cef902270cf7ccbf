//! In which order workers go on that come back from calls.
//!
//! One server, so there is one order. A task holds the slot while the others come back: it
//! computes, and lets the kernel run other threads of its CPU. Its provider has no time slices
//! ([`Unsliced`]), so nobody takes the slot from it. The thread of the test, which is no worker,
//! ends the calls of the others one after the other, and waits each time until the worker has
//! queued up. A worker may still be judged wrongly in between, so an attempt may fail; then there
//! is another one.

umcg::managed_calls!();

#[cfg(feature = "asan")]
mod asan;

// The test program `managed` uses the rest of it.
#[allow(dead_code)]
mod support;

use std::{
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, JoinHandle, Runtime};
use umcg_tests::{Unsliced, cpu, eventually, isolated, runtime::compute, watchdog, wrong_verdicts};

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

/// How long a worker may take to have its turn.
const LIMIT: Duration = Duration::from_secs(20);

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

/// A runtime with one server and without time slices.
fn one_server() -> (Arc<Unsliced>, Runtime) {
    let provider = Unsliced::new();
    let runtime = Builder::new()
        .servers(1)
        .with_provider(provider.clone())
        .build()
        .expect("a runtime");
    (provider, runtime)
}

/// The sleepers of one attempt, and how many of them have gone on.
struct Scene {
    provider: Arc<Unsliced>,
    runtime: Runtime,
    count: Arc<AtomicU32>,
}

impl Scene {
    /// `None`: nothing holds workers up when they come back, or wrong verdicts do.
    fn new() -> Option<Self> {
        let (provider, runtime) = one_server();
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
            provider,
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

    /// Like [`reader`](Self::reader), but the worker sleeps in `poll`.
    fn poller(&self) -> (Sleeper, UnixStream) {
        let (here, there) = UnixStream::pair().expect("a socket pair");
        let poller = self.sleeper(move || {
            let mut entry = libc::pollfd {
                fd: here.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid entry.
            assert_eq!(unsafe { libc::poll(&raw mut entry, 1, -1) }, 1);
            here
        });
        (poller, there)
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

/// Workers that hand the slot off to each other all the time do not keep it from one that has come
/// back from a call. Nobody preempts them here, and the server sleeps: only their own turns count.
#[test]
fn workers_that_wake_each_other_do_not_starve_those_that_come_back() {
    let _alone = alone();
    isolated(60, || {
        const SLEEPS: u32 = 20;
        let (_, runtime) = one_server();
        if !managed(&runtime) {
            return;
        }
        let stop = Arc::new(AtomicBool::new(false));
        // Whenever one of the two gives its slot up, it has woken the other one just before.
        let pair = {
            let stop = Arc::clone(&stop);
            runtime.spawn_blocking(move || {
                let (first, stopped) = (umcg::thread::current(), Arc::clone(&stop));
                let second = umcg::thread::spawn(move || {
                    while !stopped.load(SeqCst) {
                        first.unpark();
                        umcg::thread::park();
                    }
                    first.unpark();
                });
                while !stop.load(SeqCst) {
                    second.thread().unpark();
                    umcg::thread::park();
                }
                second.thread().unpark();
                second.join().expect("the other one");
            })
        };
        let slept = Arc::new(AtomicU32::new(0));
        let sleeper = {
            let (slept, stop) = (Arc::clone(&slept), Arc::clone(&stop));
            runtime.spawn_blocking(move || {
                while slept.load(SeqCst) < SLEEPS && !stop.load(SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                    slept.fetch_add(1, SeqCst);
                }
            })
        };
        let in_time = watchdog::poll(LIMIT, || sleeper.is_finished().then_some(()));
        stop.store(true, SeqCst);
        for task in [pair, sleeper] {
            task.join().expect("it ends");
        }
        let slept = slept.load(SeqCst);
        assert!(in_time.is_some(), "it went on {slept} times in {LIMIT:?}");
    });
}

/// A task that waits, and what wakes it.
type Woken = (Sleeper, Box<dyn FnOnce()>);

/// A worker that comes back, and 40 others that are woken after it: it goes on as number `latest`
/// at the latest.
fn has_its_turn(latest: u32, returns: impl Fn(&Scene) -> Woken, others: impl Fn(&Scene) -> Woken) {
    let Some(scene) = Scene::new() else { return };
    for attempt in attempts() {
        scene.count.store(0, SeqCst);
        let (waiters, wakes): (Vec<_>, Vec<_>) = (0..40).map(|_| others(&scene)).unzip();
        let (one, wake) = returns(&scene);
        let (holder, end) = scene.holder();
        one.after(&scene, wake);
        for (waiter, wake) in waiters.iter().zip(wakes) {
            waiter.after(&scene, wake);
        }
        // From here on the server has those in its list that it has to pick.
        scene.provider.wake_servers();
        let together = waiters
            .iter()
            .chain([&one])
            .all(|sleeper| !sleeper.went_on());
        end.store(true, SeqCst);
        holder.join().expect("it ends");
        for waiter in waiters {
            waiter.task.join().expect("it ends");
        }
        one.task.join().expect("it ends");
        let position = one.position.load(SeqCst);
        if together {
            println!("attempt {attempt}: it went on as number {position}");
            assert!(position <= latest, "it was number {position}");
            return;
        }
    }
    panic!("never did all of them wait at the same time");
}

/// Waits for a byte.
fn from_io(scene: &Scene) -> Woken {
    let (reader, mut socket) = scene.reader();
    let wake = move || {
        socket.write_all(b"x").expect("write");
        // The reader sees the byte, and not the end, if it looks late.
        std::mem::forget(socket);
    };
    (reader, Box::new(wake))
}

/// Waits for a futex.
fn from_futex(scene: &Scene) -> Woken {
    let (sender, receiver) = mpsc::channel();
    let waiter = scene.sleeper(move || receiver.recv().expect("a message"));
    (waiter, Box::new(move || sender.send(()).expect("it waits")))
}

/// Waits to be unparked.
fn from_park(scene: &Scene) -> Woken {
    let (tells, told) = mpsc::channel();
    let waiter = scene.sleeper(move || {
        tells.send(umcg::thread::current()).expect("the test waits");
        umcg::thread::park();
    });
    let thread = told.recv().expect("it parks");
    (waiter, Box::new(move || thread.unpark()))
}

/// Workers that were unparked are picked by the server one after the other.
#[test]
fn many_unparked_workers_do_not_starve_one_that_comes_back_from_io() {
    let _alone = alone();
    isolated(120, || has_its_turn(9, from_io, from_park));
}

/// Workers that waited for a futex get the slot from each other, past the server.
#[test]
fn many_workers_woken_from_a_futex_do_not_starve_one_that_comes_back_from_io() {
    let _alone = alone();
    isolated(120, || has_its_turn(9, from_io, from_futex));
}

/// Both kinds come before I/O, and they take turns.
#[test]
fn many_unparked_workers_do_not_starve_one_that_was_woken_from_a_futex() {
    let _alone = alone();
    isolated(120, || has_its_turn(3, from_futex, from_park));
}

/// A worker that comes back says that it may take a slot that is free only if nobody waits. What
/// is free at that moment is left to those that came earlier.
#[test]
fn a_worker_that_comes_back_takes_no_slot_past_those_that_wait() {
    let _alone = alone();
    isolated(120, || {
        let Some(scene) = Scene::new() else { return };
        for attempt in attempts() {
            scene.count.store(0, SeqCst);
            // `poll` is a sleep in the call, after which the worker has to ask for a slot.
            let pollers: Vec<_> = (0..2).map(|_| scene.poller()).collect();
            let (holder, end) = scene.holder();
            wake(&scene, &pollers[..1]);
            let waits = !pollers[0].0.went_on() && scene.waiting() > 0;
            scene.provider.listen_to(pollers[1].0.tid.get());
            wake(&scene, &pollers[1..]);
            eventually("the worker is asked", || scene.provider.answer().is_some());
            let together = waits && nobody_went_on(&pollers);
            end.store(true, SeqCst);
            holder.join().expect("it ends");
            order(pollers);
            if together {
                println!("attempt {attempt}");
                let takes = scene.provider.answer().expect("as above");
                assert!(!takes, "it would have overtaken the one that waits");
                return;
            }
        }
        panic!("never did one wait when the other came back");
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
        // In how many attempts the owner went on first, and in how many it waited with the others.
        // A slot that gets free at the wrong moment may let a worker go on that is held up.
        let (mut first, mut held_up) = (0, 0);
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
            let went_on = waiter.went_on();
            if nobody_went_on(&readers) {
                *(if went_on { &mut first } else { &mut held_up }) += 1;
            }
            end.store(true, SeqCst);
            holder.join().expect("it ends");
            waiter.task.join().expect("it ends");
            order(readers);
            if first + held_up == 9 {
                break;
            }
        }
        println!("{first} times first, {held_up} times held up");
        assert!(
            first > held_up,
            "{first} times first, {held_up} times held up"
        );
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
