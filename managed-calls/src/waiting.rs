//! Waiting: for descriptors, for time, for signals, for children, for messages.
//!
//! Where a call has a form that looks and does not wait (a timeout of zero, `WNOHANG`,
//! `IPC_NOWAIT`) that form comes first, and the worker announces the block only if there is
//! nothing to have yet. A call whose purpose is to sleep announces at once.

use std::{mem, ptr};

use libc::{
    IPC_NOWAIT, WNOHANG, c_char, c_int, c_long, c_uint, c_void, clockid_t, epoll_event, fd_set,
    id_t, idtype_t, mqd_t, nfds_t, pid_t, pollfd, rusage, sembuf, siginfo_t, sigset_t, size_t,
    ssize_t, timespec, timeval, useconds_t,
};

use crate::{
    ManagedCall, Parked, Return, Sleep,
    family::family,
    raw::raw,
    worker::{Managed, errno, set_errno},
};

/// The size of the kernel's signal sets, which the raw system calls want to be told.
const SIGNAL_SET: usize = 8;

family! {
    /// Waiting.
    __define_waiting;

    fn poll(set: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
        raw { raw_poll(set, count, timeout) }
        managed |worker| {
            look_first(worker, "poll", count as usize, timeout == 0, |wait| {
                real::poll(set, count, if wait { timeout } else { 0 })
            })
        }
    fn __poll(set: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int;
        raw { raw_poll(set, count, timeout) }
        managed |worker| {
            look_first(worker, "poll", count as usize, timeout == 0, |wait| {
                real::__poll(set, count, if wait { timeout } else { 0 })
            })
        }
    fn __poll_chk(set: *mut pollfd, count: nfds_t, timeout: c_int, size: size_t) -> c_int;
        raw { let _ = size; raw_poll(set, count, timeout) }
        managed |worker| {
            look_first(worker, "poll", count as usize, timeout == 0, |wait| {
                real::__poll_chk(set, count, if wait { timeout } else { 0 }, size)
            })
        }
    fn ppoll(set: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t)
        -> c_int;
        raw { raw!(libc::SYS_ppoll, set, count, timeout, mask, SIGNAL_SET) as c_int }
        managed |worker| {
            look_first(worker, "ppoll", count as usize, is_zero(timeout), |wait| {
                real::ppoll(set, count, if wait { timeout } else { &raw const ZERO }, mask)
            })
        }
    fn __ppoll_chk(
        set: *mut pollfd,
        count: nfds_t,
        timeout: *const timespec,
        mask: *const sigset_t,
        size: size_t,
    ) -> c_int;
        raw {
            let _ = size;
            raw!(libc::SYS_ppoll, set, count, timeout, mask, SIGNAL_SET) as c_int
        }
        managed |worker| {
            look_first(worker, "ppoll", count as usize, is_zero(timeout), |wait| {
                real::__ppoll_chk(
                    set, count, if wait { timeout } else { &raw const ZERO }, mask, size,
                )
            })
        }
    // Not looked at first: the look would empty the sets, whose size only the caller knows.
    fn select(
        count: c_int,
        read: *mut fd_set,
        write: *mut fd_set,
        except: *mut fd_set,
        timeout: *mut timeval,
    ) -> c_int;
        raw { raw_select(count, read, write, except, timeout) }
        managed Possible Io;
    fn __select(
        count: c_int,
        read: *mut fd_set,
        write: *mut fd_set,
        except: *mut fd_set,
        timeout: *mut timeval,
    ) -> c_int;
        raw { raw_select(count, read, write, except, timeout) }
        managed Possible Io;
    fn pselect(
        count: c_int,
        read: *mut fd_set,
        write: *mut fd_set,
        except: *mut fd_set,
        timeout: *const timespec,
        mask: *const sigset_t,
    ) -> c_int;
        raw { raw_pselect(count, read, write, except, timeout, mask) }
        managed Possible Io;
    fn epoll_wait(fd: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int;
        raw { raw!(libc::SYS_epoll_pwait, fd, events, most, timeout, 0, SIGNAL_SET) as c_int }
        managed |worker| {
            look_first(worker, "epoll_wait", fd as usize, timeout == 0, |wait| {
                real::epoll_wait(fd, events, most, if wait { timeout } else { 0 })
            })
        }
    fn epoll_pwait(
        fd: c_int,
        events: *mut epoll_event,
        most: c_int,
        timeout: c_int,
        mask: *const sigset_t,
    ) -> c_int;
        raw { raw!(libc::SYS_epoll_pwait, fd, events, most, timeout, mask, SIGNAL_SET) as c_int }
        managed |worker| {
            look_first(worker, "epoll_pwait", fd as usize, timeout == 0, |wait| {
                real::epoll_pwait(fd, events, most, if wait { timeout } else { 0 }, mask)
            })
        }
    // Not looked at first: whether the timeout is zero stands behind a pointer that only the kernel
    // may follow, since it reports a wrong one.
    fn epoll_pwait2(
        fd: c_int,
        events: *mut epoll_event,
        most: c_int,
        timeout: *const timespec,
        mask: *const sigset_t,
    ) -> c_int;
        raw { raw!(libc::SYS_epoll_pwait2, fd, events, most, timeout, mask, SIGNAL_SET) as c_int }
        managed Possible Io;

    fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int;
        raw { raw!(libc::SYS_nanosleep, time, left) as c_int }
        managed |worker| {
            let error = sleep_parked(worker, "nanosleep", deadline_after(time), left, || {
                error_of(real::nanosleep(time, left))
            });
            result_of(error)
        }
    fn __nanosleep(time: *const timespec, left: *mut timespec) -> c_int;
        raw { raw!(libc::SYS_nanosleep, time, left) as c_int }
        managed |worker| {
            let error = sleep_parked(worker, "nanosleep", deadline_after(time), left, || {
                error_of(real::__nanosleep(time, left))
            });
            result_of(error)
        }
    // The error is the result here, and not in `errno`.
    fn clock_nanosleep(
        clock: clockid_t,
        flags: c_int,
        time: *const timespec,
        left: *mut timespec,
    ) -> c_int;
        raw {
            let result = crate::raw::system_call(
                libc::SYS_clock_nanosleep,
                [clock as usize, flags as usize, time as usize, left as usize, 0, 0],
            );
            -result as c_int
        }
        managed |worker| {
            let relative = flags & libc::TIMER_ABSTIME == 0;
            // A relative sleep does not depend on the clock's being set, whichever it is.
            let deadline = match clock {
                libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME if relative => deadline_after(time),
                libc::CLOCK_MONOTONIC => checked_time(time),
                _ => None,
            };
            let left = if relative { left } else { ptr::null_mut() };
            sleep_parked(worker, "clock_nanosleep", deadline, left, || {
                real::clock_nanosleep(clock, flags, time, left)
            })
        }
    fn usleep(time: useconds_t) -> c_int;
        raw {
            let time = timespec {
                tv_sec: c_long::from(time / 1_000_000),
                tv_nsec: c_long::from(time % 1_000_000) * 1000,
            };
            raw!(libc::SYS_nanosleep, &raw const time, 0) as c_int
        }
        managed |worker| {
            let deadline = now().saturating_add(u64::from(time) * 1000);
            let error = sleep_parked(worker, "usleep", Some(deadline), ptr::null_mut(), || {
                error_of(real::usleep(time))
            });
            result_of(error)
        }
    fn sleep(seconds: c_uint) -> c_uint;
        raw {
            let time = timespec { tv_sec: c_long::from(seconds), tv_nsec: 0 };
            let mut left: timespec = mem::zeroed();
            let before = errno();
            if raw!(libc::SYS_nanosleep, &raw const time, &raw mut left) == 0 {
                0
            } else {
                set_errno(before);
                left.tv_sec as c_uint + c_uint::from(left.tv_nsec > 0)
            }
        }
        managed Certain Io;

    fn pause() -> c_int;
        raw { raw!(libc::SYS_ppoll, 0, 0, 0, 0, 0) as c_int }
        managed Certain Io;
    fn sigsuspend(mask: *const sigset_t) -> c_int;
        raw { raw!(libc::SYS_rt_sigsuspend, mask, SIGNAL_SET) as c_int }
        managed Certain Io;
    fn sigwaitinfo(set: *const sigset_t, info: *mut siginfo_t) -> c_int;
        raw { raw!(libc::SYS_rt_sigtimedwait, set, info, 0, SIGNAL_SET) as c_int }
        managed Possible Io;
    fn sigtimedwait(set: *const sigset_t, info: *mut siginfo_t, timeout: *const timespec) -> c_int;
        raw { raw!(libc::SYS_rt_sigtimedwait, set, info, timeout, SIGNAL_SET) as c_int }
        managed Possible Io;
    // The error is the result here, too.
    fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int;
        raw {
            let before = errno();
            let result = raw!(libc::SYS_rt_sigtimedwait, set, 0, 0, SIGNAL_SET) as c_int;
            if result < 0 {
                let error = errno();
                set_errno(before);
                error
            } else {
                *signal = result;
                0
            }
        }
        managed Possible Io;

    fn wait(status: *mut c_int) -> pid_t;
        raw { raw!(libc::SYS_wait4, -1isize, status, 0, 0) as pid_t }
        managed |worker| {
            wait_for_child(worker, "wait", -1, 0, |wait| {
                if wait { real::wait(status) } else { real::waitpid(-1, status, WNOHANG) }
            })
        }
    fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t;
        raw { raw!(libc::SYS_wait4, pid, status, options, 0) as pid_t }
        managed |worker| {
            wait_for_child(worker, "waitpid", pid, options, |wait| {
                real::waitpid(pid, status, if wait { options } else { options | WNOHANG })
            })
        }
    fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t;
        raw { raw!(libc::SYS_wait4, -1isize, status, options, usage) as pid_t }
        managed |worker| {
            wait_for_child(worker, "wait3", -1, options, |wait| {
                real::wait3(status, if wait { options } else { options | WNOHANG }, usage)
            })
        }
    fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t;
        raw { raw!(libc::SYS_wait4, pid, status, options, usage) as pid_t }
        managed |worker| {
            wait_for_child(worker, "wait4", pid, options, |wait| {
                real::wait4(pid, status, if wait { options } else { options | WNOHANG }, usage)
            })
        }
    fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int;
        raw { raw!(libc::SYS_waitid, kind, id, info, options, 0) as c_int }
        managed |worker| {
            if options & WNOHANG != 0 {
                return real::waitid(kind, id, info, options);
            }
            let before = errno();
            // The caller's own, if there is one: the kernel reports a wrong address.
            let mut own: siginfo_t = mem::zeroed();
            let found = if info.is_null() { &raw mut own } else { info };
            let result = real::waitid(kind, id, found, options | WNOHANG);
            // The kernel has written it: all zeros if no child has changed.
            if result != 0 || (*found).si_pid() != 0 {
                return result;
            }
            set_errno(before);
            worker.call(named("waitid", id as usize), Sleep::Certain, Return::Io, || {
                real::waitid(kind, id, info, options)
            })
        }

    fn msgrcv(queue: c_int, message: *mut c_void, size: size_t, kind: c_long, flags: c_int)
        -> ssize_t;
        raw { raw!(libc::SYS_msgrcv, queue, message, size, kind, flags) }
        managed |worker| {
            try_without_waiting(worker, "msgrcv", queue, flags, libc::ENOMSG, |flags| {
                real::msgrcv(queue, message, size, kind, flags)
            })
        }
    fn msgsnd(queue: c_int, message: *const c_void, size: size_t, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_msgsnd, queue, message, size, flags) as c_int }
        managed |worker| {
            try_without_waiting(worker, "msgsnd", queue, flags, libc::EAGAIN, |flags| {
                real::msgsnd(queue, message, size, flags) as ssize_t
            }) as c_int
        }
    fn semop(set: c_int, operations: *mut sembuf, count: size_t) -> c_int;
        raw { raw!(libc::SYS_semtimedop, set, operations, count, 0) as c_int }
        managed Possible Owner;
    fn semtimedop(set: c_int, operations: *mut sembuf, count: size_t, timeout: *const timespec)
        -> c_int;
        raw { raw!(libc::SYS_semtimedop, set, operations, count, timeout) as c_int }
        managed Possible Owner;
    fn mq_receive(queue: mqd_t, message: *mut c_char, size: size_t, priority: *mut c_uint)
        -> ssize_t;
        raw { raw!(libc::SYS_mq_timedreceive, queue, message, size, priority, 0) }
        managed Possible Io;
    fn mq_timedreceive(
        queue: mqd_t,
        message: *mut c_char,
        size: size_t,
        priority: *mut c_uint,
        until: *const timespec,
    ) -> ssize_t;
        raw { raw!(libc::SYS_mq_timedreceive, queue, message, size, priority, until) }
        managed Possible Io;
    fn mq_send(queue: mqd_t, message: *const c_char, size: size_t, priority: c_uint) -> c_int;
        raw { raw!(libc::SYS_mq_timedsend, queue, message, size, priority, 0) as c_int }
        managed Possible Io;
    fn mq_timedsend(
        queue: mqd_t,
        message: *const c_char,
        size: size_t,
        priority: c_uint,
        until: *const timespec,
    ) -> c_int;
        raw { raw!(libc::SYS_mq_timedsend, queue, message, size, priority, until) as c_int }
        managed Possible Io;
}

static ZERO: timespec = timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Whether the timeout of `ppoll` says "do not wait". Libc's own function reads it, too, so a wrong
/// address ends the program in either case.
unsafe fn is_zero(timeout: *const timespec) -> bool {
    // SAFETY: null, or a timespec by the caller's promise.
    unsafe { timeout.as_ref() }.is_some_and(|time| time.tv_sec == 0 && time.tv_nsec == 0)
}

/// Sleeps until `deadline` elsewhere than in the call, if the worker prefers that; otherwise, or if
/// the deadline is not known, makes the call that sleeps. The result is an errno, or 0.
///
/// # Safety
/// `left` is null or what the program passed for the time that is left after a signal.
unsafe fn sleep_parked(
    worker: Managed,
    name: &'static str,
    deadline: Option<u64>,
    left: *mut timespec,
    call: impl FnOnce() -> c_int,
) -> c_int {
    let before = errno();
    let announced = |call: &mut dyn FnMut() -> c_int| {
        set_errno(before);
        worker.call(named(name, 0), Sleep::Certain, Return::Io, call)
    };
    let mut call = Some(call);
    let Some(deadline) = deadline else {
        return announced(&mut || call.take().map_or(0, |call| call()));
    };
    let mut parked = false;
    let error = loop {
        let outcome = worker.with(|worker| worker.park_until(named(name, 0), deadline));
        match outcome {
            Parked::Refused if !parked => {
                return announced(&mut || call.take().map_or(0, |call| call()));
            }
            // The rest of the sleep.
            Parked::Refused => {
                let until = timespec {
                    tv_sec: (deadline / 1_000_000_000) as libc::time_t,
                    tv_nsec: (deadline % 1_000_000_000) as c_long,
                };
                break announced(&mut || {
                    // SAFETY: a live time.
                    unsafe {
                        real::clock_nanosleep(
                            libc::CLOCK_MONOTONIC,
                            libc::TIMER_ABSTIME,
                            &raw const until,
                            ptr::null_mut(),
                        )
                    }
                });
            }
            _ if now() >= deadline => break 0,
            Parked::Woken => parked = true,
            Parked::Interrupted => break libc::EINTR,
        }
    };
    if error == libc::EINTR && !left.is_null() {
        let rest = deadline.saturating_sub(now());
        // SAFETY: the caller's promise. A wrong address ends the program, where the kernel would
        // report it after the sleep.
        unsafe {
            *left = timespec {
                tv_sec: (rest / 1_000_000_000) as libc::time_t,
                tv_nsec: (rest % 1_000_000_000) as c_long,
            };
        }
    }
    error
}

/// When a sleep of this length ends, CLOCK_MONOTONIC nanoseconds. `None`: the kernel refuses the
/// time.
///
/// # Safety
/// Any address.
unsafe fn deadline_after(time: *const timespec) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe { checked_time(time) }.map(|length| now().saturating_add(length))
}

/// A time in nanoseconds. `None`: it is not one, or the address is wrong. The kernel looks at it
/// first: it reads the timeout of a futex wait before it finds that there is nothing to wait for.
///
/// # Safety
/// Any address.
unsafe fn checked_time(time: *const timespec) -> Option<u64> {
    if time.is_null() {
        return None;
    }
    let before = errno();
    let word = 0_u32;
    // SAFETY: a live word. The kernel checks the address of the time.
    let result = unsafe {
        raw!(
            libc::SYS_futex,
            &raw const word,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            1,
            time
        )
    };
    let error = errno();
    set_errno(before);
    if result != -1 || error != libc::EAGAIN {
        return None;
    }
    // SAFETY: the kernel has just read it.
    let time = unsafe { *time };
    u64::try_from(time.tv_sec)
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(time.tv_nsec).ok()?)
}

/// CLOCK_MONOTONIC nanoseconds.
fn now() -> u64 {
    let mut time = ZERO;
    // SAFETY: a live time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The errno of a call that returns -1 if it fails.
fn error_of(result: c_int) -> c_int {
    if result == -1 { errno() } else { 0 }
}

/// The reverse.
fn result_of(error: c_int) -> c_int {
    if error == 0 {
        0
    } else {
        set_errno(error);
        -1
    }
}

/// A call that returns the number of what is ready: first with a timeout of zero, then, if nothing
/// is, as it was made.
fn look_first(
    worker: Managed,
    name: &'static str,
    argument: usize,
    only_looks: bool,
    call: impl Fn(bool) -> c_int,
) -> c_int {
    let found = call(false);
    if found != 0 || only_looks {
        worker.passed();
        return found;
    }
    worker.call(named(name, argument), Sleep::Certain, Return::Io, || {
        call(true)
    })
}

/// A wait for a child: first with `WNOHANG`, which returns 0 if no child has changed.
fn wait_for_child(
    worker: Managed,
    name: &'static str,
    pid: pid_t,
    options: c_int,
    call: impl Fn(bool) -> pid_t,
) -> pid_t {
    let found = call(false);
    if found != 0 || options & WNOHANG != 0 {
        worker.passed();
        return found;
    }
    worker.call(
        named(name, pid as usize),
        Sleep::Certain,
        Return::Io,
        || call(true),
    )
}

/// A call of System V's message queues: first with `IPC_NOWAIT`, which fails with `busy` where
/// the call would have slept.
fn try_without_waiting(
    worker: Managed,
    name: &'static str,
    queue: c_int,
    flags: c_int,
    busy: c_int,
    call: impl Fn(c_int) -> ssize_t,
) -> ssize_t {
    let before = errno();
    let result = call(flags | IPC_NOWAIT);
    if result >= 0 || errno() != busy || flags & IPC_NOWAIT != 0 {
        return result;
    }
    set_errno(before);
    worker.call(
        named(name, queue as usize),
        Sleep::Certain,
        Return::Io,
        || call(flags),
    )
}

fn named(name: &'static str, argument: usize) -> ManagedCall {
    ManagedCall { name, argument }
}

/// `poll` by `ppoll`, the only one of the two that all architectures have.
unsafe fn raw_poll(set: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    let time = timespec {
        tv_sec: c_long::from(timeout / 1000),
        tv_nsec: c_long::from(timeout % 1000) * 1_000_000,
    };
    let time = if timeout < 0 {
        ptr::null()
    } else {
        &raw const time
    };
    // SAFETY: the caller's promise.
    unsafe { raw!(libc::SYS_ppoll, set, count, time, 0, SIGNAL_SET) as c_int }
}

/// `select` by `pselect6`.
unsafe fn raw_select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: null, or a timeval by the caller's promise.
    let Some(given) = (unsafe { timeout.as_mut() }) else {
        // SAFETY: the caller's promise.
        return unsafe { raw!(libc::SYS_pselect6, count, read, write, except, 0, 0) as c_int };
    };
    let mut left = timespec {
        tv_sec: given.tv_sec,
        tv_nsec: given.tv_usec * 1000,
    };
    // SAFETY: the caller's promise.
    let result = unsafe {
        raw!(
            libc::SYS_pselect6,
            count,
            read,
            write,
            except,
            &raw mut left,
            0
        )
    };
    // As Linux does: what is left of the time.
    given.tv_sec = left.tv_sec;
    given.tv_usec = left.tv_nsec / 1000;
    result as c_int
}

/// `pselect` by the system call, which takes the mask and its size in a structure, and which
/// changes the time where the function of libc does not.
unsafe fn raw_pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: null, or a timespec by the caller's promise.
    let mut left = unsafe { timeout.as_ref() }.copied();
    let left = left.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let mask = [mask as usize, SIGNAL_SET];
    // SAFETY: the caller's promise.
    unsafe {
        raw!(
            libc::SYS_pselect6,
            count,
            read,
            write,
            except,
            left,
            mask.as_ptr()
        ) as c_int
    }
}
