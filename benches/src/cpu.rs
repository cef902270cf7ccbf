//! On which CPUs and by which policy a thread runs.

/// Lets the calling thread run on these CPUs only, if the system allows it. With an empty list it
/// does nothing.
pub(crate) fn pin(cpus: &[usize]) {
    if cpus.is_empty() {
        return;
    }
    // SAFETY: all-zero bytes are a valid value of this plain C struct.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        // SAFETY: the set is alive, and a CPU beyond it is ignored.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the set is alive and has this size.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
}

/// Gives the calling thread that policy, if the system allows it.
pub(crate) fn become_policy(policy: libc::c_int) {
    // SAFETY: all-zero bytes are a valid value of this plain C struct.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the parameter is alive.
    unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
}
