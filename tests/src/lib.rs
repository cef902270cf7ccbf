//! What the tests in `tests/tests` share.
//!
//! For the tests of the contract, which run on every provider:
//!
//! * [`provider_under_test`]: the providers, each with the placements of its servers;
//! * [`harness`]: one test on one provider: its threads, its tasks and its time limit;
//! * [`server`]: the server loop of the mail, step by step or as a whole;
//! * [`worker`]: a worker thread, and what its body may do;
//! * [`smp`]: several servers with one queue.
//!
//! For the tests of the runtime and of its faults:
//!
//! * [`runtime`]: runtimes, and work that shows whether they do their job;
//! * [`unsliced`]: a provider without time slices;
//! * [`random`]: choices at random that a seed repeats;
//! * [`cpu`], [`limits`], [`seccomp`], [`signals`]: a less friendly environment.
//!
//! For all tests:
//!
//! * [`subprocess`]: the body of a test in a process of its own;
//! * [`watchdog`]: waits for conditions, and what happens when one does not come true;
//! * [`blockers`], [`blocker_gate`], [`spin_lock`]: ways to block and to spin;
//! * [`proc`], [`threads`], [`thread_report`]: what the kernel says about threads;
//! * [`mod@skip`]: how a test says that it cannot run here.
//!
//! The emulated provider may judge a worker wrongly at any moment. A wrong verdict costs a switch,
//! and it never costs more. No test therefore asserts that a worker was left alone: a body calls
//! `checkpoint` after everything that may block, the server picks up every worker that comes back,
//! and a scenario that needs an undisturbed moment is tried again when the provider's counters say
//! that it was disturbed ([`Harness::attempt`]).
//!
//! No test sleeps to make an interleaving likely. It waits for a condition that shows how far the
//! other side has come, with a time limit.

pub mod blocker_gate;
pub mod blockers;
pub mod cpu;
pub mod harness;
pub mod limits;
pub mod proc;
pub mod provider_under_test;
pub mod random;
pub mod record;
pub mod runtime;
pub mod seccomp;
pub mod server;
pub mod signals;
pub mod skip;
pub mod smp;
pub mod spin_lock;
pub mod subprocess;
pub mod thread_report;
pub mod threads;
pub mod unsliced;
pub mod watchdog;
pub mod worker;

pub use blocker_gate::BlockerGate;
pub use harness::{Harness, for_each_provider};
pub use provider_under_test::{ProviderUnderTest, providers_under_test};
pub use random::Random;
pub use record::Record;
pub use server::{Drained, Server, Turn};
pub use smp::ServerGroup;
pub use spin_lock::SpinLock;
pub use subprocess::{Subprocess, isolated};
pub use unsliced::Unsliced;
pub use watchdog::eventually;
pub use worker::{Me, Worker};

/// A thread id that no thread has: the kernel's limit is 2^22.
pub const NO_SUCH_TID: u32 = 0x3fff_fff0;

/// CLOCK_MONOTONIC in nanoseconds, the clock of the deadlines.
#[must_use]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The deadline `ms` milliseconds from now.
#[must_use]
pub fn in_ms(ms: u64) -> u64 {
    now_ns() + ms * 1_000_000
}

/// Whether this run injects wrong verdicts.
///
/// Tests then count neither verdicts nor threads: each wrong verdict may cost a thread.
#[must_use]
pub fn wrong_verdicts() -> bool {
    std::env::var_os("UMCG_FAULT").is_some_and(|value| !value.is_empty())
}

/// Asserts that a call failed with this errno.
///
/// # Panics
/// If the call succeeded, or failed with another errno.
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// The pages of this package name tests as `module::test`. Each of them exists.
    #[test]
    fn every_test_that_a_page_names_exists() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        for page in ["CHECKLIST.md", "TRAPS.md"] {
            let text = fs::read_to_string(package.join(page)).expect("the page");
            // Every second part is inside of backquotes.
            let names = text.split('`').skip(1).step_by(2);
            // The rest are paths of types, as `Facts::block_bound`.
            let tests: Vec<_> = names
                .filter_map(|name| name.split_once("::"))
                .filter(|(module, _)| module.starts_with(char::is_lowercase))
                .collect();
            let found = tests.len();
            for (module, test) in tests {
                let definition = format!("\nfn {test}() {{\n");
                let exists = ["conformance", "runtime", "faults"].iter().any(|room| {
                    let file = package.join(format!("tests/{room}/{module}.rs"));
                    fs::read_to_string(file).is_ok_and(|text| text.contains(&definition))
                });
                assert!(
                    exists,
                    "{page} names {module}::{test}, which does not exist"
                );
            }
            assert!(found > 50, "{page} names {found} tests only");
        }
    }
}
