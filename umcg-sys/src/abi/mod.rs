//! The ABI: what a task shares with the kernel, or with the threads that play it.

mod error;
pub mod state;
mod task;

pub use error::{Call, Error};
pub use task::{Events, List, UmcgTask};

/// The calling thread's id, as `tid`, `server_tid` and `next_tid` hold it.
#[must_use]
pub fn gettid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}
