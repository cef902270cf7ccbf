//! The harness of the conformance suite: what the tests in `tests/` share.
//!
//! * [`subject`]: who is tested, each provider in each placement;
//! * [`stage`]: one test on one subject, with its threads, its watchdog and its time limit;
//! * [`server`]: the mail's server loop, step by step or as a whole;
//! * [`worker`]: a worker thread and what its body may do;
//! * [`blockers`]: ways to block, none of them wrapped;
//! * [`proc`]: what `/proc` says about a thread;
//! * [`child`]: a test body in a process of its own;
//! * [`skip`]: how a test says that it cannot run here;
//! * [`fault`]: what the tests of the runtime and its faults share.
//!
//! A provider may judge a worker wrongly at any moment, and that costs a switch and never more.
//! So no test asserts that a worker was left alone: bodies call `checkpoint` after what may
//! block, the server picks up whoever comes back, and a scenario that needs an undisturbed
//! moment is tried again when the provider's counters say that it was disturbed
//! ([`stage::Stage::attempt`]).

pub mod blockers;
pub mod child;
pub mod fault;
pub mod fleet;
pub mod proc;
pub mod record;
pub mod server;
pub mod skip;
pub mod stage;
pub mod subject;
pub mod worker;

pub use fleet::Fleet;
pub use record::Record;
pub use server::{Drained, Server, Turn};
pub use stage::{Stage, on_each};
pub use subject::{Subject, providers, subjects};
pub use worker::{Me, Worker};

/// A thread id that no thread has: the kernel's limit is 2^22.
pub const NO_SUCH_TID: u32 = 0x3fff_fff0;

/// CLOCK_MONOTONIC in nanoseconds, as deadlines are given.
#[must_use]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The deadline `ms` milliseconds from now.
#[must_use]
pub fn in_ms(ms: u64) -> u64 {
    now_ns() + ms * 1_000_000
}

/// Asserts that a call failed with this errno.
///
/// # Panics
/// If it succeeded, or failed otherwise.
#[track_caller]
pub fn assert_errno<T: std::fmt::Debug>(
    result: Result<T, umcg_sys::Error>,
    errno: i32,
    what: &str,
) {
    match result {
        Ok(value) => panic!("{what}: expected errno {errno}, got Ok({value:?})"),
        Err(error) => assert_eq!(error.errno(), errno, "{what}: {error}"),
    }
}
