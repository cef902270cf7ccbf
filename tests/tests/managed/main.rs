//! Managed calls in a runtime: code on a worker that sleeps in libc gives its slot to others, and
//! comes back through the scheduler.
//!
//! What each function does is tested in the crate `umcg-managed-calls`, beside the same function
//! without a scheduler. Here is what tasks see of it, and the scheduler.
//!
//! All tests also hold with `UMCG_MANAGED_CALLS=0`, except for those that return at once then: see
//! [`support::managed`].

umcg::managed_calls!();

#[cfg(feature = "asan")]
mod asan;

mod blocks;
mod children;
mod descriptors;
mod inheritance;
mod runtimes;
mod shutdown;
mod signals;
mod support;
mod turns;
mod yields;
