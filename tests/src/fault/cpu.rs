//! CPUs: masks, policies, and others who use them.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use crate::proc;

/// Pins a thread, 0 = the caller, to these CPUs. Async-signal-safe.
///
/// # Errors
/// What the system says.
pub fn pin(tid: u32, cpus: &[usize]) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the index is checked by the macro's bounds on the array.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: a live set of the given size.
    let result = unsafe { libc::sched_setaffinity(tid as i32, size_of_val(&set), &raw const set) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the mask of all threads of this process, new ones included, as `taskset -a -p` does.
pub fn pin_all_threads(cpus: &[usize]) {
    let mut done = Vec::new();
    loop {
        let new: Vec<_> = proc::threads()
            .into_iter()
            .filter(|tid| !done.contains(tid))
            .collect();
        if new.is_empty() {
            return;
        }
        for &tid in &new {
            // A thread may have ended.
            let _ = pin(tid, cpus);
        }
        done.extend(new);
    }
}

/// The calling thread's policy. Async-signal-safe.
///
/// # Errors
/// What the system says.
pub fn set_policy(policy: i32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: a live parameter block.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Another process that keeps one CPU busy until it is dropped.
#[derive(Debug)]
pub struct BusyProcess(Child);

impl BusyProcess {
    /// Starts it.
    ///
    /// # Errors
    /// No shell, or not that CPU.
    pub fn on(cpu: usize) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: system calls on the stack's own memory.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                pin(0, &[cpu])
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
