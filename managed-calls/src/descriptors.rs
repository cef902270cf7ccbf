//! Descriptors: what closes one, on any thread.
//!
//! A worker may wait for a descriptor elsewhere than in the call (`waiters.rs`). Before such a
//! descriptor is closed the worker gets a duplicate. These functions look for such a worker on
//! every thread, which costs the load of a word.

use libc::{c_int, c_uint, c_void};

use crate::{
    family::family,
    raw::raw,
    waiters::{after_close, after_close_range, before_close, before_close_range, is_waited_for},
};

family! {
    /// Descriptors.
    __define_descriptors;

    fn close(fd: c_int) -> c_int;
        raw { raw!(libc::SYS_close, fd) as c_int }
        always |_all| {
            closing(fd, || real::close(fd))
        }
    fn __close(fd: c_int) -> c_int;
        raw { raw!(libc::SYS_close, fd) as c_int }
        always |_all| {
            closing(fd, || real::__close(fd))
        }
    fn dup2(from: c_int, to: c_int) -> c_int;
        raw {
            // AArch64 has no `dup2`, and `dup3` refuses equal numbers.
            if from == to {
                let flags = raw!(libc::SYS_fcntl, from, libc::F_GETFD);
                return if flags < 0 { -1 } else { to };
            }
            raw!(libc::SYS_dup3, from, to, 0) as c_int
        }
        always |_all| {
            if from == to {
                return real::dup2(from, to);
            }
            closing(to, || real::dup2(from, to))
        }
    fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_dup3, from, to, flags) as c_int }
        always |_all| {
            if from == to {
                return real::dup3(from, to, flags);
            }
            closing(to, || real::dup3(from, to, flags))
        }
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_close_range, first, last, flags) as c_int }
        always |_all| {
            // With this flag the descriptors stay open for now.
            let closes = flags as c_uint & libc::CLOSE_RANGE_CLOEXEC == 0;
            if closes {
                before_close_range(first, last);
            }
            let result = real::close_range(first, last, flags);
            if closes {
                after_close_range(first, last);
            }
            result
        }
    fn closefrom(first: c_int) -> ();
        raw {
            let _ = raw!(libc::SYS_close_range, first.max(0), c_uint::MAX, 0);
        }
        always |_all| {
            before_close_range(first.max(0) as c_uint, c_uint::MAX);
            real::closefrom(first);
            after_close_range(first.max(0) as c_uint, c_uint::MAX);
        }
}

/// A call that closes `fd`, with what a worker needs that waits for it.
#[inline(always)]
fn closing(fd: c_int, call: impl FnOnce() -> c_int) -> c_int {
    if is_waited_for(fd) {
        before_close(fd);
    }
    let result = call();
    if is_waited_for(fd) {
        after_close(fd);
    }
    result
}
