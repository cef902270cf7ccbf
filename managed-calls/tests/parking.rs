//! Workers that wait for a descriptor elsewhere than in the call: the results are those of the
//! call, and a descriptor that is closed or reused under them is still theirs.

use std::{
    cell::Cell,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr::NonNull,
    sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Parked, Readiness, Return, Sleep, Waker, Worker,
    set_current,
};

umcg_managed_calls::define!();

/// What a worker did in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for the descriptor elsewhere.
    Parked,
    /// It makes the call that sleeps.
    Entered,
}

/// A worker that waits in an epoll instance of its own, as a scheduler's does in that of its
/// runtime.
struct Parker {
    /// Told before each sleep.
    steps: Sender<Step>,
    /// What the first wait comes back with, as if a signal had ended it, or by mistake; and whether
    /// it comes back only when the descriptor is ready.
    first: Cell<Option<(Parked, bool)>>,
    refuses: bool,
    /// Readable once the worker was told to look once more.
    event: OwnedFd,
}

impl Worker for Parker {
    fn enter(&self, _call: ManagedCall, _sleep: Sleep, _how: Return) {
        self.steps.send(Step::Entered).unwrap();
    }

    fn exit(&self, _how: Return) {}

    fn park(&self, call: ManagedCall, fd: c_int, readiness: Readiness) -> Parked {
        assert_eq!((call.name, call.argument), ("recv", fd as usize));
        assert_eq!(readiness, Readiness::Readable);
        if self.refuses {
            return Parked::Refused;
        }
        let epoll = Epoll::of([fd, self.event.as_raw_fd()]);
        self.steps.send(Step::Parked).unwrap();
        if let Some((first, ready)) = self.first.take() {
            if ready {
                epoll.wait();
            }
            return first;
        }
        epoll.wait();
        Parked::Woken
    }

    fn park_until(&self, _call: ManagedCall, deadline: u64) -> Parked {
        if self.refuses {
            return Parked::Refused;
        }
        self.steps.send(Step::Parked).unwrap();
        if let Some((first, _)) = self.first.take() {
            return first;
        }
        thread::sleep(Duration::from_nanos(deadline.saturating_sub(now())));
        Parked::Woken
    }

    fn waker(&self) -> Waker {
        Waker {
            call: |event| {
                WOKEN.fetch_add(1, SeqCst);
                let one = 1_u64;
                // SAFETY: eight live bytes.
                unsafe { libc::write(event.addr() as c_int, (&raw const one).cast(), 8) };
            },
            argument: std::ptr::without_provenance(self.event.as_raw_fd() as usize),
        }
    }

    fn yield_now(&self) {}

    fn affinity(&self, _mask: &mut [u8]) {}

    fn unmanage(&self) -> fn(Inherited) {
        |_| ()
    }

    fn before_child(&self) {}

    fn after_child(&self) {}
}

/// How often workers were told to look once more.
static WOKEN: AtomicUsize = AtomicUsize::new(0);

/// Reports once that one descriptor is readable.
struct Epoll(OwnedFd);

impl Epoll {
    fn of(fds: [RawFd; 2]) -> Self {
        // SAFETY: a live event; the result is checked.
        unsafe {
            let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            assert!(epoll >= 0);
            let mut event = libc::epoll_event {
                events: (libc::EPOLLIN | libc::EPOLLONESHOT) as u32,
                u64: 0,
            };
            for fd in fds {
                let added = libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event);
                assert_eq!(added, 0);
            }
            Self(OwnedFd::from_raw_fd(epoll))
        }
    }

    fn wait(&self) {
        // SAFETY: a live event.
        unsafe {
            let mut event: libc::epoll_event = std::mem::zeroed();
            while libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, -1) != 1 {}
        }
    }
}

/// Runs `call` as a worker, on a thread of its own, and tells what it did.
fn on_worker<R: Send + 'static>(
    first: Option<(Parked, bool)>,
    refuses: bool,
    call: impl FnOnce() -> R + Send + 'static,
) -> (thread::JoinHandle<R>, Receiver<Step>) {
    let (steps, told) = channel();
    let thread = thread::spawn(move || {
        let parker = Parker {
            steps,
            first: Cell::new(first),
            refuses,
            // SAFETY: a new descriptor.
            event: unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) },
        };
        let current = CurrentWorker::new(NonNull::from(&parker as &dyn Worker));
        // SAFETY: the worker lives until it is taken back below.
        unsafe { set_current(Some(NonNull::from(&current))) };
        let result = call();
        // SAFETY: nothing needs to stay valid.
        unsafe { set_current(None) };
        result
    });
    (thread, told)
}

/// CLOCK_MONOTONIC nanoseconds.
fn now() -> u64 {
    // SAFETY: a live time.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }
}

/// `recv` of four bytes at most, with its errno if it fails.
fn receive(fd: RawFd, flags: c_int) -> Result<Vec<u8>, c_int> {
    let mut buffer = [0_u8; 4];
    // SAFETY: a live buffer of that length.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(count)
        .map(|count| buffer[..count].to_vec())
        .map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One test after the other: they count and reuse the numbers of descriptors.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[test]
fn a_parked_worker_receives_what_comes() {
    let _one = alone();
    for end in [false, true] {
        let (mut here, there) = UnixStream::pair().unwrap();
        let fd = there.as_raw_fd();
        let (worker, steps) = on_worker(None, false, move || receive(fd, 0));
        assert_eq!(steps.recv(), Ok(Step::Parked));
        if end {
            drop(here);
            assert_eq!(worker.join().unwrap(), Ok(vec![]));
        } else {
            here.write_all(b"ab").unwrap();
            assert_eq!(worker.join().unwrap(), Ok(b"ab".to_vec()));
        }
        assert!(steps.recv().is_err(), "it made no other call");
    }
}

/// A wake-up for nothing, such as that of an earlier event, does not end the call.
#[test]
fn a_worker_that_is_woken_for_nothing_parks_again() {
    let _one = alone();
    let (mut here, there) = UnixStream::pair().unwrap();
    let fd = there.as_raw_fd();
    let (worker, steps) = on_worker(Some((Parked::Woken, false)), false, move || receive(fd, 0));
    assert_eq!([steps.recv(), steps.recv()], [Ok(Step::Parked); 2]);
    here.write_all(b"x").unwrap();
    assert_eq!(worker.join().unwrap(), Ok(b"x".to_vec()));
}

#[test]
fn a_signal_ends_the_call_unless_there_is_something() {
    let _one = alone();
    for ready in [false, true] {
        let (mut here, there) = UnixStream::pair().unwrap();
        let fd = there.as_raw_fd();
        let first = Some((Parked::Interrupted, ready));
        let (worker, steps) = on_worker(first, false, move || receive(fd, 0));
        assert_eq!(steps.recv(), Ok(Step::Parked));
        let expected = if ready {
            here.write_all(b"y").unwrap();
            Ok(b"y".to_vec())
        } else {
            Err(libc::EINTR)
        };
        assert_eq!(worker.join().unwrap(), expected);
        assert!(steps.recv().is_err(), "it made no other call");
    }
}

/// What a worker must not wait for elsewhere: it would wait for longer than the call.
#[test]
fn timeouts_and_flags_stay_with_the_call() {
    let _one = alone();
    let (_here, there) = UnixStream::pair().unwrap();
    let fd = there.as_raw_fd();
    there
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let (worker, steps) = on_worker(None, false, move || receive(fd, 0));
    assert_eq!(
        worker.join().unwrap(),
        Err(libc::EAGAIN),
        "after the timeout"
    );
    assert_eq!(steps.recv(), Ok(Step::Entered));
    there.set_read_timeout(None).unwrap();
    there.set_nonblocking(true).unwrap();
    for flags in [0, libc::MSG_DONTWAIT, libc::MSG_ERRQUEUE] {
        let (worker, steps) = on_worker(None, false, move || receive(fd, flags));
        assert_eq!(worker.join().unwrap(), Err(libc::EAGAIN), "{flags}");
        assert_ne!(steps.recv(), Ok(Step::Parked), "{flags}");
    }
}

/// The second one sleeps in its call, as without a scheduler.
#[test]
fn one_worker_parks_for_a_descriptor() {
    let _one = alone();
    let (mut here, there) = UnixStream::pair().unwrap();
    let fd = there.as_raw_fd();
    let (first, steps_of_first) = on_worker(None, false, move || receive(fd, 0));
    assert_eq!(steps_of_first.recv(), Ok(Step::Parked));
    let (second, steps_of_second) = on_worker(None, false, move || receive(fd, 0));
    assert_eq!(steps_of_second.recv(), Ok(Step::Entered));
    here.write_all(b"1").unwrap();
    here.write_all(b"2").unwrap();
    // Whichever is first may take both.
    drop(here);
    let mut all = [first.join().unwrap(), second.join().unwrap()]
        .map(Result::unwrap)
        .concat();
    all.sort_unstable();
    assert_eq!(all, b"12");
}

/// However the descriptor is closed under the worker, and whatever has its number then: the worker
/// receives what was sent to its own file, and nothing is left open.
#[test]
fn a_closed_descriptor_is_still_that_of_its_waiter() {
    let _one = alone();
    /// Takes the number `fd` away from its file, and opens `other` under it, if it can say so.
    type Close = fn(fd: RawFd, other: RawFd);
    let ways: [(&str, Close); 5] = [
        ("close", |fd, other| {
            // SAFETY: this test's descriptors.
            unsafe {
                assert_eq!(libc::close(fd), 0);
                // The lowest free number, which may be that of the waiter's duplicate's successor.
                assert_eq!(libc::fcntl(other, libc::F_DUPFD_CLOEXEC, fd), fd);
            }
        }),
        ("drop", |fd, other| {
            // SAFETY: this test's descriptor, owned by nobody else.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            // SAFETY: as above.
            unsafe { assert_eq!(libc::fcntl(other, libc::F_DUPFD_CLOEXEC, fd), fd) };
        }),
        ("dup2", |fd, other| {
            // SAFETY: this test's descriptors.
            unsafe { assert_eq!(libc::dup2(other, fd), fd) };
        }),
        ("dup3", |fd, other| {
            // SAFETY: this test's descriptors.
            unsafe { assert_eq!(libc::dup3(other, fd, libc::O_CLOEXEC), fd) };
        }),
        ("close_range", |fd, other| {
            // SAFETY: this test's descriptors.
            unsafe {
                assert_eq!(libc::close_range(fd as u32, fd as u32, 0), 0);
                assert_eq!(libc::fcntl(other, libc::F_DUPFD_CLOEXEC, fd), fd);
            }
        }),
    ];
    for (way, close) in ways {
        let before = open_descriptors();
        let (mut here, there) = UnixStream::pair().unwrap();
        let (mut stranger, other) = UnixStream::pair().unwrap();
        let fd = there.into_raw_fd();
        let (worker, steps) = on_worker(None, false, move || receive(fd, 0));
        assert_eq!(steps.recv(), Ok(Step::Parked), "{way}");
        let woken = WOKEN.load(SeqCst);
        close(fd, other.as_raw_fd());
        // Its registration with epoll may be gone, or be another worker's.
        assert!(WOKEN.load(SeqCst) > woken, "{way}");
        stranger.write_all(b"not").unwrap();
        here.write_all(b"mine").unwrap();
        assert_eq!(worker.join().unwrap(), Ok(b"mine".to_vec()), "{way}");
        // The other file still has what was sent to it, under the number as well.
        // SAFETY: open until the end of this round.
        let reused = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut reused = UnixStream::from(reused.try_clone_to_owned().unwrap());
        let mut buffer = [0; 3];
        reused.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"not", "{way}");
        // SAFETY: this test's descriptor.
        unsafe { libc::close(fd) };
        drop((here, stranger, other, reused));
        assert_eq!(open_descriptors(), before, "{way}");
    }
}

/// Without a free number for a duplicate, the worker's call fails, and takes nothing from whoever
/// has its descriptor's number next.
#[test]
fn without_a_free_descriptor_the_call_fails() {
    let _one = alone();
    let (here, there) = UnixStream::pair().unwrap();
    let (mut stranger, other) = UnixStream::pair().unwrap();
    let fd = there.into_raw_fd();
    let (worker, steps) = on_worker(Some((Parked::Woken, false)), false, move || receive(fd, 0));
    // Woken for nothing once: its second wait is the one that the close ends.
    assert_eq!([steps.recv(), steps.recv()], [Ok(Step::Parked); 2]);
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: live limits, and this test's descriptors.
    let woken = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let none = libc::rlimit {
            rlim_cur: 3,
            ..limit
        };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none);
        let before = WOKEN.load(SeqCst);
        assert_eq!(libc::close(fd), 0);
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        assert_eq!(
            libc::fcntl(other.as_raw_fd(), libc::F_DUPFD_CLOEXEC, fd),
            fd
        );
        WOKEN.load(SeqCst) - before
    };
    assert_eq!(woken, 1);
    stranger.write_all(b"not").unwrap();
    assert_eq!(worker.join().unwrap(), Err(libc::EBADF));
    drop(here);
    // SAFETY: this test's descriptor.
    unsafe { libc::close(fd) };
}

/// The worker refuses to park: the waiter leaves no trace.
#[test]
fn a_worker_that_does_not_park_leaves_no_waiter() {
    let _one = alone();
    let (mut here, there) = UnixStream::pair().unwrap();
    let fd = there.as_raw_fd();
    for refuses in [true, false] {
        let (worker, steps) = on_worker(None, refuses, move || receive(fd, 0));
        let expected = if refuses { Step::Entered } else { Step::Parked };
        assert_eq!(steps.recv(), Ok(expected));
        here.write_all(b"z").unwrap();
        assert_eq!(worker.join().unwrap(), Ok(b"z".to_vec()));
    }
}

/// A child has descriptors of its own: what it closes changes nothing for the parent's worker, and
/// it waits for nobody. Both kinds of child.
#[test]
fn a_child_that_closes_is_not_this_process() {
    let _one = alone();
    let (mut here, there) = UnixStream::pair().unwrap();
    let fd = there.as_raw_fd();
    let before = open_descriptors();
    let (worker, steps) = on_worker(None, false, move || receive(fd, 0));
    assert_eq!(steps.recv(), Ok(Step::Parked));
    for flags in [0, libc::CLONE_VFORK] {
        // SAFETY: the child makes two system calls on its own stack, which is a copy: without
        // CLONE_VM this is fork(2).
        let child = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            // SAFETY: in the child.
            unsafe {
                libc::close(fd);
                libc::_exit(0);
            }
        }
        let mut status = 0;
        // SAFETY: the child from above.
        unsafe {
            assert_eq!(
                libc::waitpid(child as c_int, &raw mut status, 0) as i64,
                child
            )
        };
        assert_eq!(status, 0);
    }
    here.write_all(b"ok").unwrap();
    assert_eq!(worker.join().unwrap(), Ok(b"ok".to_vec()));
    assert_eq!(open_descriptors(), before);
}

/// All ways to sleep for 20 ms.
const SLEEPS: [(&str, fn()); 4] = [
    ("std", || thread::sleep(Duration::from_millis(20))),
    ("usleep", || {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::usleep(20_000) }, 0);
    }),
    ("nanosleep", || {
        let time = time(20_000_000);
        // SAFETY: a live time.
        let result = unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
        assert_eq!(result, 0);
    }),
    ("clock_nanosleep", || {
        let until = time(now() + 20_000_000);
        // SAFETY: a live time.
        let error = unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const until,
                std::ptr::null_mut(),
            )
        };
        assert_eq!(error, 0);
    }),
];

const fn time(nanoseconds: u64) -> libc::timespec {
    libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    }
}

#[test]
fn a_sleep_lasts_as_long_wherever_the_worker_sleeps() {
    let _one = alone();
    for (name, sleep) in SLEEPS {
        for (first, refuses, expected) in [
            (None, false, &[Step::Parked][..]),
            (None, true, &[Step::Entered]),
            // Woken for nothing.
            (Some((Parked::Woken, false)), false, &[Step::Parked; 2]),
        ] {
            let (worker, steps) = on_worker(first, refuses, move || {
                let begin = now();
                sleep();
                now() - begin
            });
            assert!(worker.join().unwrap() >= 20_000_000, "{name}, {first:?}");
            assert_eq!(steps.iter().collect::<Vec<_>>(), expected, "{name}");
        }
    }
}

/// The time that is left is written, unless the sleep had an absolute end; and a worker that may
/// not park for the rest sleeps for the rest in the call.
#[test]
fn a_signal_ends_a_sleep_with_the_time_that_is_left() {
    let _one = alone();
    let (worker, _steps) = on_worker(Some((Parked::Interrupted, false)), false, || {
        let hour = time(3_600_000_000_000);
        let mut left = time(0);
        // SAFETY: live times.
        let result = unsafe { libc::nanosleep(&raw const hour, &raw mut left) };
        let error = std::io::Error::last_os_error().raw_os_error();
        (result, error, left.tv_sec)
    });
    let (result, error, left) = worker.join().unwrap();
    assert_eq!((result, error), (-1, Some(libc::EINTR)));
    assert!((3_500..=3_600).contains(&left), "{left}");
    let (worker, _steps) = on_worker(Some((Parked::Interrupted, false)), false, || {
        let until = time(now() + 3_600_000_000_000);
        let mut left = time(7);
        // SAFETY: live times.
        let error = unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const until,
                &raw mut left,
            )
        };
        (error, left.tv_nsec)
    });
    assert_eq!(worker.join().unwrap(), (libc::EINTR, 7));
}

/// What the kernel refuses is refused in the same way: a wrong time, and a wrong address.
#[test]
fn times_that_the_kernel_refuses() {
    let _one = alone();
    let results = || {
        let wrong = libc::timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000_000,
        };
        [
            &raw const wrong,
            std::ptr::without_provenance(8),
            std::ptr::null(),
        ]
        .map(|time| {
            // SAFETY: the kernel checks the address.
            unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, time, std::ptr::null_mut()) }
        })
    };
    let (worker, _steps) = on_worker(None, false, results);
    assert_eq!(
        worker.join().unwrap(),
        [libc::EINVAL, libc::EFAULT, libc::EFAULT]
    );
}
