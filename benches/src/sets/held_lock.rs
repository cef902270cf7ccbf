//! A lock that is held across a block while many other workers are runnable (target S9).
//!
//! Some tasks, the *clients*, take one lock again and again, and hold it while they sleep. Beside
//! them many more tasks compute and sleep in turns. They ask for more than the CPUs can do, so
//! whoever comes back from a sleep finds others that wait for the CPU. If the owner of the lock has
//! to wait behind all of them, everybody who wants the lock waits for as long.
//!
//! The wall time of a row is the time from one release of the lock to the next. Its latencies are
//! the times that clients waited for the lock. The computations of the others are a number of steps
//! and not a span of time, because a thread that is preempted during a span has less to compute.

use std::{
    cell::UnsafeCell,
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::work::Stop;
use crate::{
    clock::Clock,
    cpu,
    runner::{Effort, Group},
    system::{BareUmcg, StdThreads, System, Systems, Umcg},
};

/// The number of tasks that take the lock.
const CLIENTS: usize = 16;
/// For how long a client holds it.
const HOLD: Duration = Duration::from_micros(300);
/// The number of tasks beside them.
const OTHERS: usize = 200;
/// For how long each of them computes in a turn.
const COMPUTE: Duration = Duration::from_micros(20);
/// For how long each of them sleeps in a turn, and a client after it has released the lock.
const PAUSE: Duration = Duration::from_micros(200);

/// A group for each kind of lock.
pub(super) fn groups(systems: &Systems, effort: &Effort) -> Vec<Group<'static>> {
    vec![
        group::<Mutex<()>>("lock_held_std", "a std Mutex", systems, effort),
        group::<parking_lot::Mutex<()>>(
            "lock_held_parking_lot",
            "a Mutex of parking_lot",
            systems,
            effort,
        ),
        group::<PthreadMutex>("lock_held_pthread", "a mutex of pthread", systems, effort),
    ]
}

fn group<L: Lock>(
    id: &'static str,
    what: &str,
    systems: &Systems,
    effort: &Effort,
) -> Group<'static> {
    let count = effort.pick(400, 100);
    let title = format!(
        "{CLIENTS} tasks hold {what} for 300 us in turns, beside {OTHERS} that compute for 20 us \
         and sleep for 200 us; latency: the wait for the lock"
    );
    let mut group = Group::new(id, title, "acquisition", count as u64);
    let (umcg, bare, std) = (systems.umcg, systems.bare_umcg, systems.std_threads);
    // The same CPUs for all, even if there are fewer servers than CPUs.
    let cpus = umcg.cpus();
    group.cell(Umcg::NAME, Umcg::THREADS, move |clock| {
        contend::<_, L>(umcg, &[], count, clock);
    });
    group.cell(BareUmcg::NAME, BareUmcg::THREADS, move |clock| {
        contend::<_, L>(bare, &[], count, clock);
    });
    group.cell(StdThreads::NAME, StdThreads::THREADS, move |clock| {
        contend::<_, L>(std, &cpus, count, clock);
    });
    group
}

/// The clients take the lock `count` times between them. The threads of all tasks run on `cpus`, or
/// where the system puts them if there are none.
fn contend<S: System, L: Lock>(
    system: &'static S,
    cpus: &[usize],
    count: usize,
    clock: &mut Clock,
) {
    let steps = steps_in(COMPUTE);
    let (stop, begun) = (Stop::default(), Arc::new(AtomicUsize::new(0)));
    let begin = Instant::now();
    let others: Vec<_> = (0..OTHERS)
        .map(|_| {
            let (stop, begun, cpus) = (stop.clone(), Arc::clone(&begun), cpus.to_vec());
            system.spawn_blocking(move || {
                cpu::pin(&cpus);
                begun.fetch_add(1, Relaxed);
                let mut turns = 0_u64;
                while !stop.is_set() {
                    compute(steps);
                    thread::sleep(PAUSE);
                    turns += 1;
                }
                turns
            })
        })
        .collect();
    while begun.load(Relaxed) < OTHERS {
        thread::sleep(Duration::from_millis(1));
    }
    let shared = Arc::new(Shared {
        lock: L::default(),
        left: AtomicUsize::new(count),
        start: Barrier::new(CLIENTS),
    });
    let clients = clock.time(|| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (shared, cpus) = (Arc::clone(&shared), cpus.to_vec());
                system.spawn_blocking(move || {
                    cpu::pin(&cpus);
                    shared.client(count)
                })
            })
            .collect();
        system.block_on(async {
            let mut ended = Vec::with_capacity(CLIENTS);
            for client in clients {
                ended.push(client.await);
            }
            ended
        })
    });
    stop.set();
    let turns = system.block_on(async {
        let mut turns = 0;
        for other in others {
            turns += other.await;
        }
        turns
    });
    clock.figure(
        "turns of the others per s",
        turns as f64 / begin.elapsed().as_secs_f64(),
    );
    let first = clients.iter().map(|client| client.begin).min();
    let last = clients.iter().map(|client| client.end).max();
    if let (Some(first), Some(last)) = (first, last) {
        clock.wall_is(last - first);
    }
    for wait in clients.into_iter().flat_map(|client| client.waits) {
        clock.latency(wait);
    }
}

/// What the clients share.
struct Shared<L> {
    lock: L,
    /// How often the lock is still to be taken. Common to all clients, so that all of them want the
    /// lock until the end, whether or not the lock is fair.
    left: AtomicUsize,
    /// Lets the clients begin at the same time.
    start: Barrier,
}

/// What a client has seen.
struct Client {
    /// When it asked for the lock for the first time.
    begin: Instant,
    /// When it released the lock for the last time.
    end: Instant,
    /// For how long it waited for the lock, each time.
    waits: Vec<Duration>,
}

impl<L: Lock> Shared<L> {
    fn client(&self, count: usize) -> Client {
        self.start.wait();
        let begin = Instant::now();
        let mut client = Client {
            begin,
            end: begin,
            waits: Vec::with_capacity(count),
        };
        let one_less = |left: usize| left.checked_sub(1);
        while self.left.fetch_update(Relaxed, Relaxed, one_less).is_ok() {
            let asked = Instant::now();
            self.lock.hold(|| {
                client.waits.push(asked.elapsed());
                thread::sleep(HOLD);
            });
            client.end = Instant::now();
            thread::sleep(PAUSE);
        }
        client
    }
}

/// A lock that blocks the calling thread.
trait Lock: Default + Send + Sync + 'static {
    /// Calls `f` while it holds the lock.
    fn hold(&self, f: impl FnOnce());
}

impl Lock for Mutex<()> {
    fn hold(&self, f: impl FnOnce()) {
        let _held = self.lock().expect("nobody panics");
        f();
    }
}

impl Lock for parking_lot::Mutex<()> {
    fn hold(&self, f: impl FnOnce()) {
        let _held = self.lock();
        f();
    }
}

/// A mutex of libc, as C libraries have them. In a box, because it must not move while it is used.
struct PthreadMutex(Box<UnsafeCell<libc::pthread_mutex_t>>);

// SAFETY: all threads of a process may lock and unlock a mutex of pthread, and any of them may
// destroy it while nobody uses it.
unsafe impl Send for PthreadMutex {}
// SAFETY: as above.
unsafe impl Sync for PthreadMutex {}

impl Default for PthreadMutex {
    fn default() -> Self {
        Self(Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER)))
    }
}

impl Lock for PthreadMutex {
    fn hold(&self, f: impl FnOnce()) {
        /// Releases the lock, even if `f` panics.
        struct Held<'a>(&'a PthreadMutex);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                // SAFETY: the mutex is initialized, and this thread has locked it: the value was
                // made after that, and does not leave the thread.
                let result = unsafe { libc::pthread_mutex_unlock(self.0.0.get()) };
                assert_eq!(result, 0, "pthread_mutex_unlock");
            }
        }
        // SAFETY: the mutex is initialized, and stays where it is and alive during the call.
        let result = unsafe { libc::pthread_mutex_lock(self.0.get()) };
        assert_eq!(result, 0, "pthread_mutex_lock");
        let _held = Held(self);
        f();
    }
}

impl Drop for PthreadMutex {
    fn drop(&mut self) {
        // SAFETY: the mutex is initialized, and nobody holds it: a `Held` would borrow it.
        unsafe { libc::pthread_mutex_destroy(self.0.get()) };
    }
}

fn compute(steps: u64) {
    for step in 0..steps {
        black_box(step);
    }
}

/// How many steps of [`compute`] take this time on a CPU of one's own. The fastest of some tries,
/// because others may use the CPU as well.
fn steps_in(time: Duration) -> u64 {
    const STEPS: u64 = 100_000;
    let fastest = (0..20)
        .map(|_| {
            let begin = Instant::now();
            compute(STEPS);
            begin.elapsed()
        })
        .min()
        .unwrap_or(time);
    (STEPS as f64 * time.as_secs_f64() / fastest.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        thread,
        time::Duration,
    };

    use super::{Lock, PthreadMutex, steps_in};

    fn excludes<L: Lock>() {
        let (lock, inside) = (Arc::new(L::default()), Arc::new(AtomicBool::new(false)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
                thread::spawn(move || {
                    for _ in 0..100 {
                        lock.hold(|| {
                            assert!(!inside.swap(true, SeqCst), "two threads hold the lock");
                            thread::yield_now();
                            inside.store(false, SeqCst);
                        });
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("nobody panics");
        }
    }

    #[test]
    fn each_lock_excludes() {
        excludes::<Mutex<()>>();
        excludes::<parking_lot::Mutex<()>>();
        excludes::<PthreadMutex>();
    }

    #[test]
    fn more_time_is_more_steps() {
        let (few, many) = (
            steps_in(Duration::from_micros(20)),
            steps_in(Duration::from_millis(20)),
        );
        assert!(few > 0);
        assert!(many > 10 * few, "{few} steps in 20 us, {many} in 20 ms");
    }
}
