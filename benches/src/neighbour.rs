//! A process that keeps a CPU busy.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{child, cpu};

/// The hidden argument that makes this program spin.
pub const SPIN: &str = "--spin-on";

/// The process. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Busy(Child);

impl Busy {
    /// Starts the process on that CPU.
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
        // Gives the process time to begin. If it is late, the first rounds are measured alone.
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

/// Spins on that CPU, by default on the first, until the parent kills this process or ends.
pub fn spin(cpu: Option<usize>) -> ! {
    child::end_with_parent();
    cpu::pin(&[cpu.unwrap_or(0)]);
    loop {
        std::hint::spin_loop();
    }
}
