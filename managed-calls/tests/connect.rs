//! Connections: how they are accepted and made.

mod common;

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use common::{keeps_errno, outcome, same, set_non_blocking, set_timeout, shut, while_asleep};
use libc::{c_int, socklen_t};

umcg_managed_calls::define!();

#[test]
fn connections_are_accepted_in_the_same_way() {
    use std::os::unix::net::{UnixListener, UnixStream};

    static NAMES: AtomicU32 = AtomicU32::new(0);

    /// Accepts with an address, and returns what was written to it.
    fn accept(listener: &OwnedFd, four: bool) -> ((bool, c_int), u32, u16, bool) {
        // SAFETY: all zeros are a valid address.
        let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let mut length = mem::size_of_val(&address) as socklen_t;
        let (fd, to, size) = (
            listener.as_raw_fd(),
            (&raw mut address).cast(),
            &raw mut length,
        );
        // SAFETY: live memory.
        let (result, errno) = keeps_errno(|| unsafe {
            if four {
                libc::accept4(fd, to, size, libc::SOCK_CLOEXEC).into()
            } else {
                libc::accept(fd, to, size).into()
            }
        });
        let mut closes = false;
        if result >= 0 {
            // SAFETY: a descriptor that was just accepted.
            unsafe {
                closes = libc::fcntl(result as c_int, libc::F_GETFD) == 1;
                libc::close(result as c_int);
            }
        }
        ((result >= 0, errno), length, address.ss_family, closes)
    }

    for four in [false, true] {
        same(|| {
            let path = format!(
                "{}/umcg-accept-{}-{}",
                std::env::temp_dir().display(),
                std::process::id(),
                NAMES.fetch_add(1, SeqCst)
            );
            let listener: OwnedFd = UnixListener::bind(&path).unwrap().into();
            let connect = || mem::forget(UnixStream::connect(&path).unwrap());
            connect();
            let there = accept(&listener, four);
            let came = while_asleep(|| accept(&listener, four), connect);
            set_timeout(&listener, libc::SO_RCVTIMEO, Duration::from_millis(20));
            let expired = accept(&listener, four);
            set_timeout(&listener, libc::SO_RCVTIMEO, Duration::ZERO);
            connect();
            // SAFETY: the kernel checks the addresses.
            let wrong = outcome(unsafe {
                libc::accept(
                    listener.as_raw_fd(),
                    ptr::without_provenance_mut(8),
                    ptr::without_provenance_mut(8),
                )
            });
            let shut = while_asleep(
                || accept(&listener, four),
                || {
                    shut(&listener, libc::SHUT_RDWR);
                },
            );
            set_non_blocking(&listener);
            let none = accept(&listener, four);
            std::fs::remove_file(&path).unwrap();
            (there, came, expired, wrong, shut, none)
        });
        same(|| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let listener: OwnedFd = listener.into();
            let connect = || drop(std::net::TcpStream::connect(address).unwrap());
            let came = while_asleep(|| accept(&listener, four), connect);
            let shut = while_asleep(
                || accept(&listener, four),
                || {
                    shut(&listener, libc::SHUT_RDWR);
                },
            );
            (came, shut)
        });
    }
}

/// What a connection makes wait and fail: a full backlog, a timeout, a mode, a wrong address.
#[test]
fn connections_are_made_in_the_same_way() {
    /// An abstract address of the Unix domain, other than that of any other call.
    fn address() -> (libc::sockaddr_un, libc::socklen_t) {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        static NAMES: AtomicU32 = AtomicU32::new(0);

        // SAFETY: all zeros are a valid address.
        let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let name = format!(
            "\0umcg-{}-{}",
            std::process::id(),
            NAMES.fetch_add(1, SeqCst)
        );
        for (to, from) in address.sun_path.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        (
            address,
            (mem::offset_of!(libc::sockaddr_un, sun_path) + name.len()) as u32,
        )
    }

    fn socket() -> OwnedFd {
        use std::os::fd::FromRawFd;
        // SAFETY: a new descriptor.
        unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)) }
    }

    same(|| {
        let (name, length) = address();
        let listener = socket();
        let connect = |socket: &OwnedFd| {
            // SAFETY: a live address.
            keeps_errno(|| unsafe {
                libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length).into()
            })
        };
        let nobody = connect(&socket());
        // SAFETY: a live address.
        unsafe {
            let bound = libc::bind(listener.as_raw_fd(), (&raw const name).cast(), length);
            assert_eq!(bound, 0);
            assert_eq!(libc::listen(listener.as_raw_fd(), 0), 0);
        }
        // The backlog has room for one.
        let first = socket();
        let there = connect(&first);
        let (timed, quick, waits) = (socket(), socket(), socket());
        set_timeout(&timed, libc::SO_SNDTIMEO, Duration::from_millis(20));
        set_non_blocking(&quick);
        let full = (connect(&timed), connect(&quick));
        let accept = || {
            // SAFETY: no memory is passed.
            let accepted =
                unsafe { libc::accept(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut()) };
            assert!(accepted >= 0);
            // SAFETY: a descriptor that was just accepted.
            unsafe { libc::close(accepted) };
        };
        let came = while_asleep(|| connect(&waits), accept);
        // Of a socket that is connected only then.
        accept();
        let again = connect(&waits);
        // SAFETY: the kernel checks the address.
        let wrong = outcome(unsafe {
            libc::connect(socket().as_raw_fd(), ptr::without_provenance(8), length)
        });
        (nobody, there, full, came, again, wrong)
    });
    same(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        std::net::TcpStream::connect(to).unwrap_err().raw_os_error()
    });
}
