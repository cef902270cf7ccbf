//! Refuses system calls, as a sandbox does.

use std::io;

/// `BPF_LD | BPF_W | BPF_ABS`: the word at an offset of `struct seccomp_data`.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// Makes these system calls fail with EPERM from now on, in all threads of this process.
///
/// # Errors
/// The system permits no filter.
pub fn refuse(calls: &[i64]) -> io::Result<()> {
    refuse_with(libc::EPERM, calls)
}

/// The same, with another errno.
///
/// # Errors
/// As [`refuse`].
pub fn refuse_with(errno: i32, calls: &[i64]) -> io::Result<()> {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The number of the system call is at offset 0.
    let mut filter = vec![step(LOAD, 0, 0, 0)];
    for &call in calls {
        filter.push(step(JUMP_IF_EQUAL, 0, 1, call as u32));
        let refusal = libc::SECCOMP_RET_ERRNO | errno as u32;
        filter.push(step(RETURN, 0, 0, refusal));
    }
    filter.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: plain values, and a program that lives during the call.
    let result = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The calls that choose the CPUs of a thread.
pub const AFFINITY: &[i64] = &[libc::SYS_sched_setaffinity];
/// The calls that choose the policy of a thread.
pub const POLICY: &[i64] = &[libc::SYS_sched_setscheduler, libc::SYS_sched_setparam];
/// The call that chooses the time slice of a thread, and its policy.
pub const ATTRIBUTES: &[i64] = &[libc::SYS_sched_setattr];
