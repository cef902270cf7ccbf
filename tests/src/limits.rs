//! Resource limits and users.

use std::{fs, io};

use crate::proc::check;

/// Sets the soft limit of a resource, and keeps the hard limit.
///
/// # Errors
/// The error of the system call.
pub fn set_soft(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let mut limit = get(resource)?;
    limit.rlim_cur = value.min(limit.rlim_max);
    // SAFETY: a live limit.
    check(unsafe { libc::setrlimit(resource, &raw const limit) })
}

/// Both limits of a resource.
///
/// # Errors
/// The error of the system call.
pub fn get(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a live place for the answer.
    check(unsafe { libc::getrlimit(resource, &raw mut limit) })?;
    Ok(limit)
}

/// Becomes a user that nobody else is, if this process runs as root. RLIMIT_NPROC does not hold for
/// root, and it counts all threads of a user. Other users stay who they are.
///
/// # Errors
/// The error of the system call.
pub fn drop_privileges() -> io::Result<()> {
    // SAFETY: plain calls.
    unsafe {
        if libc::geteuid() != 0 {
            return Ok(());
        }
        let id = 1_000_000 + libc::getpid() as u32;
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(id, id, id))?;
        check(libc::setresuid(id, id, id))
    }
}

/// How many threads the user of this process has on this machine, as far as `/proc` shows them.
#[must_use]
pub fn threads_of_this_user() -> u64 {
    // SAFETY: no arguments.
    let uid = unsafe { libc::getuid() };
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    processes
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            path.file_name()?.to_str()?.parse::<u32>().ok()?;
            let status = fs::read_to_string(path.join("status")).ok()?;
            let value = |key: &str| {
                let line = status.lines().find(|line| line.starts_with(key))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            };
            (value("Uid:")? == u64::from(uid)).then(|| value("Threads:"))?
        })
        .sum()
}

/// How many threads this process can still make, by the known limits of the machine, the user and
/// the cgroup.
#[must_use]
pub fn room_for_threads() -> u64 {
    let number = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(u64::MAX)
    };
    let user = get(libc::RLIMIT_NPROC).map_or(u64::MAX, |limit| limit.rlim_cur);
    // SAFETY: no arguments.
    let user = if unsafe { libc::geteuid() } == 0 {
        u64::MAX
    } else {
        user
    };
    // Each thread has up to four mappings: a stack, a signal stack, and a guard for each.
    let mappings = number("/proc/sys/vm/max_map_count") / 4;
    [
        number("/proc/sys/kernel/threads-max"),
        number("/proc/sys/kernel/pid_max"),
        number("/sys/fs/cgroup/pids.max"),
        number("/sys/fs/cgroup/pids/pids.max"),
        user,
        mappings,
    ]
    .into_iter()
    .min()
    .unwrap_or(0)
}

/// How much memory this process uses, in bytes.
#[must_use]
pub fn resident_bytes() -> u64 {
    fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * 4096)
}
