//! Each sending call on each kind of socket: what fits, what has to wait, and what arrives.

mod common;

use std::{
    cell::Cell,
    ffi::c_void,
    mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    ptr, thread,
    time::{Duration, Instant},
};

use common::{
    Guarded, Kind, handle, keeps_errno, outcome, same, set_non_blocking, set_option, set_timeout,
    until_readable, while_asleep,
};
use libc::{c_int, size_t, ssize_t};

umcg_managed_calls::define!();

unsafe extern "C" {
    fn __send(fd: c_int, from: *const c_void, count: size_t, flags: c_int) -> ssize_t;
    fn __write(fd: c_int, from: *const c_void, count: size_t) -> ssize_t;
}

/// The calls that send one message or a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Send,
    Send2,
    SendTo,
    SendMsg,
    SendMmsg,
    Write,
    Write2,
    Writev,
}

impl Call {
    const ALL: [Self; 8] = [
        Self::Send,
        Self::Send2,
        Self::SendTo,
        Self::SendMsg,
        Self::SendMmsg,
        Self::Write,
        Self::Write2,
        Self::Writev,
    ];

    fn takes_flags(self) -> bool {
        !matches!(self, Self::Write | Self::Write2 | Self::Writev)
    }

    /// Makes the call with `count` bytes from the address on, which may be wrong. Its result, with
    /// the number of bytes for `sendmmsg`, too.
    fn make(self, fd: RawFd, from: *const c_void, count: usize, flags: c_int) -> (i64, c_int) {
        // A third of the bytes stands in the first of two parts.
        let first = count / 3;
        let mut parts = [
            libc::iovec {
                iov_base: from.cast_mut(),
                iov_len: first,
            },
            libc::iovec {
                iov_base: from.wrapping_byte_add(first).cast_mut(),
                iov_len: count - first,
            },
        ];
        // SAFETY: all zeros are valid messages.
        let mut messages: [libc::mmsghdr; 1] = unsafe { mem::zeroed() };
        messages[0].msg_hdr.msg_iov = parts.as_mut_ptr();
        messages[0].msg_hdr.msg_iovlen = parts.len();
        // SAFETY: live memory but for `from`, which the kernel checks.
        keeps_errno(|| unsafe {
            match self {
                Self::Send => libc::send(fd, from, count, flags) as i64,
                Self::Send2 => __send(fd, from, count, flags) as i64,
                Self::SendTo => libc::sendto(fd, from, count, flags, ptr::null(), 0) as i64,
                Self::SendMsg => libc::sendmsg(fd, &raw const messages[0].msg_hdr, flags) as i64,
                Self::SendMmsg => match libc::sendmmsg(fd, messages.as_mut_ptr(), 1, flags) {
                    1 => messages[0].msg_len.into(),
                    result => result.into(),
                },
                Self::Write => libc::write(fd, from, count) as i64,
                Self::Write2 => __write(fd, from, count) as i64,
                Self::Writev => libc::writev(fd, parts.as_ptr(), 2) as i64,
            }
        })
    }

    fn send(self, fd: &OwnedFd, bytes: &[u8], flags: c_int) -> (i64, c_int) {
        self.make(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
    }
}

/// Bytes of which each says where it belongs.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index % 251) as u8).collect()
}

/// What there is to receive, up to the end or an error, and the error. The receiver has a timeout.
fn drain(fd: &OwnedFd, flags: c_int) -> (Vec<u8>, (i64, c_int)) {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let into = buffer.as_mut_ptr().cast();
        // SAFETY: room for that many bytes.
        let result =
            outcome(unsafe { libc::recv(fd.as_raw_fd(), into, buffer.len(), flags) } as i64);
        if result.0 <= 0 {
            return (all, result);
        }
        all.extend(&buffer[..result.0 as usize]);
    }
}

/// Sends until nothing fits any more, and returns how many bytes that were.
fn fill(fd: &OwnedFd) -> i64 {
    // In parts of the stream, or in messages.
    let part = [0; 1000];
    let mut total = 0;
    loop {
        match Call::Send.send(fd, &part, libc::MSG_DONTWAIT) {
            (sent @ 0.., _) => total += sent,
            (_, errno) => {
                assert_eq!(errno, libc::EAGAIN);
                return total;
            }
        }
    }
}

#[test]
fn what_fits_is_sent_in_the_same_way() {
    let all_flags = [
        0,
        libc::MSG_NOSIGNAL,
        libc::MSG_DONTWAIT,
        libc::MSG_EOR,
        libc::MSG_CONFIRM,
    ];
    for kind in Kind::ALL {
        for call in Call::ALL {
            let flags = if call.takes_flags() {
                &all_flags[..]
            } else {
                &[0]
            };
            for &flags in flags {
                let (_, said) = same(|| {
                    let (a, b) = kind.pair();
                    let sent = call.send(&a, b"abcdef", flags);
                    let got = (sent.0 > 0).then(|| {
                        until_readable(&b);
                        drain(&b, libc::MSG_DONTWAIT)
                    });
                    let empty = call.send(&a, b"", flags);
                    (sent, got, empty)
                });
                // Those that are not tried first say that they may sleep.
                let first = matches!(call, Call::Send | Call::Send2 | Call::SendTo);
                assert!(!first || said.iter().all(|said| !said.0.starts_with("send")));
            }
        }
    }
}

/// More than fits, with a receiver that takes it.
#[test]
fn all_of_a_long_stream_arrives_in_order() {
    let bytes = pattern(700_001);
    for kind in [Kind::UnixStream, Kind::Tcp] {
        for call in Call::ALL {
            let (sent, _) = same(|| {
                let (a, b) = kind.pair();
                set_option(&a, libc::SO_SNDBUF, &20_000);
                set_timeout(&b, libc::SO_RCVTIMEO, Duration::from_secs(20));
                thread::scope(|scope| {
                    let reader = scope.spawn(|| drain(&b, 0));
                    let sent = call.send(&a, &bytes, 0);
                    assert_eq!(end_stream(&a), 0);
                    let (got, end) = reader.join().unwrap();
                    assert!(
                        got == bytes,
                        "{kind:?} {call:?}: {} bytes arrived",
                        got.len()
                    );
                    assert_eq!(end, (0, 0));
                    sent
                })
            });
            assert_eq!(sent, (700_001, 0), "{kind:?} {call:?}");
        }
    }
}

/// Ends the stream of the sender.
fn end_stream(fd: &OwnedFd) -> c_int {
    // SAFETY: no memory is passed.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) }
}

/// A message waits until the receiver has taken others.
#[test]
fn a_message_waits_for_room() {
    for kind in [Kind::UnixDatagram, Kind::UnixSeqpacket] {
        for call in Call::ALL {
            let (result, said) = same(|| {
                let (a, b) = kind.pair();
                let before = fill(&a) as usize;
                let mut got = Vec::new();
                let sent = while_asleep(
                    || call.send(&a, b"the last one", 0),
                    || got = drain(&b, libc::MSG_DONTWAIT).0,
                );
                // It may have arrived before the receiver has found nothing more, or after.
                got.extend(drain(&b, libc::MSG_DONTWAIT).0);
                (sent, got.split_off(before))
            });
            assert_eq!(
                result,
                ((12, 0), b"the last one".to_vec()),
                "{kind:?} {call:?}"
            );
            assert!(!said.is_empty());
        }
    }
}

#[test]
fn without_blocking_a_part_is_sent_or_nothing() {
    let bytes = pattern(1 << 20);
    for kind in Kind::ALL {
        for call in Call::ALL {
            same(|| {
                let (a, b) = kind.pair();
                set_option(&a, libc::SO_SNDBUF, &20_000);
                set_option(&b, libc::SO_RCVBUF, &20_000);
                set_non_blocking(&a);
                let sent = call.send(&a, &bytes, 0);
                let then = (sent.0 > 0).then(|| {
                    while call.send(&a, &bytes, 0).0 > 0 {}
                    call.send(&a, b"x", 0)
                });
                if !kind.is_stream() {
                    // Too long for one message.
                    assert_eq!(sent, (-1, libc::EMSGSIZE), "{kind:?} {call:?}");
                    return;
                }
                assert!(
                    sent.0 > 0 && sent.0 < bytes.len() as i64,
                    "{kind:?} {call:?}"
                );
                set_timeout(&b, libc::SO_RCVTIMEO, Duration::from_millis(1));
                let mut got = vec![0_u8; sent.0 as usize];
                let into = got.as_mut_ptr().cast();
                // SAFETY: room for that many bytes.
                let all = unsafe { libc::recv(b.as_raw_fd(), into, got.len(), libc::MSG_WAITALL) };
                assert_eq!(all as i64, sent.0, "{kind:?} {call:?}");
                assert!(got == bytes[..got.len()]);
                assert_eq!(then, Some((-1, libc::EAGAIN)));
            });
        }
    }
}

#[test]
fn a_timeout_ends_the_wait_with_what_was_sent() {
    let time = Duration::from_millis(20);
    let bytes = pattern(1 << 20);
    for call in Call::ALL {
        for kind in [Kind::UnixStream, Kind::Tcp, Kind::UnixDatagram] {
            same(|| {
                let (a, b) = kind.pair();
                set_option(&a, libc::SO_SNDBUF, &20_000);
                set_timeout(&a, libc::SO_SNDTIMEO, time);
                if kind == Kind::UnixDatagram {
                    fill(&a);
                    let began = Instant::now();
                    let expired = call.send(&a, b"x", 0);
                    assert!(began.elapsed() >= time);
                    assert_eq!(expired, (-1, libc::EAGAIN));
                    return;
                }
                let began = Instant::now();
                let (sent, _) = call.send(&a, &bytes, 0);
                assert!(began.elapsed() >= time, "{kind:?} {call:?}");
                let full = call.send(&a, &bytes, 0);
                // What was reported is what arrives.
                assert_eq!(end_stream(&a), 0);
                let (got, _) = drain(&b, 0);
                let sent = sent + full.0.max(0);
                assert_eq!(got.len() as i64, sent, "{kind:?} {call:?}");
            });
        }
    }
}

/// Room for a timed send's rest comes late, and then all of it is sent.
#[test]
fn the_rest_of_a_timed_send_follows_its_first_part() {
    let bytes = pattern(1 << 20);
    for call in Call::ALL {
        same(|| {
            let (a, b) = Kind::UnixStream.pair();
            set_timeout(&a, libc::SO_SNDTIMEO, Duration::from_secs(60));
            let mut got = Vec::new();
            let sent = while_asleep(
                || {
                    let sent = call.send(&a, &bytes, 0);
                    assert_eq!(end_stream(&a), 0);
                    sent
                },
                || got = drain(&b, 0).0,
            );
            assert_eq!(sent.0, 1 << 20, "{call:?}");
            assert!(got == bytes, "{call:?}");
        });
    }
}

thread_local! {
    /// How many SIGPIPE this thread got.
    static BROKEN: Cell<u32> = const { Cell::new(0) };
}

extern "C" fn count_broken(_signal: c_int) {
    BROKEN.set(BROKEN.get() + 1);
}

/// A peer that goes is reported, with SIGPIPE where the kernel sends one: not after a part was
/// sent, and not with `MSG_NOSIGNAL`.
#[test]
fn a_peer_that_goes_is_reported_with_its_signal() {
    handle(libc::SIGPIPE, count_broken, libc::SA_RESTART);
    let bytes = pattern(1 << 20);
    for kind in [Kind::UnixStream, Kind::UnixSeqpacket, Kind::UnixDatagram] {
        for call in Call::ALL {
            let flags = if call.takes_flags() {
                &[0, libc::MSG_NOSIGNAL][..]
            } else {
                &[0]
            };
            for &flags in flags {
                let (result, _) = same(|| {
                    BROKEN.set(0);
                    let (a, b) = kind.pair();
                    let waited = if kind == Kind::UnixStream {
                        let (sent, errno) =
                            while_asleep(|| call.send(&a, &bytes, flags), move || drop(b));
                        assert!(sent > 0, "{call:?} {errno}");
                        // How much fits depends on how it was cut.
                        (1, errno)
                    } else {
                        fill(&a);
                        while_asleep(|| call.send(&a, b"x", flags), move || drop(b))
                    };
                    let signals = BROKEN.get();
                    let after = call.send(&a, b"x", flags);
                    (waited, signals, after, BROKEN.get())
                });
                if kind == Kind::UnixStream {
                    assert_eq!(result.1, 0, "{call:?}");
                    assert_eq!(result.3, u32::from(flags == 0), "{call:?}");
                }
            }
        }
    }
}

#[test]
fn wrong_addresses_are_reported_and_send_what_they_send_in_the_kernel() {
    let guarded = Guarded::new();
    for kind in Kind::ALL {
        for call in Call::ALL {
            let wrong = [
                (ptr::without_provenance(8), 16),
                // Readable to the middle: of a message, and of a long stream.
                (guarded.end_minus(8).cast_const(), 16),
                (guarded.end_minus(50_000).cast_const(), 60_000),
            ];
            for (from, count) in wrong {
                same(|| {
                    let (a, b) = kind.pair();
                    let sent = call.make(a.as_raw_fd(), from, count, 0);
                    drop(a);
                    set_timeout(&b, libc::SO_RCVTIMEO, Duration::from_millis(1));
                    let (got, _) = if sent.0 > 0 {
                        drain(&b, 0)
                    } else {
                        Default::default()
                    };
                    assert_eq!(got.len() as i64, sent.0.max(0), "{kind:?} {call:?} {count}");
                    sent
                });
            }
        }
        same(|| {
            let (a, b) = kind.pair();
            // SAFETY: the kernel checks the addresses.
            let results = unsafe {
                let (fd, from) = (a.as_raw_fd(), b"x".as_ptr().cast());
                let wrong: *const c_void = ptr::without_provenance(8);
                [
                    outcome(libc::sendmsg(fd, wrong.cast(), 0) as i64),
                    outcome(libc::sendto(fd, from, 1, 0, wrong.cast(), 16) as i64),
                    outcome(libc::writev(fd, wrong.cast(), 1) as i64),
                    outcome(libc::writev(fd, ptr::null(), -1) as i64),
                    outcome(libc::send(-1, from, 1, 0) as i64),
                ]
            };
            (results, drain(&b, libc::MSG_DONTWAIT))
        });
    }
}

/// Descriptors that are sent with more bytes than fit arrive once, with the first of them.
#[test]
fn descriptors_arrive_once_with_a_long_message() {
    let bytes = pattern(600_000);
    same(|| {
        let (a, b) = Kind::UnixStream.pair();
        let (out, into) = common::pipe();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut got, mut passed) = (Vec::<u8>::new(), Vec::new());
                while got.len() < bytes.len() {
                    let mut buffer = vec![0_u8; 50_000];
                    let mut control = [0_u64; 8];
                    let mut part = libc::iovec {
                        iov_base: buffer.as_mut_ptr().cast(),
                        iov_len: buffer.len(),
                    };
                    // SAFETY: all zeros are a valid message.
                    let mut message: libc::msghdr = unsafe { mem::zeroed() };
                    message.msg_iov = &raw mut part;
                    message.msg_iovlen = 1;
                    message.msg_control = control.as_mut_ptr().cast();
                    message.msg_controllen = size_of_val(&control);
                    // SAFETY: a live message.
                    let count = unsafe { libc::recvmsg(b.as_raw_fd(), &raw mut message, 0) };
                    assert!(count > 0);
                    got.extend(&buffer[..count as usize]);
                    passed.extend(common::descriptors_in(&message));
                }
                (got, passed)
            });
            let sent = common::send_descriptors(&a, &bytes, &[into.as_raw_fd()]);
            assert_eq!(sent, (600_000, 0));
            let (got, passed) = reader.join().unwrap();
            assert!(got == bytes);
            assert_eq!(passed.len(), 1);
            drop(into);
            assert_eq!(Call::Write.send(&passed[0], b"!", 0), (1, 0));
            drop(passed);
            let mut buffer = [0_u8; 4];
            // SAFETY: room for four bytes.
            let end = unsafe {
                [
                    libc::read(out.as_raw_fd(), buffer.as_mut_ptr().cast(), 4),
                    libc::read(out.as_raw_fd(), buffer.as_mut_ptr().cast(), 4),
                ]
            };
            assert_eq!(end, [1, 0], "no other descriptor of the pipe is left");
        });
    });
}

#[test]
fn several_messages_at_once() {
    for kind in Kind::ALL {
        same(|| {
            let (a, b) = kind.pair();
            let mut bytes = [*b"first", *b"other", *b"third"];
            let mut parts = [0, 1, 2].map(|i| libc::iovec {
                iov_base: bytes[i].as_mut_ptr().cast(),
                iov_len: 5,
            });
            // The last one cannot be read.
            parts[2].iov_base = ptr::without_provenance_mut(8);
            // SAFETY: all zeros are valid messages.
            let mut messages: [libc::mmsghdr; 3] = unsafe { mem::zeroed() };
            for (message, part) in messages.iter_mut().zip(&mut parts) {
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
            }
            // SAFETY: live messages.
            let sent = outcome(unsafe {
                libc::sendmmsg(a.as_raw_fd(), messages.as_mut_ptr(), 3, libc::MSG_NOSIGNAL)
            });
            until_readable(&b);
            (
                sent,
                messages.map(|message| message.msg_len),
                drain(&b, libc::MSG_DONTWAIT),
            )
        });
    }
}
