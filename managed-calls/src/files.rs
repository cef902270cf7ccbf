//! Files and their locks: calls that sleep if the device does, or if another process holds the
//! lock.

use libc::{
    AT_FDCWD, F_LOCK, F_OFD_SETLKW, F_SETLKW, LOCK_NB, c_char, c_int, c_uint, c_void, mode_t,
    off_t, size_t,
};

use crate::{
    ManagedCall, Return, Sleep,
    family::family,
    raw::raw,
    worker::{errno, set_errno},
};

family! {
    /// Files and locks.
    __define_files;

    // The mode is read by libc only where the flags say that there is one; where the caller gave
    // none this passes on whatever stands in its register.
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        raw { raw!(libc::SYS_openat, AT_FDCWD, path, flags, mode) as c_int }
        managed Possible File;
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        raw { raw!(libc::SYS_openat, AT_FDCWD, path, flags, mode) as c_int }
        managed Possible File;
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        raw { raw!(libc::SYS_openat, folder, path, flags, mode) as c_int }
        managed Possible File;
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
        raw { raw!(libc::SYS_openat, folder, path, flags, mode) as c_int }
        managed Possible File;
    fn __open_2(path: *const c_char, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_openat, AT_FDCWD, path, flags, 0) as c_int }
        managed Possible File;
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_openat, AT_FDCWD, path, flags, 0) as c_int }
        managed Possible File;
    fn __openat_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_openat, folder, path, flags, 0) as c_int }
        managed Possible File;
    fn __openat64_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_openat, folder, path, flags, 0) as c_int }
        managed Possible File;
    fn creat(path: *const c_char, mode: mode_t) -> c_int;
        raw {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            raw!(libc::SYS_openat, AT_FDCWD, path, flags, mode) as c_int
        }
        managed Possible File;
    fn creat64(path: *const c_char, mode: mode_t) -> c_int;
        raw {
            let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
            raw!(libc::SYS_openat, AT_FDCWD, path, flags, mode) as c_int
        }
        managed Possible File;

    fn fsync(fd: c_int) -> c_int;
        raw { raw!(libc::SYS_fsync, fd) as c_int }
        managed Possible File;
    fn fdatasync(fd: c_int) -> c_int;
        raw { raw!(libc::SYS_fdatasync, fd) as c_int }
        managed Possible File;
    fn syncfs(fd: c_int) -> c_int;
        raw { raw!(libc::SYS_syncfs, fd) as c_int }
        managed Possible File;
    fn sync_file_range(fd: c_int, offset: off_t, count: off_t, flags: c_uint) -> c_int;
        raw { raw!(libc::SYS_sync_file_range, fd, offset, count, flags) as c_int }
        managed Possible File;
    fn msync(address: *mut c_void, count: size_t, flags: c_int) -> c_int;
        raw { raw!(libc::SYS_msync, address, count, flags) as c_int }
        managed Possible File;

    fn flock(fd: c_int, operation: c_int) -> c_int;
        raw { raw!(libc::SYS_flock, fd, operation) as c_int }
        managed |worker| {
            let before = errno();
            let result = real::flock(fd, operation | LOCK_NB);
            if result == 0 || errno() != libc::EWOULDBLOCK || operation & LOCK_NB != 0 {
                return result;
            }
            set_errno(before);
            worker.call(
                ManagedCall { name: "flock", argument: fd as usize },
                Sleep::Certain,
                Return::Owner,
                || { real::flock(fd, operation) },
            )
        }
    fn lockf(fd: c_int, command: c_int, count: off_t) -> c_int;
        raw { raw_lockf(fd, command, count) }
        managed |worker| {
            if command != F_LOCK {
                return real::lockf(fd, command, count);
            }
            worker.call(
                ManagedCall { name: "lockf", argument: fd as usize },
                Sleep::Possible,
                Return::Owner,
                || { real::lockf(fd, command, count) },
            )
        }
    fn lockf64(fd: c_int, command: c_int, count: off_t) -> c_int;
        raw { raw_lockf(fd, command, count) }
        managed |worker| {
            if command != F_LOCK {
                return real::lockf64(fd, command, count);
            }
            worker.call(
                ManagedCall { name: "lockf", argument: fd as usize },
                Sleep::Possible,
                Return::Owner,
                || { real::lockf64(fd, command, count) },
            )
        }
    fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
        raw { raw!(libc::SYS_fcntl, fd, command, argument) as c_int }
        managed |worker| {
            if command != F_SETLKW && command != F_OFD_SETLKW {
                return real::fcntl(fd, command, argument);
            }
            worker.call(
                ManagedCall { name: "fcntl", argument: fd as usize },
                Sleep::Possible,
                Return::Owner,
                || { real::fcntl(fd, command, argument) },
            )
        }
    fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int;
        raw { raw!(libc::SYS_fcntl, fd, command, argument) as c_int }
        managed |worker| {
            if command != F_SETLKW && command != F_OFD_SETLKW {
                return real::fcntl64(fd, command, argument);
            }
            worker.call(
                ManagedCall { name: "fcntl", argument: fd as usize },
                Sleep::Possible,
                Return::Owner,
                || { real::fcntl64(fd, command, argument) },
            )
        }
}

/// `lockf` by `fcntl`, as every libc makes it.
unsafe fn raw_lockf(fd: c_int, command: c_int, count: off_t) -> c_int {
    // SAFETY: all zeros are a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_whence = libc::SEEK_CUR as _;
    lock.l_len = count;
    lock.l_type = libc::F_WRLCK as _;
    let set = match command {
        libc::F_ULOCK => {
            lock.l_type = libc::F_UNLCK as _;
            libc::F_SETLK
        }
        libc::F_LOCK => libc::F_SETLKW,
        libc::F_TLOCK => libc::F_SETLK,
        libc::F_TEST => {
            // SAFETY: a live flock.
            let result = unsafe { raw!(libc::SYS_fcntl, fd, libc::F_GETLK, &raw mut lock) };
            // SAFETY: no arguments.
            let own = unsafe { libc::getpid() };
            if result < 0 || lock.l_type == libc::F_UNLCK as _ || lock.l_pid == own {
                return result as c_int;
            }
            set_errno(libc::EACCES);
            return -1;
        }
        _ => {
            set_errno(libc::EINVAL);
            return -1;
        }
    };
    // SAFETY: a live flock.
    unsafe { raw!(libc::SYS_fcntl, fd, set, &raw mut lock) as c_int }
}
