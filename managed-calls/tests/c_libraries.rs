//! Calls that C code makes: seen, not seen, and cancelled.
//!
//! The C code is compiled by each test and loaded into this program, as a plug-in is.

mod common;

use std::{
    ffi::{CStr, CString, c_void},
    fs, mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
    process::Command,
    ptr::{self, NonNull},
    sync::atomic::{AtomicI32, Ordering::SeqCst},
};

use common::{Recorder, managed, pair, parking, same, until_asleep};
use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Parked, Readiness, Return, Sleep, Waker, Worker,
    set_current,
};

umcg_managed_calls::define!();

/// A library that is never closed.
struct Library(*mut c_void);

impl Library {
    /// Compiles it, with glibc's checks of buffer sizes.
    fn new(name: &str, source: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let file = folder.join(format!("{name}.c"));
        let library = folder.join(format!("lib{name}.so"));
        fs::write(&file, source).unwrap();
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-D_FORTIFY_SOURCE=2", "-Wall"])
            .args(["-pthread", "-o"])
            .args([&library, &file])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let library = CString::new(library.to_str().unwrap()).unwrap();
        // SAFETY: a library without constructors.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "{library:?} cannot be loaded");
        Self(handle)
    }

    /// The function of that name.
    ///
    /// # Safety
    /// It has the type `F`.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> F {
        // SAFETY: an open library and a C string.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!address.is_null(), "{name:?}");
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
        // SAFETY: the caller's promise.
        unsafe { mem::transmute_copy(&address) }
    }
}

/// Each call waits for nothing, for a millisecond at most: no other thread is needed.
const CALLS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static struct timespec soon(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    time.tv_nsec += 1000000;
    if (time.tv_nsec >= 1000000000) {
        time.tv_nsec -= 1000000000;
        time.tv_sec++;
    }
    return time;
}

/* The calls of one family. Returns how many did not do what they should. */
int sockets(volatile int size)
{
    struct timeval brief = { .tv_usec = 1000 };
    char buffer[8];
    struct iovec part = { buffer, sizeof(buffer) };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    int both[2], wrong = 0;

    wrong += socketpair(AF_UNIX, SOCK_STREAM, 0, both) != 0;
    setsockopt(both[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
    /* The compiler cannot know that `size` fits: these become __recv_chk and __recvfrom_chk. */
    wrong += recv(both[0], buffer, size, 0) != -1 || errno != EAGAIN;
    wrong += recvfrom(both[0], buffer, size, 0, NULL, NULL) != -1 || errno != EAGAIN;
    wrong += recvmsg(both[0], &message, 0) != -1 || errno != EAGAIN;
    wrong += read(both[0], buffer, size) != -1 || errno != EAGAIN;
    wrong += write(both[1], "abcdef", 6) != 6;
    wrong += read(both[0], buffer, size) != 6;
    wrong += send(both[1], "abcdef", 6, 0) != 6;
    wrong += recv(both[0], buffer, size, 0) != 6 || memcmp(buffer, "abcdef", 6);
    wrong += close(both[0]) != 0 || close(both[1]) != 0;
    return wrong;
}

int waits(volatile int count)
{
    struct pollfd set[1] = { { .fd = -1 } };
    struct timespec brief = { .tv_nsec = 1000000 };
    struct timeval time = { .tv_usec = 1000 };
    int wrong = 0;

    wrong += poll(set, count, 1) != 0;
    wrong += ppoll(set, count, &brief, NULL) != 0;
    wrong += select(0, NULL, NULL, NULL, &time) != 0;
    wrong += usleep(1000) != 0;
    wrong += nanosleep(&brief, NULL) != 0;
    wrong += thrd_sleep(&brief, NULL) != 0;
    wrong += waitpid(-1, NULL, 0) != -1 || errno != ECHILD;
    return wrong;
}

int locks(int path_flags)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    struct timespec until;
    sem_t semaphore;
    int wrong = 0;
    int fd = open("/proc/self/comm", path_flags);

    wrong += fd < 0;
    wrong += flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    wrong += pthread_mutex_lock(&mutex) != 0;
    until = soon(CLOCK_REALTIME);
    wrong += pthread_mutex_timedlock(&mutex, &until) != ETIMEDOUT;
    until = soon(CLOCK_REALTIME);
    wrong += pthread_cond_timedwait(&condition, &mutex, &until) != ETIMEDOUT;
    until = soon(CLOCK_MONOTONIC);
    wrong += pthread_cond_clockwait(&condition, &mutex, CLOCK_MONOTONIC, &until) != ETIMEDOUT;
    wrong += pthread_mutex_unlock(&mutex) != 0;
    wrong += pthread_rwlock_wrlock(&lock) != 0;
    until = soon(CLOCK_REALTIME);
    wrong += pthread_rwlock_timedrdlock(&lock, &until) == 0;
    wrong += pthread_rwlock_unlock(&lock) != 0;
    sem_init(&semaphore, 0, 0);
    until = soon(CLOCK_REALTIME);
    wrong += sem_timedwait(&semaphore, &until) != -1 || errno != ETIMEDOUT;
    sem_post(&semaphore);
    wrong += sem_wait(&semaphore) != 0;
    return wrong;
}

/* The same by the kernel's own interface. */
static long raw(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#else
    long result = syscall(number, a, b, c, d, e, f);

    return result == -1 ? -errno : result;
#endif
}

int raw_calls(int unused)
{
    struct timespec brief = { .tv_nsec = 1000000 };
    char buffer[8];
    int both[2], wrong = 0, word = 0;

    (void)unused;
    errno = ENOTBLK;
    wrong += raw(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, (long)both, 0, 0) != 0;
    wrong += raw(SYS_recvfrom, both[0], (long)buffer, 8, MSG_DONTWAIT, 0, 0) != -EAGAIN;
    wrong += raw(SYS_sendto, both[1], (long)"abc", 3, 0, 0, 0) != 3;
    wrong += raw(SYS_read, both[0], (long)buffer, 8, 0, 0, 0) != 3;
    wrong += raw(SYS_nanosleep, (long)&brief, 0, 0, 0, 0, 0) != 0;
    wrong += raw(SYS_futex, (long)&word, 0, 0, (long)&brief, 0, 0) != -ETIMEDOUT;
    wrong += raw(SYS_ppoll, 0, 0, (long)&brief, 0, 8, 0) != 0;
    wrong += raw(SYS_close, both[0], 0, 0, 0, 0, 0) != 0;
    wrong += raw(SYS_close, both[1], 0, 0, 0, 0, 0) != 0;
    wrong += errno != ENOTBLK;
    return wrong;
}
"#;

#[test]
fn the_calls_of_a_c_library_are_seen() {
    let library = Library::new("calls", CALLS);
    let certain = [
        (c"sockets", 8, &["recv", "recvfrom", "recvmsg"][..]),
        (
            c"waits",
            1,
            &["poll", "ppoll", "usleep", "nanosleep", "thrd_sleep"],
        ),
        (
            c"locks",
            libc::O_RDONLY,
            &[
                "pthread_mutex_timedlock",
                "pthread_cond_timedwait",
                "pthread_cond_clockwait",
                "sem_timedwait",
            ],
        ),
    ];
    let possible: [&[&str]; 3] = [
        &["__read_chk", "write"],
        &["select"],
        &["__open_2", "pthread_rwlock_timedrdlock"],
    ];
    for ((function, argument, certain), possible) in certain.into_iter().zip(possible) {
        // SAFETY: the type that it has above.
        let call: extern "C" fn(c_int) -> c_int = unsafe { library.function(function) };
        let (wrong, said) = same(|| call(argument));
        assert_eq!(wrong, 0, "{function:?}");
        for (sleep, names) in [(Sleep::Certain, certain), (Sleep::Possible, possible)] {
            for name in names {
                assert!(
                    said.iter().any(|said| said.0 == *name && said.1 == sleep),
                    "{name}: {said:?}"
                );
            }
        }
        // What does not sleep says nothing: a lock that is free, a child that is not there.
        for name in ["send", "flock", "sem_wait", "pthread_mutex_lock", "waitpid"] {
            assert!(said.iter().all(|said| said.0 != name), "{name}: {said:?}");
        }
    }
}

#[test]
fn raw_system_calls_are_not_seen_and_work() {
    let library = Library::new("raw", CALLS);
    // SAFETY: the type that it has above.
    let call: extern "C" fn(c_int) -> c_int = unsafe { library.function(c"raw_calls") };
    let (wrong, said) = same(|| call(0));
    assert_eq!(wrong, 0);
    assert_eq!(said, []);
}

const CANCELLED: &str = r#"
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static _Atomic int tid, cleaned;
static void (*begin)(void);
static int call, fd;

static void clean(void *unused)
{
    (void)unused;
    cleaned++;
}

static void *victim(void *unused)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    struct timespec hour = { .tv_sec = 3600 };
    struct msghdr message = { 0 };
    sem_t semaphore;
    char byte;

    (void)unused;
    begin();
    pthread_cleanup_push(clean, NULL);
    sem_init(&semaphore, 0, 0);
    tid = syscall(SYS_gettid);
    switch (call) {
    case 0: recv(fd, &byte, 1, 0); break;
    case 1: recvmsg(fd, &message, 0); break;
    case 2: read(fd, &byte, 1); break;
    case 3: poll(NULL, 0, -1); break;
    case 4: nanosleep(&hour, NULL); break;
    case 5: sem_wait(&semaphore); break;
    case 6: pause(); break;
    case 7:
        pthread_mutex_lock(&mutex);
        pthread_cleanup_push((void (*)(void *))pthread_mutex_unlock, &mutex);
        pthread_cond_wait(&condition, &mutex);
        pthread_cleanup_pop(1);
        break;
    case 8: recv(fd, &byte, 1, MSG_WAITALL); break;
    case 9: accept(fd, NULL, NULL); break;
    }
    pthread_cleanup_pop(0);
    return NULL;
}

/* Cancels a thread in a call, once `asleep` has returned, and does `then`. Returns the number of
   clean-ups that ran, or -1 if the thread was not cancelled. */
int cancel(int which, int with, void (*start)(void), void (*asleep)(int), void (*then)(void))
{
    pthread_t thread;
    void *value;

    tid = 0;
    cleaned = 0;
    begin = start;
    call = which;
    fd = with;
    if (pthread_create(&thread, NULL, victim, NULL) != 0)
        abort();
    while (!tid)
        sched_yield();
    asleep(tid);
    if (pthread_cancel(thread) != 0)
        abort();
    then();
    if (pthread_join(thread, &value) != 0)
        abort();
    return value == PTHREAD_CANCELED ? cleaned : -1;
}
"#;

/// The function `cancel` above.
type Cancel = extern "C" fn(
    which: c_int,
    with: RawFd,
    start: extern "C" fn(),
    asleep: extern "C" fn(c_int),
    then: extern "C" fn(),
) -> c_int;

/// One thread after the other is cancelled.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn cancel(library: &str) -> (std::sync::MutexGuard<'static, ()>, Cancel) {
    let turn = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let library = Library::new(library, CANCELLED);
    // SAFETY: the type that it has above.
    (turn, unsafe { library.function(c"cancel") })
}

extern "C" fn nothing() {}

extern "C" fn asleep(tid: c_int) {
    until_asleep(tid);
}

/// The calling thread is a worker from here to its end.
extern "C" fn announce() {
    become_worker(Box::new(Recorder::default()));
}

fn become_worker(worker: Box<dyn Worker>) {
    let current = CurrentWorker::new(NonNull::from(Box::leak(worker)));
    // SAFETY: neither is ever freed, since nobody could take the worker back from a thread that is
    // cancelled.
    unsafe { set_current(Some(NonNull::from(Box::leak(Box::new(current))))) };
}

#[test]
fn a_thread_is_cancelled_in_each_call() {
    let (_turn, cancel) = cancel("cancelled");
    for call in 0..=9 {
        for start in [nothing, announce as extern "C" fn()] {
            let (a, b) = pair(libc::SOCK_STREAM);
            let fd = if call == 9 { listener() } else { b };
            assert_eq!(
                cancel(call, fd.as_raw_fd(), start, asleep, nothing),
                1,
                "{call}"
            );
            // Nothing is left of the thread's wait for the descriptor.
            drop(fd);
            drop(a);
        }
    }
}

fn listener() -> OwnedFd {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().into()
}

/// A worker that waits for a descriptor by a raw system call, which is no point of cancellation:
/// so does a scheduler that has its own way to sleep.
struct Raw;

impl Worker for Raw {
    fn enter(&self, _call: ManagedCall, _sleep: Sleep, _how: Return) {}

    fn exit(&self, _how: Return) {}

    fn park(&self, _call: ManagedCall, fd: c_int, _readiness: Readiness) -> Parked {
        let mut set = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let none = ptr::null::<c_void>();
        // SAFETY: one live pollfd.
        let found = unsafe { libc::syscall(libc::SYS_ppoll, &raw mut set, 1, none, none, 8) };
        if found == 1 {
            Parked::Woken
        } else {
            Parked::Interrupted
        }
    }

    fn waker(&self) -> Waker {
        Waker {
            call: |_| (),
            argument: ptr::null(),
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

/// The other end of the socket that the worker waits for.
static SENDER: AtomicI32 = AtomicI32::new(-1);

extern "C" fn park() {
    become_worker(Box::new(Raw));
}

extern "C" fn send() {
    // SAFETY: one readable byte.
    let sent = unsafe { libc::send(SENDER.load(SeqCst), b"x".as_ptr().cast::<c_void>(), 1, 0) };
    assert_eq!(sent, 1);
}

/// The request is not lost: the worker follows it in the call that it repeats when it is woken,
/// before it takes what has come.
#[test]
fn a_parked_worker_is_cancelled_when_it_is_woken() {
    let (_turn, cancel) = cancel("parked");
    for call in [0, 1] {
        let (a, b) = pair(libc::SOCK_STREAM);
        SENDER.store(a.as_raw_fd(), SeqCst);
        assert_eq!(cancel(call, b.as_raw_fd(), park, asleep, send), 1, "{call}");
        let receive = || {
            let mut bytes = [0_u8; 4];
            let to = bytes.as_mut_ptr().cast();
            // SAFETY: room for four bytes.
            unsafe { libc::recv(b.as_raw_fd(), to, 4, 0) }
        };
        // The byte was not taken by the worker that was cancelled, so another reader gets it.
        assert_eq!(managed(receive).0, 1);
        let (count, parks) =
            parking(|| common::while_asleep(receive, || assert_eq!(send_to(&a), 1)));
        assert_eq!((count, parks), (1, 1));
    }
}

fn send_to(fd: &OwnedFd) -> isize {
    // SAFETY: one readable byte.
    unsafe { libc::send(fd.as_raw_fd(), b"y".as_ptr().cast(), 1, 0) }
}
