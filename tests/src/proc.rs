//! What `/proc` says about a thread of this process.

use std::fs;

/// The state letter of `/proc/self/task/TID/stat`, or `None` if there is no such thread.
#[must_use]
pub fn state(tid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether the thread sleeps in the kernel.
#[must_use]
pub fn asleep(tid: u32) -> bool {
    matches!(state(tid), Some('S' | 'D'))
}

/// The value of one line of `/proc/self/task/TID/status`.
#[must_use]
pub fn status(tid: u32, key: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let line = status
        .lines()
        .find(|line| line.split(':').next() == Some(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The calling thread's time slice, nanoseconds, as the kernel says it; 0 before Linux 6.12.
#[must_use]
pub fn slice() -> u64 {
    // `struct sched_attr` of 48 bytes: `sched_runtime` is the fourth word of 8.
    let mut attr = [0_u64; 6];
    let size = size_of_val(&attr);
    // SAFETY: a live buffer of the given size.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    assert_eq!(result, 0, "sched_getattr");
    attr[3]
}

/// The scheduling policy of the thread.
#[must_use]
pub fn policy(tid: u32) -> i32 {
    // SAFETY: plain values.
    unsafe { libc::sched_getscheduler(tid as i32) }
}

/// The threads of this process.
#[must_use]
pub fn threads() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The CPUs that the calling thread may run on.
#[must_use]
pub fn affinity() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid and its size is given.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    assert_eq!(result, 0, "sched_getaffinity");
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below CPU_SETSIZE.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Lets the calling thread run on these CPUs only.
///
/// # Panics
/// If the system refuses.
pub fn set_affinity(cpus: &[usize]) {
    // SAFETY: an all-zero set is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: a CPU that the system named is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set is valid and its size is given.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    assert_eq!(result, 0, "sched_setaffinity");
}

/// One line for a report: state, where it sleeps, in which system call.
#[must_use]
pub fn describe(tid: u32) -> String {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/self/task/{tid}/{file}"))
            .map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
    };
    match state(tid) {
        None => "no such thread".to_owned(),
        Some(letter) => format!(
            "{} {letter} wchan {} syscall {}",
            read("comm"),
            read("wchan"),
            read("syscall")
        ),
    }
}

static SIGNALS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

extern "C" fn count(_signal: i32) {
    SIGNALS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
}

/// Installs a handler that counts, with `flags` (0, or `SA_RESTART`).
pub fn count_signals(signal: i32, flags: i32) {
    handle_signal(signal, count, flags);
}

/// Installs a handler, which must be async-signal-safe.
///
/// # Panics
/// If the system refuses.
pub fn handle_signal(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: an all-zero action is valid; the handler is safe by this function's contract.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags;
        let result = libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        assert_eq!(result, 0, "sigaction");
    }
}

/// How many signals were counted in this process.
#[must_use]
pub fn signals() -> u64 {
    SIGNALS.load(std::sync::atomic::Ordering::SeqCst)
}

/// Sends a signal to one thread of this process. It may be gone.
pub fn signal(tid: u32, signal: i32) {
    // SAFETY: plain values.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal);
    }
}
