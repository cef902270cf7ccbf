//! Threads: the locks, conditions and joins of pthread and C11.
//!
//! glibc makes its futex calls inline, so the locks of C libraries exist here only. A lock is
//! tried first, which costs what the lock itself would if it is free. A worker that comes back with
//! a lock is not held up, since other threads may wait for it.
//!
//! In a statically linked program these functions have one definition, libc's, and ours would leave
//! no way to reach it: there they are not managed.

use libc::{
    EBUSY, c_int, c_void, clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t,
    pthread_rwlock_t, pthread_t, sem_t, timespec,
};

use crate::{
    ManagedCall, Return, Sleep,
    family::family,
    worker::{Managed, errno, set_errno},
};

/// What a function without a next definition returns. It is not reached: see
/// [`prepare`](crate::prepare).
const MISSING: c_int = libc::ENOSYS;

unsafe extern "C" {
    fn pthread_tryjoin_np(thread: pthread_t, value: *mut *mut c_void) -> c_int;
    fn mtx_trylock(mutex: *mut c_void) -> c_int;
}

/// C11's `thrd_busy`.
const THRD_BUSY: c_int = 1;

family! {
    /// Threads.
    __define_threads;

    fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int;
        raw { let _ = mutex; MISSING }
        managed |worker| {
            match try_for_a_while(|| { libc::pthread_mutex_trylock(mutex) }) {
                EBUSY => owner(worker, "pthread_mutex_lock", mutex, || {
                    real::pthread_mutex_lock(mutex)
                }),
                result => result,
            }
        }
    fn pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int;
        raw { let _ = (mutex, until); MISSING }
        managed |worker| {
            match try_for_a_while(|| { libc::pthread_mutex_trylock(mutex) }) {
                EBUSY => owner(worker, "pthread_mutex_timedlock", mutex, || {
                    real::pthread_mutex_timedlock(mutex, until)
                }),
                result => result,
            }
        }
    fn pthread_mutex_clocklock(
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
        raw { let _ = (mutex, clock, until); MISSING }
        managed Possible Owner;

    fn pthread_rwlock_rdlock(lock: *mut pthread_rwlock_t) -> c_int;
        raw { let _ = lock; MISSING }
        managed |worker| {
            match try_for_a_while(|| { libc::pthread_rwlock_tryrdlock(lock) }) {
                EBUSY => owner(worker, "pthread_rwlock_rdlock", lock, || {
                    real::pthread_rwlock_rdlock(lock)
                }),
                result => result,
            }
        }
    fn pthread_rwlock_wrlock(lock: *mut pthread_rwlock_t) -> c_int;
        raw { let _ = lock; MISSING }
        managed |worker| {
            match try_for_a_while(|| { libc::pthread_rwlock_trywrlock(lock) }) {
                EBUSY => owner(worker, "pthread_rwlock_wrlock", lock, || {
                    real::pthread_rwlock_wrlock(lock)
                }),
                result => result,
            }
        }
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
        raw { let _ = (lock, until); MISSING }
        managed Possible Owner;
    fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
        raw { let _ = (lock, until); MISSING }
        managed Possible Owner;
    fn pthread_rwlock_clockrdlock(
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
        raw { let _ = (lock, clock, until); MISSING }
        managed Possible Owner;
    fn pthread_rwlock_clockwrlock(
        lock: *mut pthread_rwlock_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
        raw { let _ = (lock, clock, until); MISSING }
        managed Possible Owner;

    fn pthread_cond_wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int;
        raw { let _ = (condition, mutex); MISSING }
        managed Certain Owner;
    fn pthread_cond_timedwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        until: *const timespec,
    ) -> c_int;
        raw { let _ = (condition, mutex, until); MISSING }
        managed Certain Owner;
    fn pthread_cond_clockwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
        raw { let _ = (condition, mutex, clock, until); MISSING }
        managed Certain Owner;

    fn pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int;
        raw { let _ = barrier; MISSING }
        managed Possible Woken;

    fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int;
        raw { let _ = (thread, value); MISSING }
        managed |worker| {
            match pthread_tryjoin_np(thread, value) {
                EBUSY => worker.call(
                    ManagedCall { name: "pthread_join", argument: thread as usize },
                    Sleep::Certain,
                    Return::Io,
                    || { real::pthread_join(thread, value) },
                ),
                result => result,
            }
        }
    fn pthread_timedjoin_np(thread: pthread_t, value: *mut *mut c_void, until: *const timespec)
        -> c_int;
        raw { let _ = (thread, value, until); MISSING }
        managed Possible Io;
    fn pthread_clockjoin_np(
        thread: pthread_t,
        value: *mut *mut c_void,
        clock: clockid_t,
        until: *const timespec,
    ) -> c_int;
        raw { let _ = (thread, value, clock, until); MISSING }
        managed Possible Io;

    fn sem_wait(semaphore: *mut sem_t) -> c_int;
        raw { let _ = semaphore; set_errno(MISSING); -1 }
        managed |worker| {
            semaphore_wait(worker, "sem_wait", semaphore, || { real::sem_wait(semaphore) })
        }
    fn sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int;
        raw { let _ = (semaphore, until); set_errno(MISSING); -1 }
        managed |worker| {
            semaphore_wait(worker, "sem_timedwait", semaphore, || {
                real::sem_timedwait(semaphore, until)
            })
        }
    fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int;
        raw { let _ = (semaphore, clock, until); set_errno(MISSING); -1 }
        managed |worker| {
            semaphore_wait(worker, "sem_clockwait", semaphore, || {
                real::sem_clockwait(semaphore, clock, until)
            })
        }

    fn mtx_lock(mutex: *mut c_void) -> c_int;
        raw { let _ = mutex; MISSING }
        managed |worker| {
            match mtx_trylock(mutex) {
                THRD_BUSY => {
                    owner(worker, "mtx_lock", mutex, || { real::mtx_lock(mutex) })
                }
                result => result,
            }
        }
    fn mtx_timedlock(mutex: *mut c_void, until: *const timespec) -> c_int;
        raw { let _ = (mutex, until); MISSING }
        managed Possible Owner;
    fn cnd_wait(condition: *mut c_void, mutex: *mut c_void) -> c_int;
        raw { let _ = (condition, mutex); MISSING }
        managed Certain Owner;
    fn cnd_timedwait(condition: *mut c_void, mutex: *mut c_void, until: *const timespec) -> c_int;
        raw { let _ = (condition, mutex, until); MISSING }
        managed Certain Owner;
    fn thrd_join(thread: pthread_t, result: *mut c_int) -> c_int;
        raw { let _ = (thread, result); MISSING }
        managed Possible Io;
    fn thrd_sleep(time: *const timespec, left: *mut timespec) -> c_int;
        raw { let _ = (time, left); MISSING }
        managed Certain Io;
}

/// How often a lock that is taken is looked at before the worker goes to sleep for it. It
/// halved how often servers were woken for locks of SQLite, with 256 connections on two CPUs.
const LOOKS: u32 = 64;

/// Tries to take a lock, and waits for a short while for its owner, which may run on another CPU
/// and release it in less time than this worker would need to sleep and to be woken.
#[inline]
fn try_for_a_while(try_lock: impl Fn() -> c_int) -> c_int {
    let mut result = try_lock();
    for _ in 0..LOOKS {
        if result != EBUSY {
            break;
        }
        std::hint::spin_loop();
        result = try_lock();
    }
    result
}

/// A wait for a lock that another thread holds.
fn owner<T>(
    worker: Managed,
    name: &'static str,
    lock: *mut T,
    call: impl FnOnce() -> c_int,
) -> c_int {
    worker.call(
        ManagedCall {
            name,
            argument: lock as usize,
        },
        Sleep::Certain,
        Return::Owner,
        call,
    )
}

/// A wait for a semaphore: first in the form that fails with EAGAIN where it would sleep.
fn semaphore_wait(
    worker: Managed,
    name: &'static str,
    semaphore: *mut sem_t,
    call: impl FnOnce() -> c_int,
) -> c_int {
    let before = errno();
    // SAFETY: the caller's semaphore.
    let result = unsafe { libc::sem_trywait(semaphore) };
    if result == 0 || errno() != libc::EAGAIN {
        return result;
    }
    set_errno(before);
    owner(worker, name, semaphore, call)
}
