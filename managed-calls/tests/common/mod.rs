//! Each scenario runs three times and has to come out the same: on a thread that is no worker, on a
//! worker that sleeps in its calls, and on a worker that sleeps elsewhere where it may.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod parker;

use std::{
    cell::RefCell,
    ffi::c_void,
    fmt,
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Return, Sleep, Worker, set_current,
};

pub(crate) use self::parker::Parker;

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

    fn passed(&self) {
        disturb();
    }

    fn woke_others(&self) {
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

/// Installs a handler for the whole process.
pub(crate) fn handle(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: a handler that is async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        let result = libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        assert_eq!(result, 0);
    }
    parker::RESTARTS.store(flags & libc::SA_RESTART != 0, SeqCst);
}

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
    // SAFETY: the recorder lives until it is taken back below.
    unsafe { set_current(Some(NonNull::from(&current))) };
    let unmanaged = UnmanagedAgain;
    let result = scenario();
    drop(unmanaged);
    (result, recorder.calls.into_inner())
}

/// Takes the thread's worker back, also if the scenario panics.
struct UnmanagedAgain;

impl Drop for UnmanagedAgain {
    fn drop(&mut self) {
        // SAFETY: nothing needs to stay valid.
        unsafe { set_current(None) };
    }
}

/// Runs `scenario` as a worker that sleeps elsewhere than in its calls where it may. Returns its
/// result and how often the worker did so.
pub(crate) fn parking<R>(scenario: impl FnOnce() -> R) -> (R, u32) {
    let parker = Parker::new(|_| false);
    let result = parker.run(scenario);
    (result, parker.parks())
}

/// Runs `scenario` on each kind of thread, demands that all come out the same, and returns what the
/// worker said that sleeps in its calls.
pub(crate) fn same<R: PartialEq + fmt::Debug>(scenario: impl Fn() -> R) -> (R, Vec<Said>) {
    let (result, said, _) = same_and_parks(scenario);
    (result, said)
}

/// [`same`], and how often the other worker slept elsewhere than in its calls.
pub(crate) fn same_and_parks<R: PartialEq + fmt::Debug>(
    scenario: impl Fn() -> R,
) -> (R, Vec<Said>, u32) {
    let plain = scenario();
    let (managed, said) = managed(&scenario);
    assert_eq!(plain, managed, "unmanaged (left) and managed (right)");
    let (parking, parks) = parking(&scenario);
    assert_eq!(plain, parking, "unmanaged (left) and parking (right)");
    (plain, said, parks)
}

/// The result of a call of libc, with its errno if it failed, and 0 otherwise.
pub(crate) fn outcome(result: impl Into<i64>) -> (i64, c_int) {
    // SAFETY: this thread's errno.
    let errno = unsafe { *libc::__errno_location() };
    let result = result.into();
    (result, if result < 0 { errno } else { 0 })
}

/// Runs `call` with an errno that it has no reason to change, demands that a call which succeeds
/// leaves it alone, and returns the outcome.
pub(crate) fn keeps_errno(call: impl FnOnce() -> i64) -> (i64, c_int) {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = libc::ENOTBLK };
    let result = call();
    // SAFETY: as above.
    let errno = unsafe { *libc::__errno_location() };
    if result >= 0 {
        assert_eq!(errno, libc::ENOTBLK, "a call that succeeded changed errno");
    }
    outcome(result)
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

/// A kind of connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    UnixStream,
    UnixDatagram,
    UnixSeqpacket,
    Tcp,
    Udp,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::UnixStream,
        Self::UnixDatagram,
        Self::UnixSeqpacket,
        Self::Tcp,
        Self::Udp,
    ];

    /// Two sockets, each of which receives what the other one sends.
    pub(crate) fn pair(self) -> (OwnedFd, OwnedFd) {
        match self {
            Self::UnixStream => pair(libc::SOCK_STREAM),
            Self::UnixDatagram => pair(libc::SOCK_DGRAM),
            Self::UnixSeqpacket => pair(libc::SOCK_SEQPACKET),
            Self::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                stream.set_nodelay(true).unwrap();
                (stream.into(), listener.accept().unwrap().0.into())
            }
            Self::Udp => {
                let [a, b] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
                a.connect(b.local_addr().unwrap()).unwrap();
                b.connect(a.local_addr().unwrap()).unwrap();
                (a.into(), b.into())
            }
        }
    }

    /// Whether bytes have no bounds.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::UnixStream | Self::Tcp)
    }

    /// Whether one end learns that the other one is gone.
    pub(crate) fn is_connection(self) -> bool {
        !matches!(self, Self::UnixDatagram | Self::Udp)
    }
}

/// Waits until there is something to receive: over the loopback device it comes a moment after it
/// was sent.
pub(crate) fn until_readable(fd: &OwnedFd) {
    let mut set = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    assert_eq!(unsafe { libc::poll(&raw mut set, 1, 20_000) }, 1);
}

pub(crate) fn set_timeout(fd: &OwnedFd, option: c_int, time: Duration) {
    let time = libc::timeval {
        tv_sec: time.as_secs() as i64,
        tv_usec: i64::from(time.subsec_micros()),
    };
    set_option(fd, option, &time);
}

/// Sets an option of the socket's own level.
pub(crate) fn set_option<T>(fd: &OwnedFd, option: c_int, value: &T) {
    // SAFETY: a live value of that size.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

/// Shuts a socket down.
pub(crate) fn shut(fd: &OwnedFd, how: c_int) -> (i64, c_int) {
    // SAFETY: no memory is passed.
    outcome(unsafe { libc::shutdown(fd.as_raw_fd(), how) })
}

/// Memory whose end is known: the byte behind it can be neither read nor written.
pub(crate) struct Guarded(*mut c_void);

impl Guarded {
    const SIZE: usize = 1 << 16;

    pub(crate) fn new() -> Self {
        // SAFETY: a new mapping, of which the second half is closed.
        unsafe {
            let mapping = libc::mmap(
                std::ptr::null_mut(),
                2 * Self::SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(mapping, libc::MAP_FAILED);
            let guard = mapping.byte_add(Self::SIZE);
            assert_eq!(libc::mprotect(guard, Self::SIZE, libc::PROT_NONE), 0);
            Self(mapping)
        }
    }

    /// The last `count` bytes that are accessible begin here.
    pub(crate) fn end_minus(&self, count: usize) -> *mut c_void {
        assert!(count <= Self::SIZE);
        // SAFETY: inside of the mapping.
        unsafe { self.0.byte_add(Self::SIZE - count) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: this mapping, which nobody uses any more.
        unsafe { libc::munmap(self.0, 2 * Self::SIZE) };
    }
}

/// Sends `bytes` with descriptors, which are duplicated by the kernel.
pub(crate) fn send_descriptors(fd: &OwnedFd, bytes: &[u8], passed: &[c_int]) -> (i64, c_int) {
    let mut control = [0_u64; 16];
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeros are a valid message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    let size = size_of_val(passed) as u32;
    // SAFETY: the control buffer has room for a header and the descriptors.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        assert!(message.msg_controllen <= size_of_val(&control));
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        let to = libc::CMSG_DATA(header).cast::<c_int>();
        std::ptr::copy_nonoverlapping(passed.as_ptr(), to, passed.len());
        outcome(libc::sendmsg(fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as i64)
    }
}

/// The descriptors that came with a message.
pub(crate) fn descriptors_in(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut all = Vec::new();
    // SAFETY: control data that the kernel has filled; the descriptors are nobody else's.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            assert_eq!((*header).cmsg_type, libc::SCM_RIGHTS);
            let size = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let from = libc::CMSG_DATA(header).cast::<c_int>();
            for index in 0..size / size_of::<c_int>() {
                all.push(OwnedFd::from_raw_fd(from.add(index).read_unaligned()));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    all
}

/// A pipe: its end to read and its end to write.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let mut both = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(both.as_mut_ptr(), 0) }, 0);
    // SAFETY: just made, and nobody else's.
    unsafe { (OwnedFd::from_raw_fd(both[0]), OwnedFd::from_raw_fd(both[1])) }
}

/// A terminal: the end of the one who types, and that of the program.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (0, 0);

    // SAFETY: room for two descriptors, which are nobody else's.
    unsafe {
        let opened = libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        );
        assert_eq!(opened, 0);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
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
    until_asleep_or(tid, &AtomicBool::new(false));
}

/// The same, or until it has said that it is done.
pub(crate) fn until_asleep_or(tid: libc::pid_t, done: &AtomicBool) {
    let began = Instant::now();
    let mut seen = 0;
    while seen < 2 && !done.load(SeqCst) {
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
