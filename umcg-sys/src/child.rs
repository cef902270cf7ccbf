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
    Inheritance::unmanage(true, true);
}

/// What a thread passes on to the threads and the child processes that it starts: its affinity
/// mask, its scheduling policy and its time slice.
///
/// # Examples
///
/// A worker that starts a program by `posix_spawn`, which has no hook in the child:
///
/// ```
/// let worker = umcg_sys::Inheritance::suspend();
/// // Start the child here.
/// worker.resume();
/// ```
#[derive(Clone, Debug)]
pub struct Inheritance {
    mask: Option<os::CpuSet>,
    policy: i32,
    slice: u64,
}

impl Inheritance {
    /// Gives the calling thread what [`unmanage_current_thread`] gives it, of which `cpus` is the
    /// mask and `policy` the policy with its slice. Async-signal-safe once any task has registered.
    pub fn unmanage(cpus: bool, policy: bool) {
        if cpus {
            let _ = os::original_mask().apply(0);
        }
        if policy {
            let _ = os::set_policy(0, libc::SCHED_OTHER);
            // Setting the policy alone would keep the slice.
            os::set_slice(0);
        }
    }

    /// Gives the calling thread, a worker, what the process had, and returns what the worker had.
    /// Neither allocates nor locks. The worker may run on another CPU until
    /// [`resume`](Self::resume).
    #[must_use = "the worker gets its own back by `resume`"]
    pub fn suspend() -> Self {
        let before = Self {
            mask: os::CpuSet::of(0).ok(),
            policy: os::policy(),
            slice: os::slice(),
        };
        Self::unmanage(true, true);
        before
    }

    /// Gives the calling thread back what [`suspend`](Self::suspend) returned.
    pub fn resume(self) {
        if let Some(mask) = self.mask {
            let _ = mask.apply(0);
        }
        let _ = os::set_policy(0, self.policy);
        os::set_slice(self.slice);
    }
}

/// Writes the affinity mask that the process had before any thread was pinned into `mask`, in the
/// layout of sched_getaffinity(2): a bit for each CPU, and 0 beyond the last one. What does not fit
/// is left out. Async-signal-safe once any task has registered.
pub fn process_affinity(mask: &mut [u8]) {
    os::original_mask().copy_to(mask);
}
