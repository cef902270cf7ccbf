//! Data: what moves bytes over sockets, pipes, terminals and files.
//!
//! `recv`, `send` and their relatives have a form that cannot sleep, the flag `MSG_DONTWAIT`. It
//! is tried first and costs nothing, since it is the same system call. `read` and `write` have
//! none that is as cheap: `preadv2` with `RWF_NOWAIT` takes a fifth longer on a cached file, and a
//! short read of a partly cached one looks like an error to SQLite. So these, and `accept`, are
//! marked as calls that may sleep, and a judge takes the slot only if the worker does.

use libc::{
    MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_WAITALL, c_int, c_uint, c_void, iovec, mmsghdr,
    msghdr, off_t, size_t, sockaddr, socklen_t, ssize_t, timespec,
};

use crate::{
    ManagedCall, Parked, Readiness, Return, Sleep,
    family::family,
    raw::raw,
    waiters::Waiter,
    worker::{Managed, errno, set_errno},
};

family! {
    /// Data.
    __define_data;

    fn read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t;
        raw { raw!(libc::SYS_read, fd, buffer, count) }
        managed Possible Io;
    fn __read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t;
        raw { raw!(libc::SYS_read, fd, buffer, count) }
        managed Possible Io;
    fn __read_chk(fd: c_int, buffer: *mut c_void, count: size_t, size: size_t) -> ssize_t;
        raw { let _ = size; raw!(libc::SYS_read, fd, buffer, count) }
        managed Possible Io;
    fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
        raw { raw!(libc::SYS_readv, fd, parts, count) }
        managed Possible Io;
    fn pread(fd: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_pread64, fd, buffer, count, offset) }
        managed Possible File;
    fn pread64(fd: c_int, buffer: *mut c_void, count: size_t, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_pread64, fd, buffer, count, offset) }
        managed Possible File;
    fn __pread_chk(fd: c_int, buffer: *mut c_void, count: size_t, offset: off_t, size: size_t)
        -> ssize_t;
        raw { let _ = size; raw!(libc::SYS_pread64, fd, buffer, count, offset) }
        managed Possible File;
    fn __pread64_chk(fd: c_int, buffer: *mut c_void, count: size_t, offset: off_t, size: size_t)
        -> ssize_t;
        raw { let _ = size; raw!(libc::SYS_pread64, fd, buffer, count, offset) }
        managed Possible File;
    fn preadv(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_preadv, fd, parts, count, offset, 0) }
        managed Possible File;
    fn preadv64(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_preadv, fd, parts, count, offset, 0) }
        managed Possible File;
    fn preadv2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int)
        -> ssize_t;
        raw { raw!(libc::SYS_preadv2, fd, parts, count, offset, 0, flags) }
        managed Possible File;
    fn preadv64v2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int)
        -> ssize_t;
        raw { raw!(libc::SYS_preadv2, fd, parts, count, offset, 0, flags) }
        managed Possible File;

    fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t;
        raw { raw!(libc::SYS_write, fd, buffer, count) }
        managed Possible Io;
    fn __write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t;
        raw { raw!(libc::SYS_write, fd, buffer, count) }
        managed Possible Io;
    fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
        raw { raw!(libc::SYS_writev, fd, parts, count) }
        managed Possible Io;
    fn pwrite(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_pwrite64, fd, buffer, count, offset) }
        managed Possible File;
    fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_pwrite64, fd, buffer, count, offset) }
        managed Possible File;
    fn pwritev(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_pwritev, fd, parts, count, offset, 0) }
        managed Possible File;
    fn pwritev64(fd: c_int, parts: *const iovec, count: c_int, offset: off_t) -> ssize_t;
        raw { raw!(libc::SYS_pwritev, fd, parts, count, offset, 0) }
        managed Possible File;
    fn pwritev2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int)
        -> ssize_t;
        raw { raw!(libc::SYS_pwritev2, fd, parts, count, offset, 0, flags) }
        managed Possible File;
    fn pwritev64v2(fd: c_int, parts: *const iovec, count: c_int, offset: off_t, flags: c_int)
        -> ssize_t;
        raw { raw!(libc::SYS_pwritev2, fd, parts, count, offset, 0, flags) }
        managed Possible File;

    fn recv(fd: c_int, buffer: *mut c_void, count: size_t, flags: c_int) -> ssize_t;
        raw { raw!(libc::SYS_recvfrom, fd, buffer, count, flags, 0, 0) }
        managed |worker| {
            receive(worker, "recv", fd, flags, |fd, flags| {
                real::recv(fd, buffer, count, flags)
            })
        }
    fn __recv_chk(fd: c_int, buffer: *mut c_void, count: size_t, size: size_t, flags: c_int)
        -> ssize_t;
        raw { let _ = size; raw!(libc::SYS_recvfrom, fd, buffer, count, flags, 0, 0) }
        managed |worker| {
            receive(worker, "recv", fd, flags, |fd, flags| {
                real::__recv_chk(fd, buffer, count, size, flags)
            })
        }
    fn recvfrom(
        fd: c_int,
        buffer: *mut c_void,
        count: size_t,
        flags: c_int,
        address: *mut sockaddr,
        length: *mut socklen_t,
    ) -> ssize_t;
        raw { raw!(libc::SYS_recvfrom, fd, buffer, count, flags, address, length) }
        managed |worker| {
            receive(worker, "recvfrom", fd, flags, |fd, flags| {
                real::recvfrom(fd, buffer, count, flags, address, length)
            })
        }
    fn __recvfrom_chk(
        fd: c_int,
        buffer: *mut c_void,
        count: size_t,
        size: size_t,
        flags: c_int,
        address: *mut sockaddr,
        length: *mut socklen_t,
    ) -> ssize_t;
        raw {
            let _ = size;
            raw!(libc::SYS_recvfrom, fd, buffer, count, flags, address, length)
        }
        managed |worker| {
            receive(worker, "recvfrom", fd, flags, |fd, flags| {
                real::__recvfrom_chk(fd, buffer, count, size, flags, address, length)
            })
        }
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
        raw { raw!(libc::SYS_recvmsg, fd, message, flags) }
        managed |worker| {
            receive(worker, "recvmsg", fd, flags, |fd, flags| {
                real::recvmsg(fd, message, flags)
            })
        }
    fn recvmmsg(
        fd: c_int,
        messages: *mut mmsghdr,
        count: c_uint,
        flags: c_int,
        timeout: *mut timespec,
    ) -> c_int;
        raw { raw!(libc::SYS_recvmmsg, fd, messages, count, flags, timeout) as c_int }
        managed Possible Io;

    fn send(fd: c_int, buffer: *const c_void, count: size_t, flags: c_int) -> ssize_t;
        raw { raw!(libc::SYS_sendto, fd, buffer, count, flags, 0, 0) }
        managed |worker| {
            transmit(worker, "send", fd, count, flags, |done, flags| {
                real::send(fd, buffer.byte_add(done), count - done, flags)
            })
        }
    fn __send(fd: c_int, buffer: *const c_void, count: size_t, flags: c_int) -> ssize_t;
        raw { raw!(libc::SYS_sendto, fd, buffer, count, flags, 0, 0) }
        managed |worker| {
            transmit(worker, "send", fd, count, flags, |done, flags| {
                real::__send(fd, buffer.byte_add(done), count - done, flags)
            })
        }
    fn sendto(
        fd: c_int,
        buffer: *const c_void,
        count: size_t,
        flags: c_int,
        address: *const sockaddr,
        length: socklen_t,
    ) -> ssize_t;
        raw { raw!(libc::SYS_sendto, fd, buffer, count, flags, address, length) }
        managed |worker| {
            transmit(worker, "sendto", fd, count, flags, |done, flags| {
                real::sendto(fd, buffer.byte_add(done), count - done, flags, address, length)
            })
        }
    // Not tried first. What is left of a message after a part of it was taken cannot be sent by
    // the same call: its list of buffers would have to be copied, and descriptors that it
    // carries must not be sent twice.
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
        raw { raw!(libc::SYS_sendmsg, fd, message, flags) }
        managed Possible Io;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_sendmmsg, fd, messages, count, flags) as c_int }
        managed Possible Io;

    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int;
        raw { raw!(libc::SYS_accept, fd, address, length) as c_int }
        managed Possible Io;
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_accept4, fd, address, length, flags) as c_int }
        managed Possible Io;
    // A connection over the loopback device, or by a Unix socket, is made without sleeping.
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
        raw { raw!(libc::SYS_connect, fd, address, length) as c_int }
        managed Possible Io;
    fn __connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int;
        raw { raw!(libc::SYS_connect, fd, address, length) as c_int }
        managed Possible Io;

    fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t;
        raw { raw!(libc::SYS_sendfile, to, from, offset, count) }
        managed Possible Io;
    fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t;
        raw { raw!(libc::SYS_sendfile, to, from, offset, count) }
        managed Possible Io;
    fn splice(
        from: c_int,
        from_offset: *mut off_t,
        to: c_int,
        to_offset: *mut off_t,
        count: size_t,
        flags: c_uint,
    ) -> ssize_t;
        raw { raw!(libc::SYS_splice, from, from_offset, to, to_offset, count, flags) }
        managed Possible Io;
    fn tee(from: c_int, to: c_int, count: size_t, flags: c_uint) -> ssize_t;
        raw { raw!(libc::SYS_tee, from, to, count, flags) }
        managed Possible Io;
    fn vmsplice(fd: c_int, parts: *const iovec, count: size_t, flags: c_uint) -> ssize_t;
        raw { raw!(libc::SYS_vmsplice, fd, parts, count, flags) }
        managed Possible Io;
    fn copy_file_range(
        from: c_int,
        from_offset: *mut off_t,
        to: c_int,
        to_offset: *mut off_t,
        count: size_t,
        flags: c_uint,
    ) -> ssize_t;
        raw { raw!(libc::SYS_copy_file_range, from, from_offset, to, to_offset, count, flags) }
        managed Possible Io;
}

/// A receiving call on a socket: first in the form that cannot sleep, then as it was made.
///
/// With `MSG_WAITALL` the first form could return a part of the data, which the second would have
/// to complete; out-of-band data is rare. Both go the other way.
#[inline]
fn receive(
    worker: Managed,
    name: &'static str,
    fd: c_int,
    flags: c_int,
    call: impl Fn(c_int, c_int) -> ssize_t,
) -> ssize_t {
    let sleep = if flags & (MSG_WAITALL | MSG_OOB) == 0 {
        let before = errno();
        let received = call(fd, flags | MSG_DONTWAIT);
        if received >= 0 || !may_wait(fd, flags) {
            worker.passed();
            return received;
        }
        if flags & MSG_ERRQUEUE == 0 && !has_timeout(fd, libc::SO_RCVTIMEO) {
            let waiter = Waiter::new(fd, worker.with(|worker| worker.waker()));
            let received = wait_parked(worker, name, &waiter, before, |fd| {
                call(fd, flags | MSG_DONTWAIT)
            });
            return received.unwrap_or_else(|fd| {
                worker.call(managed(name, fd), Sleep::Certain, Return::Io, || {
                    call(fd, flags)
                })
            });
        }
        set_errno(before);
        Sleep::Certain
    } else {
        Sleep::Possible
    };
    worker.call(managed(name, fd), sleep, Return::Io, || call(fd, flags))
}

/// Waits for something to receive elsewhere than in the call, and repeats the call, which cannot
/// sleep, until it has something. `Err`: the worker is to make the call that sleeps, with this
/// descriptor and `errno` as it was `before`.
fn wait_parked(
    worker: Managed,
    name: &'static str,
    waiter: &Waiter,
    before: c_int,
    call: impl Fn(c_int) -> ssize_t,
) -> Result<ssize_t, c_int> {
    let block = || {
        set_errno(before);
        Err(waiter.leave().unwrap_or(waiter.fd()))
    };
    if !waiter.enter() {
        return block();
    }
    // Something that is not to be received keeps the descriptor ready: an error in the socket's
    // queue of errors, for one. Then only the kernel can wait.
    for round in 0..ROUNDS {
        let parked = match waiter.original() {
            Some(fd) => {
                worker.with(|worker| worker.park(managed(name, fd), fd, Readiness::Readable))
            }
            None => Parked::Refused,
        };
        if parked == Parked::Refused {
            if round > 0 {
                waiter.keep_file();
            }
            return block();
        }
        set_errno(before);
        let received = waiter.attempt(&call);
        if received >= 0 || errno() != libc::EAGAIN {
            return Ok(received);
        }
        if parked == Parked::Interrupted {
            set_errno(libc::EINTR);
            return Ok(received);
        }
    }
    waiter.keep_file();
    block()
}

/// How often a worker waits elsewhere than in the call without having received anything.
const ROUNDS: u32 = 8;

/// Whether the socket has a timeout, so that only the kernel knows how long its calls sleep. Also
/// if it is no socket.
fn has_timeout(fd: c_int, which: c_int) -> bool {
    // SAFETY: a live value of the given size.
    unsafe {
        let mut timeout: libc::timeval = std::mem::zeroed();
        let mut size = size_of_val(&timeout) as socklen_t;
        let result = raw!(
            libc::SYS_getsockopt,
            fd,
            libc::SOL_SOCKET,
            which,
            &raw mut timeout,
            &raw mut size
        );
        result != 0 || timeout.tv_sec != 0 || timeout.tv_usec != 0
    }
}

/// A sending call on a socket: first in the form that cannot sleep, then the rest as it was made.
///
/// `call` sends what follows after a number of bytes. The result is that of one call: if a part
/// was sent, the number of bytes, and an error of the rest is reported by the next call.
#[inline]
fn transmit(
    worker: Managed,
    name: &'static str,
    fd: c_int,
    count: size_t,
    flags: c_int,
    call: impl Fn(usize, c_int) -> ssize_t,
) -> ssize_t {
    if flags & (libc::MSG_FASTOPEN | libc::MSG_ZEROCOPY) != 0 {
        // Two calls would not be one: a connection is made, or the pages are counted.
        return worker.call(managed(name, fd), Sleep::Possible, Return::Io, || {
            call(0, flags)
        });
    }
    let before = errno();
    let first = call(0, flags | MSG_DONTWAIT);
    let done = match first {
        // A message is sent whole or not at all, so a part was taken by a stream.
        0.. if first as usize >= count => {
            worker.passed();
            return first;
        }
        0.. if flags & MSG_DONTWAIT != 0 || is_non_blocking(fd) => {
            worker.passed();
            return first;
        }
        0.. => first as usize,
        _ if !may_wait(fd, flags) => return first,
        _ => 0,
    };
    set_errno(before);
    // The kernel's one call would return the part quietly.
    let quiet = if done > 0 { libc::MSG_NOSIGNAL } else { 0 };
    let rest = worker.call(managed(name, fd), Sleep::Certain, Return::Io, || {
        if done > 0 && !wait_for_room(fd) {
            return -1;
        }
        call(done, flags | quiet)
    });
    match rest {
        0.. => done as ssize_t + rest,
        _ if done > 0 => {
            set_errno(before);
            done as ssize_t
        }
        _ => rest,
    }
}

/// Waits until a socket, which has taken a part of what is being sent, takes more. False: a signal
/// handler has run, or the socket has an error, which is left for the next call.
///
/// The kernel's one call ends with the part when a handler has run. A call for the rest that has
/// sent nothing yet would be restarted after a handler with `SA_RESTART`; `poll` never is, and the
/// call that follows it begins with a part of its own. With a timeout that call is not restarted.
fn wait_for_room(fd: c_int) -> bool {
    if has_timeout(fd, libc::SO_SNDTIMEO) {
        return true;
    }
    let mut set = libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one live pollfd.
    let found = unsafe { libc::poll(&raw mut set, 1, -1) };
    found >= 0 && set.revents & libc::POLLERR == 0
}

/// Whether the call that has just failed with `errno` would have slept without `MSG_DONTWAIT`.
fn may_wait(fd: c_int, flags: c_int) -> bool {
    if errno() != libc::EAGAIN || flags & MSG_DONTWAIT != 0 {
        return false;
    }
    let waits = !is_non_blocking(fd);
    set_errno(libc::EAGAIN);
    waits
}

fn is_non_blocking(fd: c_int) -> bool {
    // SAFETY: it reads the flags of an open file.
    let flags = unsafe { raw!(libc::SYS_fcntl, fd, libc::F_GETFL) };
    flags < 0 || flags as c_int & libc::O_NONBLOCK != 0
}

fn managed(name: &'static str, fd: c_int) -> ManagedCall {
    ManagedCall {
        name,
        argument: fd as usize,
    }
}
