//! Descriptors are closed while workers wait for them, by several threads at once, and their
//! numbers are reused at once: no byte reaches the wrong reader.

mod common;

use std::{
    cell::Cell,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
    path::Path,
    process::Command,
    ptr::NonNull,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use common::{Kind, Parker, handle, outcome, until_readable};
use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Parked, Readiness, Return, Sleep, Worker, set_current,
};

umcg_managed_calls::define!();

/// How many workers wait at the same time, each with a thread that closes its descriptor.
const LANES: u64 = 3;
/// How many descriptors are closed under each of them.
const ROUNDS: u32 = 1000;

/// What is waiting in every socket of the threads that take each number that becomes free. No
/// connection has it for its number.
const POISON: [u8; 8] = [0xff; 8];

/// The numbers of connections: each has another one, which is all that is sent over it.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// A source of arbitrary numbers, the same in each run (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn send(fd: &OwnedFd, bytes: [u8; 8]) {
    // SAFETY: eight readable bytes.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), 8, libc::MSG_NOSIGNAL) };
    assert_eq!(sent, 8);
}

/// One call that receives up to sixteen bytes, of three.
fn receive(fd: RawFd, call: u64, flags: c_int) -> ((i64, c_int), [u8; 16]) {
    let mut buffer = [0; 16];
    let to = buffer.as_mut_ptr().cast();
    let mut part = libc::iovec {
        iov_base: to,
        iov_len: 16,
    };
    // SAFETY: room for sixteen bytes; all zeros are a valid message.
    let result = unsafe {
        match call {
            0 => libc::recv(fd, to, 16, flags),
            1 => {
                let none = std::ptr::null_mut();
                libc::recvfrom(fd, to, 16, flags, none, std::ptr::null_mut())
            }
            _ => {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                libc::recvmsg(fd, &raw mut message, flags)
            }
        }
    };
    (outcome(result as i64), buffer)
}

/// What a worker has to do: one call on a descriptor.
type Task = (RawFd, u64);

/// What a worker and the thread that closes its descriptors share.
#[derive(Default)]
struct Lane {
    /// The worker's thread.
    tid: AtomicI32,
    /// How many calls of the worker have come to a wait for their descriptor.
    waiting: AtomicU32,
}

/// A worker. It is woken for nothing now and then, so that it calls again while its descriptor is
/// closed.
fn worker(
    lane: &Lane,
    mut numbers: Numbers,
    tasks: Receiver<Task>,
    results: Sender<((i64, c_int), [u8; 16])>,
) {
    // SAFETY: no arguments.
    lane.tid.store(unsafe { libc::gettid() }, SeqCst);
    let parks = Cell::new(0);
    let parker = Parker::new(|_| {
        parks.set(parks.get() + 1);
        if parks.get() == 1 {
            lane.waiting.fetch_add(1, SeqCst);
        }
        // A call that was woken for nothing too often sleeps in the kernel, in the end, by the
        // number that the program gave it.
        let woken = parks.get() < 7 && numbers.below(4) > 0;
        if woken {
            spin(numbers.below(200));
        }
        woken
    });
    for (fd, call) in tasks {
        parks.set(0);
        let result = parker.run(|| receive(fd, call, 0));
        if results.send(result).is_err() {
            return;
        }
    }
}

fn spin(count: u64) {
    for _ in 0..count {
        std::hint::spin_loop();
    }
}

/// Holds a worker up at whatever step it is.
extern "C" fn hold_up(_signal: c_int) {
    spin(500);
}

/// Closes descriptors under one worker.
fn lane(seed: u64) {
    let mut numbers = Numbers(seed);
    let lane = Lane::default();
    let (task, tasks) = channel();
    let (result, results) = channel();
    thread::scope(|scope| {
        let shared = &lane;
        scope.spawn(move || worker(shared, Numbers(seed + 1000), tasks, result));
        // The worker ends with the tasks, also if this thread panics.
        let task = task;
        for round in 0..ROUNDS {
            let kinds = [
                Kind::UnixStream,
                Kind::UnixSeqpacket,
                Kind::UnixDatagram,
                Kind::Udp,
            ];
            let kind = kinds[numbers.below(4) as usize];
            let number = || CONNECTIONS.fetch_add(1, SeqCst).to_ne_bytes();
            let (sender, receiver) = kind.pair();
            let (other_sender, other) = kind.pair();
            let (mine, others) = (number(), number());
            let fd = receiver.into_raw_fd();
            send(&other_sender, others);
            task.send((fd, numbers.below(3))).unwrap();
            while lane.waiting.load(SeqCst) == round {
                thread::yield_now();
            }
            // At different steps of the worker.
            spin(numbers.below(100));
            if numbers.below(2) == 0 {
                let tid = lane.tid.load(SeqCst);
                // SAFETY: no memory is passed.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1) };
                spin(numbers.below(100));
            }
            let before = numbers.below(4) == 0;
            if before {
                // The worker receives it while the descriptor is closed.
                send(&sender, mine);
            }
            let is_duplicate = close(numbers.below(4), fd, &other);
            if !before {
                spin(numbers.below(200));
                send(&sender, mine);
            }
            let Ok((result, buffer)) = results.recv_timeout(Duration::from_secs(60)) else {
                eprintln!("what was sent to a worker's {kind:?} does not reach it");
                // The worker would be waited for.
                std::process::abort();
            };
            assert_eq!((result, &buffer[..8]), ((8, 0), &mine[..]), "{kind:?}");
            until_readable(&other);
            let (result, buffer) = receive(other.as_raw_fd(), 0, libc::MSG_DONTWAIT);
            assert_eq!((result, &buffer[..8]), ((8, 0), &others[..]), "{kind:?}");
            if is_duplicate {
                // SAFETY: this lane's own descriptor.
                assert_eq!(unsafe { libc::close(fd) }, 0);
            }
        }
    });
}

/// Takes the number `fd` away from its file in one of four ways. True: it is one of `other` now.
fn close(way: u64, fd: RawFd, other: &OwnedFd) -> bool {
    // SAFETY: descriptors of the caller's.
    unsafe {
        match way {
            0 => {
                assert_eq!(libc::close(fd), 0);
                false
            }
            1 => {
                assert_eq!(libc::close_range(fd as u32, fd as u32, 0), 0);
                false
            }
            2 => {
                assert_eq!(libc::dup2(other.as_raw_fd(), fd), fd);
                true
            }
            _ => {
                assert_eq!(libc::dup3(other.as_raw_fd(), fd, libc::O_CLOEXEC), fd);
                true
            }
        }
    }
}

/// Takes the numbers that become free, with sockets in which something is waiting.
fn take_numbers(over: &AtomicBool) {
    let mut kept = std::collections::VecDeque::new();
    while !over.load(SeqCst) {
        let (sender, receiver) = Kind::UnixStream.pair();
        send(&sender, POISON);
        kept.push_back((sender, receiver));
        if kept.len() > 4 {
            let (_sender, receiver) = kept.pop_front().unwrap();
            let (result, buffer) = receive(receiver.as_raw_fd(), 0, libc::MSG_DONTWAIT);
            assert_eq!(
                (result, &buffer[..8]),
                ((8, 0), &POISON[..]),
                "it was taken"
            );
        }
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The tests count and reuse the numbers of this process's descriptors.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn no_byte_reaches_the_wrong_reader() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = open_descriptors();
    handle(libc::SIGUSR1, hold_up, libc::SA_RESTART);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let takers = scope.spawn(|| take_numbers(&over));
        let lanes: Vec<_> = (0..LANES)
            .map(|index| scope.spawn(move || lane(0x9e37_79b9 + index)))
            .collect();
        let lanes: Vec<_> = lanes
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        over.store(true, SeqCst);
        takers.join().unwrap();
        for lane in lanes {
            lane.unwrap();
        }
    });
    assert_eq!(open_descriptors(), before);
}

/// Receiving calls that take their time before they enter the kernel.
const SLOW: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static ssize_t (*next_recv)(int, void *, size_t, int);
static ssize_t (*next_recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
static ssize_t (*next_recvmsg)(int, struct msghdr *, int);

__attribute__((constructor)) static void find(void)
{
    next_recv = dlsym(RTLD_NEXT, "recv");
    next_recvfrom = dlsym(RTLD_NEXT, "recvfrom");
    next_recvmsg = dlsym(RTLD_NEXT, "recvmsg");
}

static void take_time(void)
{
    static _Thread_local unsigned int seed;
    struct timespec now, end;

    if (rand_r(&seed) % 2)
        return;
    clock_gettime(CLOCK_MONOTONIC, &end);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - end.tv_sec) * 1000000000 + now.tv_nsec - end.tv_nsec < 20000);
}

ssize_t recv(int fd, void *to, size_t count, int flags)
{
    take_time();
    return next_recv(fd, to, count, flags);
}

ssize_t recvfrom(int fd, void *to, size_t count, int flags, struct sockaddr *from, socklen_t *size)
{
    take_time();
    return next_recvfrom(fd, to, count, flags, from, size);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    take_time();
    return next_recvmsg(fd, message, flags);
}
"#;

/// The same behind another interposer, which makes the time long between the choice of a
/// descriptor and the call: a thread that closes the descriptor has to wait meanwhile.
#[test]
fn no_byte_reaches_the_wrong_reader_of_a_slow_call() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, library) = (folder.join("slow.c"), folder.join("libslow.so"));
    std::fs::write(&source, SLOW).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(compiled.success());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "no_byte_reaches_the_wrong_reader"])
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A worker that waits elsewhere once, is woken for nothing, and then has to sleep in the call.
/// Just before, something else gets the descriptor's number, and what it waits for is sent.
struct Refused {
    parks: Cell<u32>,
    fd: RawFd,
    other: RawFd,
    sender: OwnedFd,
}

impl Worker for Refused {
    fn enter(&self, _call: ManagedCall, _sleep: Sleep, _how: Return) {
        // SAFETY: descriptors of the test's.
        unsafe { libc::dup2(self.other, self.fd) };
        let number = 7_u64.to_ne_bytes();
        let (from, flags) = (number.as_ptr().cast(), libc::MSG_NOSIGNAL);
        // Fails if nobody keeps the file of the receiver.
        // SAFETY: eight readable bytes.
        unsafe { libc::send(self.sender.as_raw_fd(), from, 8, flags) };
    }

    fn exit(&self, _how: Return) {}

    fn park(&self, _call: ManagedCall, _fd: c_int, _readiness: Readiness) -> Parked {
        self.parks.set(self.parks.get() + 1);
        match self.parks.get() {
            1 => Parked::Woken,
            _ => Parked::Refused,
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

#[test]
fn a_worker_that_has_waited_elsewhere_takes_its_file_into_the_call() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = open_descriptors();
    for call in 0..3 {
        let (sender, receiver) = Kind::UnixStream.pair();
        let (other_sender, other) = Kind::UnixStream.pair();
        send(&other_sender, POISON);
        let worker = Refused {
            parks: Cell::new(0),
            fd: receiver.into_raw_fd(),
            other: other.as_raw_fd(),
            sender,
        };
        let current = CurrentWorker::new(NonNull::from(&worker as &dyn Worker));
        // SAFETY: the worker lives until it is taken back below.
        unsafe { set_current(Some(NonNull::from(&current))) };
        let (result, buffer) = receive(worker.fd, call, 0);
        // SAFETY: nothing needs to stay valid; this test's descriptor.
        unsafe {
            set_current(None);
            assert_eq!(libc::close(worker.fd), 0);
        }
        assert_eq!((result, &buffer[..8]), ((8, 0), &7_u64.to_ne_bytes()[..]));
        let (result, buffer) = receive(other.as_raw_fd(), 0, libc::MSG_DONTWAIT);
        assert_eq!((result, &buffer[..8]), ((8, 0), &POISON[..]));
    }
    assert_eq!(open_descriptors(), before);
}
