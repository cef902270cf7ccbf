//! Locks, conditions, semaphores and threads: pthread's, C11's and std's.

mod common;

use std::{
    cell::UnsafeCell,
    ffi::c_void,
    mem, ptr,
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use common::{UNMANAGED, managed, of, outcome, same, while_asleep};
use libc::c_int;
use umcg_managed_calls::{Inherited, Return, Sleep};

umcg_managed_calls::define!();

const OWNER: &[(Sleep, Return)] = &[(Sleep::Certain, Return::Owner)];

/// A mutex of pthread's.
struct Pthread(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is what synchronizes.
unsafe impl Sync for Pthread {}

impl Pthread {
    fn of_kind(kind: c_int) -> Self {
        let mutex = Self(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        // SAFETY: live attributes and a mutex that nobody uses yet.
        unsafe {
            let mut attributes = mem::zeroed();
            libc::pthread_mutexattr_init(&raw mut attributes);
            libc::pthread_mutexattr_settype(&raw mut attributes, kind);
            assert_eq!(
                libc::pthread_mutex_init(mutex.0.get(), &raw const attributes),
                0
            );
        }
        mutex
    }

    fn lock(&self) -> c_int {
        // SAFETY: a live mutex.
        unsafe { libc::pthread_mutex_lock(self.0.get()) }
    }

    fn unlock(&self) -> c_int {
        // SAFETY: a live mutex.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) }
    }
}

/// `time` from now on the clock of condition variables.
fn until(time: Duration) -> libc::timespec {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + time;
    libc::timespec {
        tv_sec: at.as_secs() as i64,
        tv_nsec: i64::from(at.subsec_nanos()),
    }
}

#[test]
fn a_free_mutex_is_locked_without_a_word() {
    for kind in [
        libc::PTHREAD_MUTEX_NORMAL,
        libc::PTHREAD_MUTEX_RECURSIVE,
        libc::PTHREAD_MUTEX_ERRORCHECK,
    ] {
        let (_, said) = same(|| {
            let mutex = Pthread::of_kind(kind);
            let mut results = vec![mutex.lock()];
            if kind != libc::PTHREAD_MUTEX_NORMAL {
                results.push(mutex.lock());
            }
            results.extend([mutex.unlock(), mutex.unlock()]);
            results
        });
        let errors = said.len();
        // A lock that its owner takes again is busy, and the real call says EDEADLK.
        assert_eq!(errors, usize::from(kind == libc::PTHREAD_MUTEX_ERRORCHECK));
    }
}

#[test]
fn a_held_mutex_is_waited_for_and_comes_back_as_an_owner() {
    let (_, said) = same(|| {
        let mutex = Pthread::of_kind(libc::PTHREAD_MUTEX_NORMAL);
        let (held, is_held) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        thread::scope(|scope| {
            let mutex = &mutex;
            scope.spawn(move || {
                assert_eq!(mutex.lock(), 0);
                held.send(()).unwrap();
                goes.recv().unwrap();
                mutex.unlock();
            });
            is_held.recv().unwrap();
            let locked = while_asleep(|| mutex.lock(), || go.send(()).unwrap());
            (locked, mutex.unlock())
        })
    });
    assert_eq!(of("pthread_mutex_lock", &said), OWNER);
}

#[test]
fn timed_waits_expire() {
    let (result, _) = same(|| {
        let mutex = Pthread::of_kind(libc::PTHREAD_MUTEX_NORMAL);
        mutex.lock();
        let began = Instant::now();
        let at = until(Duration::from_millis(30));
        // SAFETY: live objects.
        let locked = unsafe { libc::pthread_mutex_timedlock(mutex.0.get(), &raw const at) };
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        let at = until(Duration::from_millis(30));
        // SAFETY: live objects, and the mutex is held.
        let waited = unsafe {
            libc::pthread_cond_timedwait(&raw mut condition, mutex.0.get(), &raw const at)
        };
        assert!(began.elapsed() >= Duration::from_millis(50));
        (locked, waited, mutex.unlock())
    });
    assert_eq!(result, (libc::ETIMEDOUT, libc::ETIMEDOUT, 0));
}

#[test]
fn conditions_are_those_of_the_current_libc() {
    // An older definition of the functions works on another layout: it would lose the wake-up.
    let (_, said) = same(|| {
        let mutex = Pthread::of_kind(libc::PTHREAD_MUTEX_NORMAL);
        let condition = UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER);
        let address = condition.get() as usize;
        mutex.lock();
        let result = while_asleep(
            // SAFETY: live objects, and the mutex is held.
            || unsafe { libc::pthread_cond_wait(condition.get(), mutex.0.get()) },
            || {
                mutex.lock();
                // SAFETY: it lives until the waiter has returned.
                unsafe { libc::pthread_cond_signal(address as *mut _) };
                mutex.unlock();
            },
        );
        (result, mutex.unlock())
    });
    assert_eq!(of("pthread_cond_wait", &said), OWNER);
}

#[test]
fn read_write_locks_and_semaphores() {
    let (_, said) = same(|| {
        let lock = UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER);
        let address = lock.get() as usize;
        let wait = |what: unsafe extern "C" fn(*mut libc::pthread_rwlock_t) -> c_int| {
            // SAFETY: a live lock.
            unsafe { what(lock.get()) }
        };
        let first = (
            wait(libc::pthread_rwlock_rdlock),
            wait(libc::pthread_rwlock_rdlock),
        );
        wait(libc::pthread_rwlock_unlock);
        wait(libc::pthread_rwlock_unlock);
        let (held, is_held) = mpsc::channel();
        let (go, goes) = mpsc::channel();
        let second = thread::scope(|scope| {
            scope.spawn(move || {
                let lock = address as *mut libc::pthread_rwlock_t;
                // SAFETY: a live lock.
                unsafe { libc::pthread_rwlock_wrlock(lock) };
                held.send(()).unwrap();
                goes.recv().unwrap();
                // SAFETY: as above.
                unsafe { libc::pthread_rwlock_unlock(lock) };
            });
            is_held.recv().unwrap();
            while_asleep(
                || wait(libc::pthread_rwlock_rdlock),
                || go.send(()).unwrap(),
            )
        });
        // SAFETY: a semaphore of this test's.
        let third = unsafe {
            let mut semaphore: libc::sem_t = mem::zeroed();
            libc::sem_init(&raw mut semaphore, 0, 1);
            let address = &raw mut semaphore as usize;
            let free = outcome(libc::sem_wait(address as *mut _));
            let waited = while_asleep(
                || outcome(libc::sem_wait(address as *mut _)),
                || {
                    libc::sem_post(address as *mut _);
                },
            );
            (free, waited)
        };
        (first, second, third)
    });
    assert_eq!(of("pthread_rwlock_rdlock", &said), OWNER);
    assert_eq!(of("sem_wait", &said), OWNER);
}

#[test]
fn std_locks_come_back_as_woken() {
    let (_, said) = same(|| {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let (mutex, condition) = &*pair;
        let guard = mutex.lock().unwrap();
        let other = Arc::clone(&pair);
        let mut guard = while_asleep(
            || condition.wait_while(guard, |done| !*done).unwrap(),
            move || {
                *other.0.lock().unwrap() = true;
                other.1.notify_one();
            },
        );
        mem::replace(&mut *guard, false)
    });
    let waits = of("futex", &said);
    assert!(!waits.is_empty());
    assert!(
        waits
            .iter()
            .all(|&wait| wait == (Sleep::Certain, Return::Woken))
    );
}

#[test]
fn wrong_futex_words_are_the_kernels_to_report() {
    let (result, _) = same(|| {
        let futex = |address: usize, expected: u32| {
            // SAFETY: the kernel checks the address.
            outcome(unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    address,
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    expected,
                    ptr::null::<libc::timespec>(),
                )
            })
        };
        let word = 7_u32;
        (futex(8, 0), futex(&raw const word as usize, 8))
    });
    assert_eq!(result, ((-1, libc::EFAULT), (-1, libc::EAGAIN)));
}

extern "C" fn give_back(argument: *mut c_void) -> *mut c_void {
    argument
}

#[test]
fn threads_of_workers_start_unmanaged_and_are_joined() {
    let ((), said) = managed(|| {
        let joined = thread::spawn(|| {
            assert!(!umcg_managed_calls::is_managed());
            7
        });
        assert_eq!(joined.join().unwrap(), 7);
        let mut value = ptr::null_mut();
        // SAFETY: live attributes, a thread function, and a place for its value.
        unsafe {
            let mut attributes = mem::zeroed();
            libc::pthread_attr_init(&raw mut attributes);
            let mut cpus: libc::cpu_set_t = mem::zeroed();
            libc::CPU_SET(0, &mut cpus);
            libc::pthread_attr_setaffinity_np(
                &raw mut attributes,
                mem::size_of_val(&cpus),
                &raw const cpus,
            );
            let mut thread = 0;
            let made = libc::pthread_create(
                &raw mut thread,
                &raw const attributes,
                give_back,
                8 as *mut c_void,
            );
            assert_eq!(made, 0);
            assert_eq!(libc::pthread_join(thread, &raw mut value), 0);
            libc::pthread_attr_destroy(&raw mut attributes);
        }
        assert_eq!(value as usize, 8);
    });
    let told = mem::take(&mut *UNMANAGED.lock().unwrap());
    assert!(told.contains(&Inherited::ALL), "{told:?}");
    // Its own attributes say which CPUs.
    assert!(
        told.contains(&Inherited {
            cpus: false,
            policy: true
        }),
        "{told:?}"
    );
    assert!(said.iter().all(|call| call.0 != "pthread_create"));
}

#[test]
fn the_number_of_cpus_is_that_without_a_scheduler() {
    // The recorder's answer: four bits in the first byte.
    let (cpus, _) = managed(|| {
        // SAFETY: a live set.
        unsafe {
            let mut cpus: libc::cpu_set_t = mem::zeroed();
            let result = libc::sched_getaffinity(0, mem::size_of_val(&cpus), &raw mut cpus);
            (result, libc::CPU_COUNT(&cpus))
        }
    });
    assert_eq!(cpus, (0, 4));
    // Another thread's is the kernel's, and errors are libc's.
    same(|| {
        // SAFETY: a live set, and a null pointer that the kernel refuses.
        unsafe {
            let mut cpus: libc::cpu_set_t = mem::zeroed();
            let other =
                libc::sched_getaffinity(libc::getpid(), mem::size_of_val(&cpus), &raw mut cpus);
            let small = outcome(libc::sched_getaffinity(0, 1, &raw mut cpus));
            (other, small)
        }
    });
}

#[test]
fn a_yield_is_the_schedulers() {
    let ((), said) = managed(thread::yield_now);
    assert_eq!(of("sched_yield", &said).len(), 1);
}
