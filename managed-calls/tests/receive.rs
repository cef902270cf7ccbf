//! Each receiving call on each kind of socket: what is there, what comes, what ends the wait, and
//! what is left afterwards.

mod common;

use std::{
    ffi::c_void,
    mem,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
    ptr, thread,
    time::{Duration, Instant},
};

use common::{
    Guarded, Kind, keeps_errno, outcome, same, same_and_parks, set_non_blocking, set_timeout, shut,
    until_readable, while_asleep,
};
use libc::{c_int, size_t, socklen_t, ssize_t};

umcg_managed_calls::define!();

unsafe extern "C" {
    fn __recv_chk(fd: c_int, to: *mut c_void, count: size_t, size: size_t, flags: c_int)
    -> ssize_t;
    fn __recvfrom_chk(
        fd: c_int,
        to: *mut c_void,
        count: size_t,
        size: size_t,
        flags: c_int,
        address: *mut libc::sockaddr,
        length: *mut socklen_t,
    ) -> ssize_t;
    fn __read_chk(fd: c_int, to: *mut c_void, count: size_t, size: size_t) -> ssize_t;
}

/// The calls that receive one message or a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Recv,
    RecvChk,
    RecvFrom,
    RecvFromChk,
    RecvMsg,
    RecvMmsg,
    Read,
    ReadChk,
    Readv,
}

impl Call {
    const ALL: [Self; 9] = [
        Self::Recv,
        Self::RecvChk,
        Self::RecvFrom,
        Self::RecvFromChk,
        Self::RecvMsg,
        Self::RecvMmsg,
        Self::Read,
        Self::ReadChk,
        Self::Readv,
    ];

    fn takes_flags(self) -> bool {
        !matches!(self, Self::Read | Self::ReadChk | Self::Readv)
    }

    /// Whether a worker may wait elsewhere than in the call.
    fn parks(self) -> bool {
        self.takes_flags() && self != Self::RecvMmsg
    }

    /// Makes the call with `count` bytes from the address on, which may be wrong.
    fn make(self, fd: RawFd, to: *mut c_void, count: usize, flags: c_int) -> Outcome {
        // SAFETY: all zeros are valid addresses and messages.
        let (mut address, mut messages): (libc::sockaddr_storage, [libc::mmsghdr; 1]) =
            unsafe { mem::zeroed() };
        let room = mem::size_of_val(&address) as socklen_t;
        let mut length = room;
        let from = (&raw mut address).cast();
        let first = count.min(3);
        let mut parts = [
            libc::iovec {
                iov_base: to,
                iov_len: first,
            },
            libc::iovec {
                iov_base: to.wrapping_byte_add(first),
                iov_len: count - first,
            },
        ];
        let message = &mut messages[0].msg_hdr;
        message.msg_name = from;
        message.msg_namelen = room;
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        // The kernel writes the flags of what it received.
        message.msg_flags = 0x1234;
        // SAFETY: live memory but for `to`, which the kernel checks.
        let result = keeps_errno(|| unsafe {
            match self {
                Self::Recv => libc::recv(fd, to, count, flags) as i64,
                Self::RecvChk => __recv_chk(fd, to, count, count, flags) as i64,
                Self::RecvFrom => {
                    libc::recvfrom(fd, to, count, flags, from.cast(), &raw mut length) as i64
                }
                Self::RecvFromChk => {
                    let length = &raw mut length;
                    __recvfrom_chk(fd, to, count, count, flags, from.cast(), length) as i64
                }
                Self::RecvMsg => libc::recvmsg(fd, &raw mut messages[0].msg_hdr, flags) as i64,
                Self::RecvMmsg => {
                    libc::recvmmsg(fd, messages.as_mut_ptr(), 1, flags, ptr::null_mut()).into()
                }
                Self::Read => libc::read(fd, to, count) as i64,
                Self::ReadChk => __read_chk(fd, to, count, count) as i64,
                Self::Readv => libc::readv(fd, parts.as_ptr(), 2) as i64,
            }
        });
        Outcome {
            result,
            family: address.ss_family,
            lengths: [length, messages[0].msg_hdr.msg_namelen, messages[0].msg_len],
            flags: messages[0].msg_hdr.msg_flags,
        }
    }
}

/// What a call has returned, and what it has written beside the data.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    result: (i64, c_int),
    family: libc::sa_family_t,
    lengths: [u32; 3],
    flags: c_int,
}

/// The call, with the buffer after it: all of it, and eight bytes behind it.
fn receive(call: Call, fd: &OwnedFd, count: usize, flags: c_int) -> (Outcome, Vec<u8>) {
    let mut buffer = vec![0xee; count + 8];
    let outcome = call.make(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), count, flags);
    (outcome, buffer)
}

/// What is left to receive, message by message.
fn rest(fd: &OwnedFd) -> Vec<((i64, c_int), Vec<u8>)> {
    let mut all = Vec::new();
    for _ in 0..8 {
        let (outcome, mut buffer) = receive(Call::Recv, fd, 64, libc::MSG_DONTWAIT);
        buffer.truncate(outcome.result.0.max(0) as usize);
        let over = outcome.result.0 <= 0;
        all.push((outcome.result, buffer));
        if over {
            break;
        }
    }
    all
}

fn send(fd: &OwnedFd, bytes: &[u8]) {
    // SAFETY: readable bytes.
    let sent = unsafe {
        libc::send(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
        )
    };
    assert_eq!(sent, bytes.len() as isize);
}

#[test]
fn what_is_there_is_received_in_the_same_way() {
    let all_flags = [
        0,
        libc::MSG_PEEK,
        libc::MSG_TRUNC,
        libc::MSG_PEEK | libc::MSG_TRUNC,
        libc::MSG_DONTWAIT,
        libc::MSG_WAITALL,
        libc::MSG_CMSG_CLOEXEC,
    ];
    for kind in Kind::ALL {
        for call in Call::ALL {
            let flags = if call.takes_flags() {
                &all_flags[..]
            } else {
                &[0]
            };
            for &flags in flags {
                for count in [0, 4, 6] {
                    let (((outcome, _), left), _, parks) = same_and_parks(|| {
                        let (a, b) = kind.pair();
                        send(&a, b"abcdef");
                        until_readable(&b);
                        (receive(call, &b, count, flags), rest(&b))
                    });
                    assert!(outcome.result.0 >= 0, "{kind:?} {call:?} {outcome:?}");
                    assert!(!left.is_empty());
                    assert_eq!(parks, 0, "{kind:?} {call:?}");
                }
            }
        }
    }
}

#[test]
fn what_comes_is_received_in_the_same_way() {
    for kind in Kind::ALL {
        for call in Call::ALL {
            let all_flags = [0, libc::MSG_PEEK, libc::MSG_TRUNC];
            let some = matches!(call, Call::RecvFrom | Call::RecvMsg);
            let flags = if some { &all_flags[..] } else { &[0] };
            for &flags in flags {
                let (_, said, parks) = same_and_parks(|| {
                    let (a, b) = kind.pair();
                    let got = while_asleep(|| receive(call, &b, 4, flags), || send(&a, b"abcdef"));
                    let left = rest(&b);
                    drop(a);
                    (got, left)
                });
                assert!(!said.is_empty(), "{kind:?} {call:?} {flags:#x}");
                assert_eq!(parks > 0, call.parks(), "{kind:?} {call:?} {flags:#x}");
            }
        }
    }
}

#[test]
fn an_empty_datagram_ends_the_wait() {
    for kind in [Kind::UnixDatagram, Kind::UnixSeqpacket, Kind::Udp] {
        for call in [
            Call::Recv,
            Call::RecvFrom,
            Call::RecvMsg,
            Call::Read,
            Call::RecvMmsg,
        ] {
            same(|| {
                let (a, b) = kind.pair();
                while_asleep(|| receive(call, &b, 4, 0), || send(&a, b""))
            });
        }
    }
}

/// Both ends of a connection may end it, while the receiver waits.
#[test]
fn the_end_of_a_connection_ends_the_wait() {
    /// What is done to the sender's socket and to the receiver's.
    type End = fn(&mut Option<OwnedFd>, &OwnedFd);
    let ends: [(&str, End); 4] = [
        ("close", |sender, _| drop(sender.take())),
        ("shut the sender", |sender, _| {
            let sender = sender.as_ref().unwrap();
            assert_eq!(shut(sender, libc::SHUT_WR).0, 0);
        }),
        ("shut the receiver", |_, receiver| {
            assert_eq!(shut(receiver, libc::SHUT_RD).0, 0);
        }),
        ("shut all", |_, receiver| {
            assert_eq!(shut(receiver, libc::SHUT_RDWR).0, 0);
        }),
    ];
    for kind in Kind::ALL {
        for (name, end) in ends {
            // Without a connection the other end's close says nothing to the receiver.
            if !kind.is_connection() && name != "shut the receiver" && name != "shut all" {
                continue;
            }
            for call in [Call::Recv, Call::RecvFrom, Call::RecvMsg, Call::Read] {
                let (_, _, parks) = same_and_parks(|| {
                    let (a, b) = kind.pair();
                    let mut sender = Some(a);
                    let got = while_asleep(|| receive(call, &b, 4, 0), || end(&mut sender, &b));
                    (got, rest(&b))
                });
                assert_eq!(parks > 0, call.parks(), "{kind:?} {call:?} {name}");
            }
        }
    }
}

#[test]
fn nothing_is_waited_for_without_blocking() {
    for kind in Kind::ALL {
        for call in Call::ALL {
            let (_, _, parks) = same_and_parks(|| {
                let (_a, b) = kind.pair();
                let by_flag = call
                    .takes_flags()
                    .then(|| receive(call, &b, 4, libc::MSG_DONTWAIT));
                set_non_blocking(&b);
                let by_mode = receive(call, &b, 4, 0);
                assert_eq!(by_mode.0.result, (-1, libc::EAGAIN));
                (by_flag, by_mode)
            });
            assert_eq!(parks, 0);
        }
    }
}

#[test]
fn a_timeout_ends_the_wait_in_time() {
    let time = Duration::from_millis(20);
    for kind in [Kind::UnixStream, Kind::UnixDatagram, Kind::Udp] {
        for call in [
            Call::Recv,
            Call::RecvFrom,
            Call::RecvMsg,
            Call::Read,
            Call::RecvMmsg,
        ] {
            let (_, _, parks) = same_and_parks(|| {
                let (a, b) = kind.pair();
                set_timeout(&b, libc::SO_RCVTIMEO, time);
                let began = Instant::now();
                let expired = receive(call, &b, 4, 0);
                assert!(began.elapsed() >= time, "{kind:?} {call:?}");
                assert_eq!(expired.0.result, (-1, libc::EAGAIN));
                set_timeout(&b, libc::SO_RCVTIMEO, Duration::from_secs(60));
                let came = while_asleep(|| receive(call, &b, 4, 0), || send(&a, b"late"));
                (expired, came)
            });
            assert_eq!(parks, 0, "only the kernel knows when it ends");
        }
    }
}

/// `MSG_WAITALL` returns a part if the rest does not come.
#[test]
fn waiting_for_all_ends_with_a_part() {
    for kind in [Kind::UnixStream, Kind::Tcp] {
        for call in [Call::Recv, Call::RecvFrom, Call::RecvMsg] {
            let wait = libc::MSG_WAITALL;
            let (results, _) = same(|| {
                let (a, b) = kind.pair();
                send(&a, b"abc");
                let whole = while_asleep(|| receive(call, &b, 8, wait), || send(&a, b"defgh"));
                send(&a, b"ab");
                set_timeout(&b, libc::SO_RCVTIMEO, Duration::from_millis(20));
                let expired = receive(call, &b, 8, wait);
                set_timeout(&b, libc::SO_RCVTIMEO, Duration::ZERO);
                send(&a, b"abcd");
                let peeked = receive(call, &b, 4, wait | libc::MSG_PEEK);
                let ended = while_asleep(|| receive(call, &b, 8, wait), move || drop(a));
                (whole, expired, peeked, ended)
            });
            let counts = [&results.0, &results.1, &results.2, &results.3].map(|got| got.0.result.0);
            assert_eq!(counts, [8, 2, 4, 4], "{kind:?} {call:?}");
        }
    }
}

#[test]
fn wrong_addresses_are_reported_and_lose_what_they_lose_in_the_kernel() {
    let guarded = Guarded::new();
    for kind in Kind::ALL {
        for call in Call::ALL {
            // Wrong from the first byte on, and from the fifth.
            for to in [ptr::without_provenance_mut(8), guarded.end_minus(4)] {
                let (results, _) = same(|| {
                    let (a, b) = kind.pair();
                    send(&a, b"abcdef");
                    until_readable(&b);
                    let there = call.make(b.as_raw_fd(), to, 16, 0);
                    let left = rest(&b);
                    (there, left)
                });
                assert!(results.0.result.0 <= 4, "{kind:?} {call:?}");
            }
        }
        for call in [Call::Recv, Call::RecvMsg, Call::Read] {
            same(|| {
                let (a, b) = kind.pair();
                let to = ptr::without_provenance_mut(8);
                let came = while_asleep(
                    || call.make(b.as_raw_fd(), to, 16, 0),
                    || send(&a, b"abcdef"),
                );
                (came, rest(&b))
            });
        }
    }
    same(|| {
        let (a, b) = Kind::UnixStream.pair();
        send(&a, b"abcdef");
        // SAFETY: the kernel checks the addresses.
        let wrong = unsafe {
            let mut byte = 0_u8;
            let (fd, to) = (b.as_raw_fd(), (&raw mut byte).cast());
            let length = ptr::without_provenance_mut(8);
            let mut address: libc::sockaddr_storage = mem::zeroed();
            let from = (&raw mut address).cast();
            [
                outcome(libc::recvmsg(fd, ptr::without_provenance_mut(8), 0) as i64),
                outcome(libc::recvfrom(fd, to, 1, 0, from, length) as i64),
                outcome(libc::readv(fd, ptr::without_provenance(8), 1) as i64),
                outcome(libc::readv(fd, ptr::null(), -1) as i64),
            ]
        };
        (wrong, rest(&b))
    });
}

/// The answer to a datagram that nobody wanted.
#[test]
fn an_error_of_the_socket_ends_the_wait() {
    use std::net::UdpSocket;

    for call in Call::ALL {
        let (_, _, parks) = same_and_parks(|| {
            let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(nobody.local_addr().unwrap()).unwrap();
            drop(nobody);
            let socket: OwnedFd = socket.into();
            let came = while_asleep(|| receive(call, &socket, 4, 0), || send(&socket, b"x"));
            assert_eq!(came.0.result, (-1, libc::ECONNREFUSED));
            send(&socket, b"x");
            until_readable(&socket);
            (came, receive(call, &socket, 4, 0), rest(&socket))
        });
        assert_eq!(parks > 0, call.parks(), "{call:?}");
    }
}

#[test]
fn urgent_data_is_received_out_of_band() {
    let urgent = libc::MSG_OOB;
    same(|| {
        let (a, b) = Kind::Tcp.pair();
        let none = receive(Call::Recv, &b, 4, urgent);
        send(&a, b"ab");
        // SAFETY: one readable byte.
        let sent = unsafe { libc::send(a.as_raw_fd(), b"!".as_ptr().cast(), 1, urgent) };
        assert_eq!(sent, 1);
        until_readable(&b);
        let mut set = libc::pollfd {
            fd: b.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        assert_eq!(unsafe { libc::poll(&raw mut set, 1, 10_000) }, 1);
        let bytes = receive(Call::Recv, &b, 1, urgent);
        (none, bytes, receive(Call::Recv, &b, 4, 0))
    });
    same(|| {
        let (_a, b) = Kind::Udp.pair();
        receive(Call::RecvMsg, &b, 4, libc::MSG_ERRQUEUE)
    });
}

/// The wait is for the file, whichever of its descriptors is closed.
#[test]
fn duplicates_are_the_same_file() {
    for kind in Kind::ALL {
        for call in [Call::Recv, Call::RecvMsg, Call::Read] {
            same(|| {
                let (a, b) = kind.pair();
                let duplicate = b.try_clone().unwrap();
                let first = while_asleep(
                    || receive(call, &duplicate, 4, 0),
                    move || {
                        drop(b);
                        send(&a, b"abcdef");
                        // Open until it was received.
                        mem::forget(a);
                    },
                );
                (first, rest(&duplicate))
            });
        }
    }
}

/// Another file gets the descriptor's number while a receiver waits for what is sent to the first
/// one.
#[test]
fn a_receiver_keeps_its_file_when_the_number_is_reused() {
    for kind in Kind::ALL {
        for call in [Call::Recv, Call::RecvFrom, Call::RecvMsg, Call::Read] {
            let (result, _, parks) = same_and_parks(|| {
                let (a, b) = kind.pair();
                let (stranger, other) = kind.pair();
                let fd = b.into_raw_fd();
                let mut buffer = [0xee_u8; 8];
                let to = buffer.as_mut_ptr().cast();
                let got = while_asleep(
                    || call.make(fd, to, 8, 0),
                    || {
                        // SAFETY: this test's descriptors.
                        assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
                        send(&stranger, b"not");
                        until_readable(&other);
                        send(&a, b"mine");
                    },
                );
                let second = call.make(fd, to, 8, 0);
                // SAFETY: this test's descriptor.
                unsafe { libc::close(fd) };
                (got.result, second.result, buffer)
            });
            let bytes = (result.0.0, result.1.0);
            // `recvmmsg` is not among them: the others count bytes.
            assert_eq!(
                (bytes, &result.2),
                ((4, 3), b"note\xee\xee\xee\xee"),
                "{kind:?} {call:?}"
            );
            assert_eq!(parks > 0, call.parks());
        }
    }
}

#[test]
fn several_messages_at_once() {
    for kind in Kind::ALL {
        for (there, flags) in [
            (1, libc::MSG_WAITFORONE),
            (2, libc::MSG_DONTWAIT),
            (3, 0),
            (0, libc::MSG_DONTWAIT),
        ] {
            same(|| {
                let (a, b) = kind.pair();
                for message in [b"first", b"other", b"third"].iter().take(there) {
                    send(&a, &message[..]);
                }
                if there > 0 {
                    until_readable(&b);
                }
                // On a stream each message takes five bytes.
                let mut bytes = [[0xee_u8; 5]; 3];
                let mut parts = [0, 1, 2].map(|i| libc::iovec {
                    iov_base: bytes[i].as_mut_ptr().cast(),
                    iov_len: 5,
                });
                // SAFETY: all zeros are valid messages.
                let mut messages: [libc::mmsghdr; 3] = unsafe { mem::zeroed() };
                for (message, part) in messages.iter_mut().zip(&mut parts) {
                    message.msg_hdr.msg_iov = part;
                    message.msg_hdr.msg_iovlen = 1;
                }
                let mut time = libc::timespec {
                    tv_sec: 60,
                    tv_nsec: 0,
                };
                // SAFETY: live messages and a live time.
                let got = outcome(unsafe {
                    libc::recvmmsg(
                        b.as_raw_fd(),
                        messages.as_mut_ptr(),
                        3,
                        flags,
                        &raw mut time,
                    )
                });
                let lengths = messages.map(|message| message.msg_len);
                (got, lengths, bytes, rest(&b))
            });
        }
    }
}

/// Descriptors come with the bytes that they were sent with, once, and the flags say what became
/// of them.
#[test]
fn descriptors_are_received_once() {
    /// Receives into `room` bytes of control data. Returns the result, the message's flags, and
    /// for each descriptor received whether it is one that closes on exec.
    fn receive(fd: &OwnedFd, room: usize, flags: c_int) -> ((i64, c_int), c_int, Vec<bool>) {
        let mut byte = 0_u8;
        let mut control = [0_u64; 8];
        let mut part = libc::iovec {
            iov_base: (&raw mut byte).cast(),
            iov_len: 1,
        };
        // SAFETY: all zeros are a valid message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = room;
        // SAFETY: a live message.
        let result =
            outcome(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags) } as i64);
        let mut closes = Vec::new();
        if result.0 < 0 {
            return (result, 0, closes);
        }
        for fd in common::descriptors_in(&message) {
            // SAFETY: a descriptor that was just received.
            closes.push(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } == 1);
        }
        (result, message.msg_flags, closes)
    }

    // SAFETY: no memory is used.
    let (one, two) = unsafe { (libc::CMSG_SPACE(4) as usize, libc::CMSG_SPACE(8) as usize) };
    for kind in [Kind::UnixStream, Kind::UnixDatagram, Kind::UnixSeqpacket] {
        for waits in [false, true] {
            for (room, flags) in [
                (two, 0),
                (two, libc::MSG_CMSG_CLOEXEC),
                (two, libc::MSG_PEEK),
                (one, 0),
                (0, 0),
            ] {
                let (_, _, parks) = same_and_parks(|| {
                    let (a, b) = kind.pair();
                    let (out, into) = common::pipe();
                    let send = || {
                        let both = [out.as_raw_fd(), into.as_raw_fd()];
                        assert_eq!(common::send_descriptors(&a, b"xy", &both), (2, 0));
                    };
                    let first = if waits {
                        while_asleep(|| receive(&b, room, flags), send)
                    } else {
                        send();
                        receive(&b, room, flags)
                    };
                    let again = receive(&b, two, libc::MSG_DONTWAIT);
                    drop(a);
                    (first, again)
                });
                assert_eq!(parks > 0, waits, "{kind:?} {room} {flags:#x}");
            }
        }
    }
}

/// Two receivers of one socket, of which one at most waits elsewhere than in the call: each message
/// is received once.
#[test]
fn two_receivers_share_what_comes() {
    for kind in [Kind::UnixDatagram, Kind::UnixSeqpacket, Kind::Udp] {
        let (mut got, _) = same(|| {
            let (a, b) = kind.pair();
            thread::scope(|scope| {
                let other = scope.spawn(|| common::parking(|| receive(Call::Recv, &b, 8, 0).1).0);
                let own = while_asleep(
                    || receive(Call::Recv, &b, 8, 0).1,
                    || {
                        send(&a, b"1");
                        send(&a, b"2");
                    },
                );
                let mut got = [own[0], other.join().unwrap()[0]];
                got.sort_unstable();
                got
            })
        });
        got.sort_unstable();
        assert_eq!(&got, b"12", "{kind:?}");
    }
}
