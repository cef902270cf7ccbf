//! UMCG (User Managed Concurrency Groups) on stock kernels: the interface of the design mail of
//! June 2021, and the providers that play the kernel behind it.
#![doc = include_str!("../README.md")]
// The model checks use only a part of the crate.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(target_os = "linux"))]
compile_error!("umcg-sys works on Linux only: it needs futexes, CPU affinity and /proc");
#[cfg(all(
    target_os = "linux",
    not(any(target_arch = "x86_64", target_arch = "aarch64"))
))]
compile_error!("umcg-sys supports x86-64 and aarch64 only");

mod abi;
mod child;
mod device;
mod emulated;
mod provider;
mod sync;

pub use crate::{
    abi::{Call, Error, Events, List, UmcgTask, gettid, state},
    child::{CommandUnmanaged, Inheritance, process_affinity, unmanage_current_thread},
    device::{Device, NoDevice},
    emulated::interrupt::{InterruptHook, set_interrupt_hook},
    provider::{
        Facts, HasWork, Overdue, Placement, Provider, ProviderKind, REGISTER_VERSION_MASK,
        REGISTER_WORKER, Register, ServerCounters, WAIT_TAKE_OVER,
    },
};

// A model has a registry of its own for each execution, so it has no provider of the process, and
// nothing to select one from.
cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod select;

        pub use crate::{
            emulated::{Emulated, EmulatedOptions},
            select::{PROVIDER_ENV, ProviderChoice, SelectError, Selected, select, select_with},
        };
    }
}
