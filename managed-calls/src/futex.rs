//! The futex, by `syscall`: how std and parking_lot wait for locks, conditions and parked threads.

use libc::{
    FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, c_int,
    c_long, c_void,
};

use crate::{ManagedCall, Return, Sleep, family::family, raw::raw};

/// What the upper bits of a futex operation are for: which clock, and whether the word is private.
const COMMAND: c_int = !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);

family! {
    /// System calls by number.
    __define_futex;

    // The function has a variable number of arguments, all of which are registers to the kernel.
    fn syscall(
        number: c_long,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
        f: usize,
    ) -> c_long;
        raw { raw!(number, a, b, c, d, e, f) as c_long }
        managed |worker| {
            let Some((name, sleep, how)) = blocking(number, b as c_int) else {
                if number == libc::SYS_futex {
                    // Of the operations that do not sleep, those in use wake somebody.
                    worker.with(|worker| worker.woke_others());
                }
                return real::syscall(number, a, b, c, d, e, f);
            };
            worker.call(ManagedCall { name, argument: a }, sleep, how, || {
                real::syscall(number, a, b, c, d, e, f)
            })
        }
}

/// What a system call is to the scheduler. `None`: it does not sleep, or nobody calls it this way.
///
/// The futex's word is not looked at before the call: its address may be wrong, which only the
/// kernel can find out without harm. The word may have changed by then, and the call returns at
/// once; the announced block then costs a switch.
fn blocking(number: c_long, operation: c_int) -> Option<(&'static str, Sleep, Return)> {
    match number {
        libc::SYS_futex => match operation & COMMAND {
            FUTEX_WAIT | FUTEX_WAIT_BITSET => Some(("futex", Sleep::Certain, Return::Woken)),
            FUTEX_LOCK_PI | FUTEX_LOCK_PI2 | FUTEX_WAIT_REQUEUE_PI => {
                Some(("futex", Sleep::Certain, Return::Owner))
            }
            _ => None,
        },
        libc::SYS_futex_waitv => Some(("futex_waitv", Sleep::Certain, Return::Woken)),
        libc::SYS_io_uring_enter => Some(("io_uring_enter", Sleep::Possible, Return::Io)),
        libc::SYS_epoll_pwait2 => Some(("epoll_pwait2", Sleep::Possible, Return::Io)),
        libc::SYS_copy_file_range => Some(("copy_file_range", Sleep::Possible, Return::Io)),
        _ => None,
    }
}
