//! Waiting calls beside libc's own.

mod common;

use std::{
    os::fd::AsRawFd,
    process::Command,
    ptr,
    time::{Duration, Instant},
};

use common::{keeps_errno, of, outcome, pair, pipe, same, while_asleep};
use libc::c_int;
use umcg_managed_calls::{Return, Sleep};

umcg_managed_calls::define!();

const BLOCKED: &[(Sleep, Return)] = &[(Sleep::Certain, Return::Io)];

/// `time`, measured while `wait` runs, is at least that long and not much longer.
fn takes(time: Duration, wait: impl FnOnce()) {
    let began = Instant::now();
    wait();
    let took = began.elapsed();
    assert!(took >= time && took < time * 20, "{took:?}");
}

fn write(fd: &impl AsRawFd) {
    // SAFETY: one readable byte.
    let wrote = unsafe { libc::write(fd.as_raw_fd(), b"x".as_ptr().cast(), 1) };
    assert_eq!(wrote, 1);
}

#[test]
fn poll_announces_only_a_wait() {
    let (result, said) = same(|| {
        let (read, end) = pipe();
        let mut set = libc::pollfd {
            fd: read.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut poll = |timeout: c_int| {
            // SAFETY: one live pollfd.
            let result = unsafe { keeps_errno(|| libc::poll(&raw mut set, 1, timeout).into()) };
            (result, set.revents)
        };
        let looked = poll(0);
        let mut expired = ((0, 0), 0);
        takes(Duration::from_millis(30), || expired = poll(30));
        let woken = while_asleep(|| poll(-1), || write(&end));
        let ready = poll(-1);
        (looked, expired, woken, ready)
    });
    assert_eq!(result.2.1, libc::POLLIN);
    assert_eq!(of("poll", &said), [BLOCKED[0], BLOCKED[0]]);
}

#[test]
fn ppoll_and_select_keep_their_sets_and_times() {
    same(|| {
        let (a, _b) = pair(libc::SOCK_STREAM);
        let mut set = libc::pollfd {
            fd: a.as_raw_fd(),
            events: libc::POLLIN | libc::POLLOUT,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        let polled = unsafe { outcome(libc::ppoll(&raw mut set, 1, ptr::null(), ptr::null())) };
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 30_000_000,
        };
        takes(Duration::from_millis(30), || {
            set.events = libc::POLLIN;
            // SAFETY: as above.
            let expired = unsafe { libc::ppoll(&raw mut set, 1, &raw const time, ptr::null()) };
            assert_eq!(expired, 0);
        });
        // SAFETY: all zeros are an empty set.
        let mut reads: libc::fd_set = unsafe { std::mem::zeroed() };
        // SAFETY: a live set, and a descriptor below its limit.
        unsafe { libc::FD_SET(a.as_raw_fd(), &raw mut reads) };
        let mut left = libc::timeval {
            tv_sec: 0,
            tv_usec: 30_000,
        };
        // SAFETY: live sets and times.
        let selected = unsafe {
            outcome(libc::select(
                a.as_raw_fd() + 1,
                &raw mut reads,
                ptr::null_mut(),
                ptr::null_mut(),
                &raw mut left,
            ))
        };
        // SAFETY: as above.
        let still = unsafe { libc::FD_ISSET(a.as_raw_fd(), &raw const reads) };
        (polled, set.revents, selected, still, left.tv_usec)
    });
}

#[test]
fn epoll_reports_each_edge_once() {
    let (_, said) = same(|| {
        let (read, end) = pipe();
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(0) };
        let mut interest = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: 42,
        };
        // SAFETY: open descriptors and a live event.
        let added = unsafe {
            libc::epoll_ctl(
                epoll,
                libc::EPOLL_CTL_ADD,
                read.as_raw_fd(),
                &raw mut interest,
            )
        };
        assert_eq!(added, 0);
        let wait = |timeout| {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: room for one event.
            let found = unsafe {
                keeps_errno(|| libc::epoll_wait(epoll, &raw mut event, 1, timeout).into())
            };
            (found, { event.u64 })
        };
        let woken = while_asleep(|| wait(-1), || write(&end));
        let again = wait(20);
        // SAFETY: it is this test's.
        unsafe { libc::close(epoll) };
        (woken, again)
    });
    assert_eq!(of("epoll_wait", &said), [BLOCKED[0], BLOCKED[0]]);
}

#[test]
fn sleeps_last_as_long_as_they_should() {
    let (_, said) = same(|| {
        takes(Duration::from_millis(20), || {
            std::thread::sleep(Duration::from_millis(20));
        });
        takes(Duration::from_millis(10), || {
            // SAFETY: no memory is passed.
            assert_eq!(unsafe { libc::usleep(10_000) }, 0);
        });
        let wrong = libc::timespec {
            tv_sec: 0,
            tv_nsec: -1,
        };
        // SAFETY: a live timespec.
        let wrong = unsafe {
            (
                outcome(libc::nanosleep(&raw const wrong, ptr::null_mut())),
                libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const wrong, ptr::null_mut()),
            )
        };
        assert_eq!(wrong, ((-1, libc::EINVAL), libc::EINVAL));
    });
    assert_eq!(of("usleep", &said), BLOCKED);
}

#[test]
fn children_are_waited_for() {
    let (_, said) = same(|| {
        let at_once = Command::new("true").status().unwrap().code();
        let later = Command::new("sh")
            .args(["-c", "sleep 0.05; exit 7"])
            .status()
            .unwrap()
            .code();
        let mut status = 0;
        // SAFETY: a live int; the first process is nobody's child.
        let none = unsafe { outcome(libc::waitpid(1, &raw mut status, 0)) };
        (at_once, later, none)
    });
    assert!(of("waitpid", &said).contains(&BLOCKED[0]), "{said:?}");
    let around = |name| of(name, &said).len();
    assert_eq!((around("before_child"), around("after_child")), (2, 2));
}

#[test]
fn waitid_looks_before_it_waits() {
    let (result, said) = same(|| {
        let mut child = Command::new("sh")
            .args(["-c", "read x; exit 3"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, stdin) = (child.id(), child.stdin.take().unwrap());
        let wait = |options| {
            // SAFETY: all zeros are a valid siginfo.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: a live siginfo.
            let result = unsafe {
                outcome(libc::waitid(
                    libc::P_PID,
                    pid,
                    &raw mut info,
                    libc::WEXITED | libc::WNOWAIT | options,
                ))
            };
            // SAFETY: filled by `waitid`, or all zeros.
            (result, unsafe { info.si_status() })
        };
        let looked = wait(libc::WNOHANG);
        let waited = while_asleep(|| wait(0), move || drop(stdin));
        // The look takes the child, so the call ends with it.
        // SAFETY: all zeros are a valid siginfo.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: a live siginfo.
        let taken =
            unsafe { outcome(libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED)) };
        // An error: the child was taken above.
        let _ = child.wait();
        (looked, waited, taken)
    });
    assert_eq!(result.2, (0, 0));
    assert_eq!(of("waitid", &said), BLOCKED);
}

#[test]
fn message_queues_of_system_v() {
    let (_, said) = same(|| {
        #[repr(C)]
        struct Message(libc::c_long, [u8; 4]);
        // SAFETY: no memory is passed.
        let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
        assert!(queue >= 0);
        let mut message = Message(1, *b"ping");
        let pointer = &raw mut message;
        // SAFETY: a live message of four bytes.
        let none =
            unsafe { outcome(libc::msgrcv(queue, pointer.cast(), 4, 0, libc::IPC_NOWAIT) as i64) };
        let got = while_asleep(
            // SAFETY: as above.
            || unsafe { outcome(libc::msgrcv(queue, pointer.cast(), 4, 0, 0) as i64) },
            || {
                let message = Message(2, *b"pong");
                // SAFETY: as above.
                let sent = unsafe { libc::msgsnd(queue, (&raw const message).cast(), 4, 0) };
                assert_eq!(sent, 0);
            },
        );
        // SAFETY: it is this test's.
        unsafe { libc::msgctl(queue, libc::IPC_RMID, ptr::null_mut()) };
        (none, got, message.0, message.1)
    });
    assert_eq!(of("msgrcv", &said), BLOCKED);
}

#[test]
fn wrong_addresses_are_the_kernels_to_report() {
    let (result, _) = same(|| {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(0) };
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let wrong: *mut libc::c_void = ptr::without_provenance_mut(8);
        // SAFETY: the kernel checks the addresses.
        let results = unsafe {
            let timed = libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll,
                &raw mut event,
                1,
                wrong.cast::<libc::timespec>(),
                ptr::null::<libc::sigset_t>(),
            );
            let timed = outcome(timed);
            let polled = outcome(libc::poll(wrong.cast(), 1, 10));
            let waited = outcome(libc::epoll_wait(epoll, ptr::null_mut(), 0, 10));
            (timed, polled, waited)
        };
        // SAFETY: it is this test's.
        unsafe { libc::close(epoll) };
        results
    });
    let (timed, polled, waited) = result;
    assert_eq!(timed, (-1, libc::EFAULT));
    assert_eq!(polled, (-1, libc::EFAULT));
    assert_eq!(waited, (-1, libc::EINVAL));
}
