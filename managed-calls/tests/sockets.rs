//! Sockets: the managed calls beside libc's own.

mod common;

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use common::{
    keeps_errno, managed, of, outcome, pair, same, set_non_blocking, set_timeout, while_asleep,
};
use libc::{c_int, c_void};
use umcg_managed_calls::{Return, Sleep};

umcg_managed_calls::define!();

const BLOCKED: &[(Sleep, Return)] = &[(Sleep::Certain, Return::Io)];

fn recv(fd: &OwnedFd, count: usize, flags: c_int) -> ((i64, c_int), Vec<u8>) {
    let mut buffer = vec![0xee; count];
    let result = keeps_errno(|| {
        // SAFETY: room for `count` bytes.
        unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), count, flags) as i64 }
    });
    buffer.truncate(result.0.max(0) as usize);
    (result, buffer)
}

fn send(fd: &OwnedFd, bytes: &[u8], flags: c_int) -> (i64, c_int) {
    keeps_errno(|| {
        // SAFETY: `bytes` is readable.
        unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) as i64 }
    })
}

#[test]
fn data_that_is_there_is_received_without_a_word_to_the_scheduler() {
    for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET] {
        let (result, said) = same(|| {
            let (a, b) = pair(kind);
            let sent = send(&a, b"hello", 0);
            (sent, recv(&b, 16, libc::MSG_PEEK), recv(&b, 3, 0))
        });
        assert_eq!(result.0.0, 5);
        assert_eq!(result.1.1, b"hello");
        assert_eq!(result.2.1, b"hel");
        assert!(said.is_empty(), "{said:?}");
    }
}

#[test]
fn a_receiver_that_has_to_wait_announces_it_once() {
    let (result, said) = same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        while_asleep(
            || recv(&b, 16, 0),
            move || {
                assert_eq!(send(&a, b"late", 0).0, 4);
                // Open until it was received.
                mem::forget(a);
            },
        )
    });
    assert_eq!(result.1, b"late");
    assert_eq!(of("recv", &said), BLOCKED);
}

#[test]
fn end_of_stream_reset_and_bad_descriptors_are_libcs() {
    let (_, said) = same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        drop(a);
        let end = recv(&b, 4, 0);
        let broken = send(&b, b"x", libc::MSG_NOSIGNAL);
        let (c, d) = pair(libc::SOCK_STREAM);
        // SAFETY: an open socket.
        unsafe { libc::shutdown(d.as_raw_fd(), libc::SHUT_RD) };
        let shut = recv(&d, 4, 0);
        drop(c);
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let no_socket = recv(&file, 4, 0);
        // SAFETY: it fails before it touches memory.
        let closed = unsafe { outcome(libc::recv(-1, ptr::null_mut(), 4, 0) as i64) };
        // SAFETY: an address that is not mapped: the kernel says EFAULT.
        let fault = unsafe {
            let (e, f) = pair(libc::SOCK_STREAM);
            send(&e, b"x", 0);
            outcome(libc::recv(f.as_raw_fd(), 8 as *mut c_void, 4, 0) as i64)
        };
        (end, broken, shut, no_socket, closed, fault)
    });
    assert!(said.iter().all(|call| call.0 != "recv"), "{said:?}");
}

#[test]
fn non_blocking_sockets_and_calls_are_never_announced() {
    let (result, said) = same(|| {
        let (_a, b) = pair(libc::SOCK_STREAM);
        let by_flag = recv(&b, 4, libc::MSG_DONTWAIT);
        set_non_blocking(&b);
        let by_mode = recv(&b, 4, 0);
        let block = [7; 1 << 16];
        let mut sent = Vec::new();
        loop {
            let (bytes, errno) = send(&b, &block, 0);
            sent.push((bytes, errno));
            if bytes < 0 {
                break (by_flag, by_mode, sent);
            }
        }
    });
    assert_eq!(result.0.0, (-1, libc::EAGAIN));
    assert_eq!(result.1.0, (-1, libc::EAGAIN));
    assert_eq!(result.2.last(), Some(&(-1, libc::EAGAIN)));
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn receive_timeouts_are_kept() {
    let wait = Duration::from_millis(60);
    let (result, said) = same(|| {
        let (_a, b) = pair(libc::SOCK_STREAM);
        set_timeout(&b, libc::SO_RCVTIMEO, wait);
        let began = Instant::now();
        let result = recv(&b, 4, 0);
        let took = began.elapsed();
        assert!(took >= wait && took < wait * 20, "{took:?}");
        result
    });
    assert_eq!(result.0, (-1, libc::EAGAIN));
    assert_eq!(of("recv", &said), BLOCKED);
}

#[test]
fn wait_all_returns_all() {
    let (result, _) = same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        send(&a, b"one ", 0);
        while_asleep(
            || recv(&b, 8, libc::MSG_WAITALL),
            move || {
                send(&a, b"two!", 0);
                mem::forget(a);
            },
        )
    });
    assert_eq!(result.1, b"one two!");
}

#[test]
fn a_blocking_send_of_more_than_fits_sends_all_of_it() {
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let (result, said) = same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        let (sent, got) = thread::scope(|scope| {
            // On a thread of its own, which is not managed.
            let reader = scope.spawn(|| {
                let mut got = Vec::new();
                while got.len() < bytes.len() {
                    let (_, part) = recv(&b, 1 << 16, 0);
                    assert!(!part.is_empty());
                    got.extend(part);
                }
                got
            });
            (send(&a, &bytes, 0), reader.join().unwrap())
        });
        assert!(got == bytes, "bytes were lost, doubled or changed");
        sent
    });
    assert_eq!(result.0, 3_000_000);
    // The rest of the first part is sent by one call.
    assert!(of("send", &said).len() <= 1, "{said:?}");
}

#[test]
fn a_send_timeout_after_a_part_returns_the_part() {
    let (result, _) = same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        set_timeout(&a, libc::SO_SNDTIMEO, Duration::from_millis(50));
        let sent = send(&a, &[1; 1 << 22], 0);
        // What was reported is what is there.
        let mut got = 0;
        while let ((1.., _), part) = recv(&b, 1 << 16, libc::MSG_DONTWAIT) {
            got += part.len() as i64;
        }
        assert_eq!(sent.0, got);
        sent.0 > 0
    });
    assert!(result);
}

#[test]
fn a_peer_that_goes_in_the_middle_of_a_send_is_reported() {
    same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        let first = while_asleep(
            || send(&a, &[1; 1 << 22], libc::MSG_NOSIGNAL),
            move || drop(b),
        );
        let second = send(&a, b"x", libc::MSG_NOSIGNAL);
        (first, second)
    });
}

#[test]
fn datagrams_keep_their_bounds_and_addresses() {
    use std::net::UdpSocket;

    let (_, said) = same(|| {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (to, from) = (b.local_addr().unwrap(), a.local_addr().unwrap());
        a.send_to(b"first", to).unwrap();
        a.send_to(b"second", to).unwrap();
        let mut buffer = [0; 16];
        let (count, sender) = b.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..count], sender), (&b"first"[..], from));
        let (count, _) = b.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"second");
        b.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
        b.recv_from(&mut buffer).unwrap_err().kind()
    });
    assert_eq!(of("recvfrom", &said), BLOCKED);
}

#[test]
fn descriptors_are_passed_once() {
    same(|| {
        let (a, b) = pair(libc::SOCK_STREAM);
        let (read, write) = common::pipe();
        let mut byte = *b"F";
        let mut part = libc::iovec {
            iov_base: byte.as_mut_ptr().cast(),
            iov_len: 1,
        };
        let mut control = [0_u64; 8];
        // SAFETY: all zeros are a valid msghdr.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: the control buffer has room for a header and one descriptor.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(4) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast(), write.as_raw_fd());
        }
        // SAFETY: a complete message.
        let sent = unsafe { outcome(libc::sendmsg(a.as_raw_fd(), &raw const message, 0) as i64) };
        message.msg_controllen = mem::size_of_val(&control);
        // SAFETY: the same buffers.
        let received = unsafe { outcome(libc::recvmsg(b.as_raw_fd(), &raw mut message, 0) as i64) };
        // SAFETY: the kernel filled the control buffer.
        let passed: c_int = unsafe {
            ptr::read_unaligned(
                libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&raw const message)).cast::<c_int>(),
            )
        };
        // SAFETY: a descriptor that was just received.
        let wrote = unsafe { outcome(libc::write(passed, b"!".as_ptr().cast(), 1) as i64) };
        // SAFETY: it is this test's.
        unsafe { libc::close(passed) };
        drop(write);
        let mut rest = [0; 4];
        // SAFETY: room for four bytes.
        let got =
            unsafe { outcome(libc::read(read.as_raw_fd(), rest.as_mut_ptr().cast(), 4) as i64) };
        (sent, received, wrote, got)
    });
}

#[test]
fn std_connections_work() {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    let ((), said) = managed(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"ping").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut ping = [0; 4];
        stream.read_exact(&mut ping).unwrap();
        stream.write_all(b"pong").unwrap();
        drop(stream);
        assert_eq!(client.join().unwrap(), "pong");
    });
    assert_eq!(of("accept4", &said), [(Sleep::Possible, Return::Io)]);
}
