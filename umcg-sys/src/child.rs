//! Children of a worker: the original affinity and policy back.

use std::{os::unix::process::CommandExt, process::Command};

use crate::emulated::os;

/// Lets a [`Command`] undo what it would inherit from a worker.
///
/// A worker of the emulated provider is pinned to its server's CPU and runs as SCHED_BATCH, and
/// a child inherits both, through `exec`. Unprivileged processes may undo both.
///
/// # Examples
///
/// ```
/// use std::process::Command;
/// use umcg_sys::CommandUnmanaged;
///
/// let output = Command::new("true").unmanaged().output()?;
/// assert!(output.status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait CommandUnmanaged {
    /// The child gets the affinity mask that the process had before anything was pinned, and
    /// SCHED_OTHER with the default slice. What is refused stays as it is: the child starts all
    /// the same.
    ///
    /// Costs `posix_spawn`: a command with a hook is started by fork and exec.
    fn unmanaged(&mut self) -> &mut Self;
}

impl CommandUnmanaged for Command {
    fn unmanaged(&mut self) -> &mut Self {
        // Read here, in the parent: the hook may only make system calls.
        let mask = os::original_mask();
        // SAFETY: the hook makes a few system calls on its stack and on memory that exists already,
        // all async-signal-safe; it neither allocates nor takes a lock.
        unsafe {
            self.pre_exec(move || {
                let _ = mask.apply(0);
                let _ = os::set_policy(0, libc::SCHED_OTHER);
                // The policy alone would keep it.
                os::set_slice(0);
                Ok(())
            })
        }
    }
}

/// Gives the calling thread the affinity mask that the process had before anything was pinned,
/// and SCHED_OTHER with the default slice. For a thread that a worker made: it would share the
/// worker's CPU for good.
///
/// What is refused stays as it is. Not for a registered worker, which gets its pin and policy
/// back only when it moves to another server.
///
/// # Examples
///
/// ```
/// std::thread::spawn(umcg_sys::unmanage_current_thread).join().unwrap();
/// ```
pub fn unmanage_current_thread() {
    let _ = os::original_mask().apply(0);
    let _ = os::set_policy(0, libc::SCHED_OTHER);
    // The policy alone would keep it.
    os::set_slice(0);
}
