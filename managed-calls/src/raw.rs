//! System calls without libc, for programs in which there is no next definition of a function.

/// One system call with up to six arguments. The result is the kernel's: a negative errno says
/// that it failed.
///
/// # Safety
/// As for the system call.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn system_call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel's calling convention; rcx and r11 are what it overwrites.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// See the other architecture.
///
/// # Safety
/// As for the system call.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn system_call(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result: isize;
    // SAFETY: the kernel's calling convention, which overwrites x0 only.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack)
        );
    }
    result
}

/// The result as libc returns it: -1 and `errno`, or the number.
pub(crate) fn checked(result: isize) -> isize {
    // The kernel's errors are the last page of the address space.
    if (-4095..0).contains(&result) {
        crate::worker::set_errno(-result as i32);
        return -1;
    }
    result
}

/// Calls [`system_call`] with arguments of any integer or pointer type, and returns as libc does.
macro_rules! raw {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        let given = [$($argument as usize),*];
        let mut arguments = [0; 6];
        arguments[..given.len()].copy_from_slice(&given);
        $crate::raw::checked($crate::raw::system_call($number, arguments))
    }};
}
pub(crate) use raw;
