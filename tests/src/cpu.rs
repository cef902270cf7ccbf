//! CPUs: affinity masks, policies and time slices of threads, and other processes that use CPUs.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use crate::proc;

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

/// Lets a thread run on these CPUs only; tid 0 is the caller. Async-signal-safe.
///
/// # Errors
/// The error of the system call.
pub fn set_affinity(tid: u32, cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the macro checks the index against the bounds of the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: a live set of the given size.
    let result = unsafe { libc::sched_setaffinity(tid as i32, size_of_val(&set), &raw const set) };
    proc::check(result)
}

/// Sets the mask of all threads of this process, including those that start meanwhile, as
/// `taskset -a -p` does.
pub fn set_affinity_of_all_threads(cpus: &[usize]) {
    let mut done = Vec::new();
    loop {
        let mut new = proc::threads();
        new.retain(|tid| !done.contains(tid));
        if new.is_empty() {
            return;
        }
        for &tid in &new {
            // An error means that the thread has ended.
            let _ = set_affinity(tid, cpus);
        }
        done.extend(new);
    }
}

/// The scheduling policy of a thread; tid 0 is the caller.
#[must_use]
pub fn policy(tid: u32) -> i32 {
    // SAFETY: plain values.
    unsafe { libc::sched_getscheduler(tid as i32) }
}

/// Sets the scheduling policy of the calling thread. Async-signal-safe.
///
/// # Errors
/// The error of the system call.
pub fn set_policy(policy: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: a live parameter block.
    proc::check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

/// The time slice of the calling thread in nanoseconds, as the kernel reports it; 0 before Linux
/// 6.12.
#[must_use]
pub fn slice() -> u64 {
    // `struct sched_attr` of 48 bytes: `sched_runtime` is the fourth word of 8 bytes.
    let mut attr = [0_u64; 6];
    let size = size_of_val(&attr);
    // SAFETY: a live buffer of the given size.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    assert_eq!(result, 0, "sched_getattr");
    attr[3]
}

/// Another process, which keeps one CPU busy until this value is dropped.
#[derive(Debug)]
pub struct BusyProcess(Child);

impl BusyProcess {
    /// Starts the process.
    ///
    /// # Errors
    /// There is no shell, or that CPU may not be used.
    pub fn on(cpu: usize) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: system calls that are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                set_affinity(0, &[cpu])
            });
        }
        command.spawn().map(Self)
    }
}

impl Drop for BusyProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
