//! Threads and child processes of a worker: undoing what they inherit.

use std::{os::unix::process::CommandExt, process::Command};

use crate::emulated::os;

/// Undoes what the child of a [`Command`] would inherit from a worker.
///
/// A worker of the emulated provider is pinned to its server's CPU and is SCHED_BATCH. A child
/// inherits both, and keeps them through `exec`. A process may undo both without privilege.
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
    /// Gives the child the affinity mask that the process had before any thread was pinned, and
    /// SCHED_OTHER with the default time slice. If the system refuses one of them, the child starts
    /// without it.
    ///
    /// This adds a hook to the command, so the standard library starts the child by fork and exec
    /// and not by the faster `posix_spawn`.
    fn unmanaged(&mut self) -> &mut Self;
}

impl CommandUnmanaged for Command {
    fn unmanaged(&mut self) -> &mut Self {
        // Read here, in the parent, because the hook may only make system calls.
        let mask = os::original_mask();
        // SAFETY: the hook makes a few system calls, all async-signal-safe, on its stack and on
        // memory that exists already. It neither allocates nor takes a lock.
        unsafe {
            self.pre_exec(move || {
                let _ = mask.apply(0);
                let _ = os::set_policy(0, libc::SCHED_OTHER);
                // Setting the policy alone would keep the slice.
                os::set_slice(0);
                Ok(())
            })
        }
    }
}

/// Gives the calling thread the affinity mask that the process had before any thread was pinned,
/// and SCHED_OTHER with the default time slice. For a thread that a worker has created; it would
/// share the worker's CPU permanently.
///
/// What the system refuses stays as it is. Do not call this in a registered worker: it would get
/// its pin and policy back only when it moves to another server.
///
/// # Examples
///
/// ```
/// std::thread::spawn(umcg_sys::unmanage_current_thread).join().unwrap();
/// ```
pub fn unmanage_current_thread() {
    let _ = os::original_mask().apply(0);
    let _ = os::set_policy(0, libc::SCHED_OTHER);
    // Setting the policy alone would keep the slice.
    os::set_slice(0);
}
