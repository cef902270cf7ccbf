//! What the contract of a provider promises, checked on every provider.
//!
//! A test is in the module of the property that it checks. [`CHECKLIST.md`](../../CHECKLIST.md)
//! lists the statements of the design mail, and [`TRAPS.md`](../../TRAPS.md) the traps of the
//! history, each with the tests that check it.

mod additions;
mod block;
mod decisions;
mod errors;
mod lists;
mod placement;
mod process;
mod servers;
mod smp;
mod task;
mod traces;
mod traps;
mod wait;
