//! Bookkeeping: what a scheduler does to its threads must not be seen by the program.
//!
//! A worker is pinned to a CPU and has another scheduling policy than the program chose. So
//! `sched_getaffinity` would tell of the pin, and a program would size its pools for one CPU; and a
//! new program would keep pin and policy through `execve`. `start.rs` has what else a worker
//! starts.

use std::{ptr, slice};

use libc::{c_char, c_int, c_void, pid_t, size_t};

use crate::{Inherited, family::family, raw::raw};

/// The strings of a new program: its arguments, or its environment.
pub type Strings = *const *mut c_char;

family! {
    /// Bookkeeping.
    __define_process;

    fn sched_yield() -> c_int;
        raw { raw!(libc::SYS_sched_yield) as c_int }
        managed |worker| {
            worker.with(|worker| worker.yield_now());
            0
        }

    fn sched_getaffinity(pid: pid_t, size: size_t, mask: *mut c_void) -> c_int;
        raw {
            // The system call returns the size of the kernel's mask, and leaves the rest as it was.
            let filled = raw!(libc::SYS_sched_getaffinity, pid, size, mask);
            if filled < 0 {
                -1
            } else {
                ptr::write_bytes(
                    mask.byte_add(filled as usize).cast::<u8>(),
                    0,
                    size - filled as usize,
                );
                0
            }
        }
        managed |worker| {
            // Libc's answer first: it reports a wrong address or size.
            let result = real::sched_getaffinity(pid, size, mask);
            if result == 0 && is_calling_thread(pid) {
                let mask = slice::from_raw_parts_mut(mask.cast::<u8>(), size);
                worker.with(|worker| worker.affinity(mask));
            }
            result
        }

    // In the child between `fork` and here, or on a worker that replaces its whole process.
    fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int;
        raw { raw!(libc::SYS_execve, path, arguments, environment) as c_int }
        managed |worker| {
            worker.with(|worker| (worker.unmanage())(Inherited::ALL));
            real::execve(path, arguments, environment)
        }
}

fn is_calling_thread(pid: pid_t) -> bool {
    // SAFETY: no arguments.
    pid == 0 || pid == unsafe { raw!(libc::SYS_gettid) } as pid_t
}
