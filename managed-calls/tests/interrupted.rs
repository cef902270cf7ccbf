//! Calls that a signal handler interrupts while they sleep: restarted or not, as without a
//! scheduler.

mod common;

use std::{
    ffi::c_void,
    io::Write,
    mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    process::{Child, Command, Stdio},
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::{Kind, handle, outcome, pair, pipe, same, set_timeout, until_asleep_or, while_asleep};
use libc::c_int;

umcg_managed_calls::define!();

static HOUR: libc::timespec = libc::timespec {
    tv_sec: 3600,
    tv_nsec: 0,
};

/// How often the handler has run.
static HANDLED: AtomicU32 = AtomicU32::new(0);

/// The handler and its flags are the process's: tests that install one take turns.
static HANDLERS: Mutex<()> = Mutex::new(());

extern "C" fn count(_signal: c_int) {
    HANDLED.fetch_add(1, SeqCst);
}

/// What a call returned, and its errno if it failed.
type Outcome = (i64, c_int);

/// Sends a signal to the calling thread once it sleeps in `wait`, and calls `then` once the
/// handler's effect is certain: the call has returned, or it sleeps again.
fn interrupted(wait: impl FnOnce() -> Outcome, then: impl FnOnce() + Send) -> Outcome {
    // SAFETY: no arguments.
    let (thread, tid) = unsafe { (libc::pthread_self(), libc::gettid()) };
    let handled = HANDLED.load(SeqCst);
    let done = AtomicBool::new(false);
    while_asleep(
        || {
            let result = wait();
            done.store(true, SeqCst);
            result
        },
        || {
            // SAFETY: the thread lives: it waits for this one.
            assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
            while HANDLED.load(SeqCst) == handled {
                thread::yield_now();
            }
            until_asleep_or(tid, &done);
            then();
        },
    )
}

/// What becomes of a call that is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It goes on if the handler has `SA_RESTART`, and fails with EINTR otherwise.
    Restarts,
    /// It fails with EINTR in either case (signal(7)).
    Fails,
    /// It returns what it has done so far, or does not notice the signal.
    Succeeds,
}
use After::{Fails, Restarts, Succeeds};

fn put(fd: &OwnedFd, bytes: &[u8]) {
    // SAFETY: readable bytes.
    let wrote = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    assert_eq!(wrote, bytes.len() as isize);
}

/// Reads what is there, up to a megabyte.
fn take(fd: &OwnedFd) {
    let mut buffer = vec![0_u8; 1 << 20];
    // SAFETY: room for that many bytes.
    let got = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
    assert!(got > 0);
}

/// Writes until nothing fits, and leaves the descriptor blocking.
fn fill(fd: &OwnedFd) {
    let fd = fd.as_raw_fd();
    let part = [0_u8; 4096];
    // SAFETY: readable bytes.
    unsafe {
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK), 0);
        while libc::write(fd, part.as_ptr().cast(), part.len()) > 0 {}
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, 0), 0);
    }
}

/// A receiving call that waits for one byte.
fn receiving(kind: Kind, call: fn(RawFd, *mut c_void) -> i64) -> Outcome {
    let (a, b) = kind.pair();
    let mut bytes = [0_u8; 8];
    let to = bytes.as_mut_ptr().cast();
    interrupted(|| outcome(call(b.as_raw_fd(), to)), || put(&a, b"x"))
}

/// A child that ends when its input does.
fn child() -> Child {
    Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// A wait for a child.
fn waiting(call: fn(c_int) -> i64) -> Outcome {
    let mut child = child();
    let input = child.stdin.take();
    let pid = child.id() as c_int;
    let (result, errno) = interrupted(|| outcome(call(pid)), || drop(input));
    // An error, if the call has taken the child.
    let _ = child.wait();
    (if result == i64::from(pid) { 1 } else { result }, errno)
}

/// A wait in `call` for a futex, whose word is changed after the signal.
fn futex(timeout: *const libc::timespec) -> Outcome {
    let word = AtomicU32::new(0);
    let operation = |operation: c_int, value: u32, timeout: *const libc::timespec| {
        // SAFETY: a live word and time.
        outcome(unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                operation | libc::FUTEX_PRIVATE_FLAG,
                value,
                timeout,
            )
        })
    };
    let timeout_address = timeout.addr();
    interrupted(
        || {
            let timeout = ptr::with_exposed_provenance(timeout_address);
            operation(libc::FUTEX_WAIT, 0, timeout)
        },
        || {
            operation(libc::FUTEX_WAKE, 1, ptr::null());
        },
    )
}

/// A blocking call, what becomes of it, and how it is made.
type Case = (&'static str, After, fn() -> Outcome);

const CASES: &[Case] = &[
    ("recv", Restarts, || {
        // SAFETY: room for eight bytes, here and below.
        receiving(Kind::UnixStream, |fd, to| unsafe {
            libc::recv(fd, to, 8, 0) as i64
        })
    }),
    ("recv of a datagram", Restarts, || {
        // SAFETY: as above.
        receiving(Kind::Udp, |fd, to| unsafe {
            libc::recv(fd, to, 8, 0) as i64
        })
    }),
    ("recvfrom", Restarts, || {
        receiving(Kind::Tcp, |fd, to| {
            let none = ptr::null_mut();
            // SAFETY: as above.
            unsafe { libc::recvfrom(fd, to, 8, 0, none, ptr::null_mut()) as i64 }
        })
    }),
    ("recvmsg", Restarts, || {
        receiving(Kind::UnixSeqpacket, |fd, to| {
            let mut part = libc::iovec {
                iov_base: to,
                iov_len: 8,
            };
            // SAFETY: all zeros are a valid message.
            unsafe {
                let mut message: libc::msghdr = mem::zeroed();
                message.msg_iov = &raw mut part;
                message.msg_iovlen = 1;
                libc::recvmsg(fd, &raw mut message, 0) as i64
            }
        })
    }),
    ("read from a socket", Restarts, || {
        // SAFETY: as above.
        receiving(Kind::UnixDatagram, |fd, to| unsafe {
            libc::read(fd, to, 8) as i64
        })
    }),
    ("recv with a timeout", Fails, || {
        let (a, b) = pair(libc::SOCK_STREAM);
        set_timeout(&b, libc::SO_RCVTIMEO, Duration::from_secs(3600));
        let mut byte = 0_u8;
        let to = (&raw mut byte).cast();
        interrupted(
            // SAFETY: room for one byte.
            || outcome(unsafe { libc::recv(b.as_raw_fd(), to, 1, 0) } as i64),
            || put(&a, b"x"),
        )
    }),
    ("recv of all, with a part", Succeeds, || {
        let (a, b) = pair(libc::SOCK_STREAM);
        put(&a, b"part");
        let mut bytes = [0_u8; 8];
        let to = bytes.as_mut_ptr().cast();
        interrupted(
            // SAFETY: room for eight bytes.
            || outcome(unsafe { libc::recv(b.as_raw_fd(), to, 8, libc::MSG_WAITALL) } as i64),
            || put(&a, b"rest"),
        )
    }),
    ("read from a pipe", Restarts, || {
        let (out, into) = pipe();
        let mut byte = 0_u8;
        let to = (&raw mut byte).cast();
        interrupted(
            // SAFETY: room for one byte.
            || outcome(unsafe { libc::read(out.as_raw_fd(), to, 1) } as i64),
            || put(&into, b"x"),
        )
    }),
    ("read from a counter", Restarts, || {
        // SAFETY: a new descriptor.
        let counter = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, 0)) };
        let mut value = 0_u64;
        let to = (&raw mut value).cast();
        interrupted(
            // SAFETY: room for eight bytes.
            || outcome(unsafe { libc::read(counter.as_raw_fd(), to, 8) } as i64),
            || put(&counter, &1_u64.to_ne_bytes()),
        )
    }),
    ("read from a terminal", Restarts, || {
        let (master, slave) = common::terminal();
        let mut bytes = [0_u8; 8];
        let to = bytes.as_mut_ptr().cast();
        interrupted(
            // SAFETY: room for eight bytes.
            || outcome(unsafe { libc::read(slave.as_raw_fd(), to, 8) } as i64),
            || put(&master, b"line\n"),
        )
    }),
    ("write to a full pipe", Restarts, || {
        let (out, into) = pipe();
        fill(&into);
        interrupted(
            // SAFETY: one readable byte.
            || outcome(unsafe { libc::write(into.as_raw_fd(), b"x".as_ptr().cast(), 1) } as i64),
            || take(&out),
        )
    }),
    ("write of more than fits", Succeeds, || {
        let (_out, into) = pipe();
        let bytes = vec![0_u8; 1 << 20];
        interrupted(
            || {
                let from = bytes.as_ptr().cast();
                // SAFETY: readable bytes.
                outcome(unsafe { libc::write(into.as_raw_fd(), from, bytes.len()) } as i64)
            },
            || (),
        )
    }),
    ("send to a full socket", Restarts, || {
        let (a, b) = pair(libc::SOCK_STREAM);
        fill(&a);
        interrupted(
            // SAFETY: one readable byte.
            || outcome(unsafe { libc::send(a.as_raw_fd(), b"x".as_ptr().cast(), 1, 0) } as i64),
            || take(&b),
        )
    }),
    ("send of more than fits", Succeeds, || {
        let (a, _b) = pair(libc::SOCK_STREAM);
        let bytes = vec![0_u8; 1 << 22];
        let (sent, errno) = interrupted(
            || {
                let from = bytes.as_ptr().cast();
                // SAFETY: readable bytes.
                outcome(unsafe { libc::send(a.as_raw_fd(), from, bytes.len(), 0) } as i64)
            },
            || (),
        );
        // How much fits depends on how it was cut.
        (sent.signum(), errno)
    }),
    ("accept", Restarts, || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fd = listener.as_raw_fd();
        let (result, errno) = interrupted(
            // SAFETY: no memory is passed.
            || outcome(unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) }),
            || drop(std::net::TcpStream::connect(address)),
        );
        if result >= 0 {
            // SAFETY: a descriptor that was just accepted.
            unsafe { libc::close(result as c_int) };
        }
        (result.signum(), errno)
    }),
    ("flock", Restarts, || {
        let [first, second] = [(); 2].map(|()| {
            let name = std::env::current_exe().unwrap();
            OwnedFd::from(std::fs::File::open(name).unwrap())
        });
        // SAFETY: open files.
        let lock = |fd: &OwnedFd, how| outcome(unsafe { libc::flock(fd.as_raw_fd(), how) });
        assert_eq!(lock(&first, libc::LOCK_EX).0, 0);
        interrupted(
            || lock(&second, libc::LOCK_EX),
            || {
                lock(&first, libc::LOCK_UN);
            },
        )
    }),
    ("sem_wait", Restarts, || {
        // SAFETY: a semaphore of this test's, which lives until the wait is over.
        unsafe {
            let mut semaphore: libc::sem_t = mem::zeroed();
            let address = &raw mut semaphore as usize;
            libc::sem_init(address as *mut _, 0, 0);
            interrupted(
                || outcome(libc::sem_wait(address as *mut _)),
                || {
                    libc::sem_post(address as *mut _);
                },
            )
        }
    }),
    ("futex", Restarts, || futex(ptr::null())),
    ("futex with a timeout", Fails, || {
        let hour = HOUR;
        futex(ptr::with_exposed_provenance(
            (&raw const hour).expose_provenance(),
        ))
    }),
    ("poll", Fails, || {
        // SAFETY: an empty set.
        interrupted(
            || outcome(unsafe { libc::poll(ptr::null_mut(), 0, -1) }),
            || (),
        )
    }),
    ("ppoll", Fails, || {
        interrupted(
            // SAFETY: an empty set and a live time.
            || outcome(unsafe { libc::ppoll(ptr::null_mut(), 0, &raw const HOUR, ptr::null()) }),
            || (),
        )
    }),
    ("select", Fails, || {
        let none = ptr::null_mut;
        // SAFETY: empty sets.
        interrupted(
            || outcome(unsafe { libc::select(0, none(), none(), none(), ptr::null_mut()) }),
            || (),
        )
    }),
    ("epoll_wait", Fails, || {
        // SAFETY: a new descriptor.
        let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(0)) };
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let events = &raw mut event;
        interrupted(
            // SAFETY: room for one event.
            || outcome(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events, 1, -1) }),
            || (),
        )
    }),
    ("nanosleep", Fails, || {
        let mut left = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let to = &raw mut left;
        // SAFETY: live times.
        let result = interrupted(
            || outcome(unsafe { libc::nanosleep(&raw const HOUR, to) }),
            || (),
        );
        assert!((3000..=3600).contains(&left.tv_sec), "{left:?}");
        result
    }),
    ("clock_nanosleep", Fails, || {
        // The error is the result.
        let as_errno = |error: c_int| if error == 0 { (0, 0) } else { (-1, error) };
        interrupted(
            || {
                let clock = libc::CLOCK_REALTIME;
                // SAFETY: a live time.
                as_errno(unsafe {
                    libc::clock_nanosleep(clock, 0, &raw const HOUR, ptr::null_mut())
                })
            },
            || (),
        )
    }),
    ("usleep", Fails, || {
        // SAFETY: no memory is passed.
        interrupted(|| outcome(unsafe { libc::usleep(900_000_000) }), || ())
    }),
    ("sleep", Succeeds, || {
        // The result is the time that is left.
        // SAFETY: no memory is passed.
        let (left, _) = interrupted(|| outcome(i64::from(unsafe { libc::sleep(3600) })), || ());
        (i64::from(left > 3000), 0)
    }),
    ("pause", Fails, || {
        // SAFETY: no memory is passed.
        interrupted(|| outcome(unsafe { libc::pause() }), || ())
    }),
    ("sigsuspend", Fails, || {
        // SAFETY: all zeros are an empty set.
        let none: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: a live set.
        interrupted(
            || outcome(unsafe { libc::sigsuspend(&raw const none) }),
            || (),
        )
    }),
    ("sigtimedwait", Fails, || {
        interrupted(
            || {
                // SAFETY: live sets and times.
                unsafe {
                    let mut set: libc::sigset_t = mem::zeroed();
                    libc::sigaddset(&raw mut set, libc::SIGUSR2);
                    outcome(libc::sigtimedwait(
                        &raw const set,
                        ptr::null_mut(),
                        &raw const HOUR,
                    ))
                }
            },
            || (),
        )
    }),
    ("waitpid", Restarts, || {
        // SAFETY: no memory is passed, here and below.
        waiting(|pid| unsafe { libc::waitpid(pid, ptr::null_mut(), 0) }.into())
    }),
    ("wait4", Restarts, || {
        // SAFETY: as above.
        waiting(|pid| unsafe { libc::wait4(pid, ptr::null_mut(), 0, ptr::null_mut()) }.into())
    }),
    ("waitid", Restarts, || {
        waiting(|pid| {
            let (kind, options) = (libc::P_PID, libc::WEXITED);
            // SAFETY: as above.
            unsafe { libc::waitid(kind, pid as u32, ptr::null_mut(), options) }.into()
        })
    }),
    ("msgrcv", Fails, || {
        // SAFETY: no memory is passed.
        let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
        let mut message = [0_u64; 4];
        let to = message.as_mut_ptr().cast();
        interrupted(
            // SAFETY: room for a message.
            || outcome(unsafe { libc::msgrcv(queue, to, 16, 0, 0) } as i64),
            || {
                // SAFETY: it is this test's.
                unsafe { libc::msgctl(queue, libc::IPC_RMID, ptr::null_mut()) };
            },
        )
    }),
    ("semop", Fails, || {
        // SAFETY: no memory is passed.
        let set = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
        let mut take = libc::sembuf {
            sem_num: 0,
            sem_op: -1,
            sem_flg: 0,
        };
        let operations = &raw mut take;
        interrupted(
            // SAFETY: a live operation.
            || outcome(unsafe { libc::semop(set, operations, 1) }),
            || {
                // SAFETY: it is this test's.
                unsafe { libc::semctl(set, 0, libc::IPC_RMID) };
            },
        )
    }),
    ("pthread_mutex_lock", Succeeds, || {
        // SAFETY: a mutex that lives until its two users are done, and whose holder unlocks it.
        unsafe {
            let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
            let address = &raw mut mutex as usize;
            let (held, is_held) = std::sync::mpsc::channel();
            let (go, goes) = std::sync::mpsc::channel();
            thread::scope(|scope| {
                scope.spawn(move || {
                    libc::pthread_mutex_lock(address as *mut _);
                    held.send(()).unwrap();
                    goes.recv().unwrap();
                    libc::pthread_mutex_unlock(address as *mut _);
                });
                is_held.recv().unwrap();
                interrupted(
                    || outcome(libc::pthread_mutex_lock(address as *mut _)),
                    || go.send(()).unwrap(),
                )
            })
        }
    }),
    ("pthread_join", Succeeds, || {
        let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let thread = thread::spawn(move || take(&there.into()));
        interrupted(
            || {
                thread.join().unwrap();
                (0, 0)
            },
            || here.write_all(b"x").unwrap(),
        )
    }),
];

#[test]
fn a_handler_decides_whether_a_call_goes_on() {
    let _turn = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    for flags in [0, libc::SA_RESTART] {
        handle(libc::SIGUSR1, count, flags);
        for &(name, after, call) in CASES {
            let ((result, errno), _) = same(|| {
                let before = HANDLED.load(SeqCst);
                let result = call();
                assert_eq!(HANDLED.load(SeqCst), before + 1, "{name}");
                result
            });
            let fails = after == Fails || (after == Restarts && flags == 0);
            assert_eq!(result < 0, fails, "{name}, {flags:#x}: {result}, {errno}");
            assert_eq!(
                errno,
                if fails { libc::EINTR } else { 0 },
                "{name}, {flags:#x}"
            );
        }
    }
}

/// A handler may make the call's own end come: it sends what the call waits for.
#[test]
fn a_handler_that_sends_what_is_waited_for_ends_the_call() {
    static SENDER: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

    extern "C" fn send(_signal: c_int) {
        // SAFETY: this thread's errno, which the code that was interrupted may need; one readable
        // byte.
        unsafe {
            let errno = *libc::__errno_location();
            libc::send(SENDER.load(SeqCst), b"x".as_ptr().cast(), 1, 0);
            *libc::__errno_location() = errno;
        }
        HANDLED.fetch_add(1, SeqCst);
    }

    let _turn = HANDLERS.lock().unwrap_or_else(PoisonError::into_inner);
    handle(libc::SIGUSR1, send, libc::SA_RESTART);
    for kind in Kind::ALL {
        let (result, _) = same(|| {
            let (a, b) = kind.pair();
            SENDER.store(a.as_raw_fd(), SeqCst);
            let mut bytes = [0_u8; 4];
            let to = bytes.as_mut_ptr().cast();
            let got = interrupted(
                // SAFETY: room for four bytes.
                || outcome(unsafe { libc::recv(b.as_raw_fd(), to, 4, 0) } as i64),
                || (),
            );
            (got, bytes)
        });
        assert_eq!(result, ((1, 0), *b"x\0\0\0"), "{kind:?}");
    }
}
