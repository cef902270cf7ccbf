//! UMCG, User Managed Concurrency Groups, on stock kernels: the interface of the design mail of
//! June 2021, and who plays the kernel behind it.
#![doc = include_str!("../README.md")]

#[cfg(not(target_os = "linux"))]
compile_error!("umcg-sys works on Linux only: it needs futexes, CPU affinity and /proc");
#[cfg(all(
    target_os = "linux",
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
compile_error!("umcg-sys supports x86-64 and aarch64 only");

#[cfg(not(loom))]
mod child;
#[cfg(not(loom))]
mod device;
#[cfg_attr(all(loom, not(test)), allow(dead_code))]
mod emulated;
mod error;
mod provider;
#[cfg(not(loom))]
mod select;
pub mod state;
#[cfg_attr(all(loom, not(test)), allow(dead_code))]
mod sync;
mod task;

#[cfg(not(loom))]
pub use crate::{
    child::{CommandUnmanaged, unmanage_current_thread},
    device::{Device, NoDevice},
    emulated::{Emulated, EmulatedOptions},
    select::{PROVIDER_ENV, ProviderChoice, SelectError, Selected, select, select_with},
};
pub use crate::{
    error::{Call, Error},
    provider::{
        Facts, HasWork, Overdue, Placement, Provider, ProviderKind, REGISTER_VERSION_MASK,
        REGISTER_WORKER, Register, ServerCounters, WAIT_TAKE_OVER,
    },
    task::{Events, List, UmcgTask},
};

/// The calling thread's id, as `tid`, `server_tid` and `next_tid` hold it.
#[must_use]
pub fn gettid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}
