//! Each scenario runs twice, on a thread that is no worker and on one that is, and has to come out
//! the same.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    cell::RefCell,
    fmt,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Return, Sleep, Worker, set_current,
};

/// A worker that notes its calls, and that does to the thread what a scheduler may do: it makes
/// system calls, changes `errno`, and lets others run.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    calls: RefCell<Vec<(&'static str, Sleep, Return)>>,
}

impl Worker for Recorder {
    fn enter(&self, call: ManagedCall, sleep: Sleep, how: Return) {
        assert!(!umcg_managed_calls::is_managed(), "a call inside of a call");
        self.calls.borrow_mut().push((call.name, sleep, how));
        disturb();
    }

    fn exit(&self, how: Return) {
        let calls = self.calls.borrow();
        assert_eq!(
            calls.last().map(|call| call.2),
            Some(how),
            "the call has two kinds of return"
        );
        drop(calls);
        disturb();
    }

    fn yield_now(&self) {
        self.calls
            .borrow_mut()
            .push(("sched_yield", Sleep::Possible, Return::Io));
        disturb();
    }

    fn affinity(&self, mask: &mut [u8]) {
        mask.fill(0);
        mask[0] = 0b1010_0101;
    }

    fn unmanage(&self) -> fn(Inherited) {
        |inherited| {
            UNMANAGED.lock().unwrap().push(inherited);
        }
    }

    fn before_child(&self) {
        self.calls
            .borrow_mut()
            .push(("before_child", Sleep::Possible, Return::Io));
    }

    fn after_child(&self) {
        self.calls
            .borrow_mut()
            .push(("after_child", Sleep::Possible, Return::Io));
    }
}

/// What the threads were told that workers made.
pub(crate) static UNMANAGED: Mutex<Vec<Inherited>> = Mutex::new(Vec::new());

/// Calls libc, which must not come back to the worker, and leaves an `errno` that is nobody's.
fn disturb() {
    thread::yield_now();
    // SAFETY: a descriptor that is not open; this thread's errno.
    unsafe {
        libc::read(-1, std::ptr::null_mut(), 1);
        *libc::__errno_location() = libc::EDOM;
    }
}

/// What a managed call said to the scheduler: the function, how certain the sleep was, and how the
/// worker came back.
pub(crate) type Said = (&'static str, Sleep, Return);

/// Runs `scenario` as a worker. Returns its result and what the calls in it said.
pub(crate) fn managed<R>(scenario: impl FnOnce() -> R) -> (R, Vec<Said>) {
    let recorder = Recorder::default();
    let current = CurrentWorker::new(NonNull::from(&recorder as &dyn Worker));
    // SAFETY: the recorder lives until it is taken back below. A test that panics in between ends
    // its thread.
    unsafe { set_current(Some(NonNull::from(&current))) };
    let result = scenario();
    // SAFETY: nothing needs to stay valid.
    unsafe { set_current(None) };
    (result, recorder.calls.into_inner())
}

/// Runs `scenario` on both kinds of thread, demands that both come out the same, and returns what
/// the managed one said.
pub(crate) fn same<R: PartialEq + fmt::Debug>(scenario: impl Fn() -> R) -> (R, Vec<Said>) {
    let plain = scenario();
    let (managed, said) = managed(&scenario);
    assert_eq!(plain, managed, "unmanaged (left) and managed (right)");
    (plain, said)
}

/// The result of a call of libc, with its errno if it failed, and 0 otherwise.
pub(crate) fn outcome(result: impl Into<i64>) -> (i64, c_int) {
    let result = result.into();
    // SAFETY: this thread's errno.
    let errno = unsafe { *libc::__errno_location() };
    (result, if result < 0 { errno } else { 0 })
}

/// Runs `call` with an errno that it has no reason to change, and demands that a call which
/// succeeds leaves it alone.
pub(crate) fn keeps_errno(call: impl FnOnce() -> i64) -> (i64, c_int) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = libc::ENOTBLK };
    let result = call();
    // SAFETY: as above.
    let errno = unsafe { *libc::__errno_location() };
    if result >= 0 {
        assert_eq!(errno, libc::ENOTBLK, "a call that succeeded changed errno");
    }
    (result, errno)
}

/// Two connected sockets of the Unix domain.
pub(crate) fn pair(kind: c_int) -> (OwnedFd, OwnedFd) {
    let mut both = [0; 2];
    // SAFETY: room for two descriptors.
    let result = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, both.as_mut_ptr()) };
    assert_eq!(result, 0);
    // SAFETY: just made, and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(both[0]), OwnedFd::from_raw_fd(both[1])) }
}

/// A pipe: its end to read and its end to write.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut both = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(both.as_mut_ptr(), 0) }, 0);
    // SAFETY: just made, and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(both[0]), OwnedFd::from_raw_fd(both[1])) }
}

pub(crate) fn set_non_blocking(fd: &OwnedFd) {
    // SAFETY: an open descriptor.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(result, 0);
}

/// Runs `act` on another thread once the thread `tid` sleeps in the kernel, and returns what
/// `wait` returned, which this thread calls meanwhile.
pub(crate) fn while_asleep<R>(wait: impl FnOnce() -> R, act: impl FnOnce() + Send) -> R {
    // SAFETY: no arguments.
    let tid = unsafe { libc::gettid() };
    let caller = umcg_managed_calls::is_managed();
    thread::scope(|scope| {
        scope.spawn(move || {
            until_asleep(tid);
            act();
        });
        assert_eq!(umcg_managed_calls::is_managed(), caller);
        wait()
    })
}

/// Waits until the thread sleeps in a system call and has done so at two looks in a row.
pub(crate) fn until_asleep(tid: libc::pid_t) {
    let began = Instant::now();
    let mut seen = 0;
    while seen < 2 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it does not sleep"
        );
        let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
        let state = stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap();
        seen = if state == 'S' { seen + 1 } else { 0 };
        thread::sleep(Duration::from_millis(2));
    }
}

/// Only the calls of that name.
pub(crate) fn of(name: &str, said: &[Said]) -> Vec<(Sleep, Return)> {
    said.iter()
        .filter(|call| call.0 == name)
        .map(|call| (call.1, call.2))
        .collect()
}
