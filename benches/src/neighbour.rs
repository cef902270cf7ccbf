//! A foreign process that keeps a CPU busy.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::child;

/// The hidden argument that makes this program such a process.
pub const SPIN: &str = "--spin-on";

/// The process; it ends with this value.
#[derive(Debug)]
pub struct Busy(Child);

impl Busy {
    /// One on that CPU.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn on(cpu: usize) -> Self {
        let program = std::env::current_exe().expect("this program's path");
        let child = Command::new(program)
            .args([SPIN, &cpu.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");
        // Until it spins.
        thread::sleep(Duration::from_millis(50));
        Self(child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Spins on that CPU, by default the first, until the parent ends it, or ends itself.
pub fn spin(cpu: Option<usize>) -> ! {
    child::end_with_parent();
    // SAFETY: plain system calls with values of ours.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu.unwrap_or(0), &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
    loop {
        std::hint::spin_loop();
    }
}
