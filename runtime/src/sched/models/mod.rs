//! The model checks of the scheduler's parts that use no lock: loom runs each scenario in every
//! interleaving, up to a bound on preemptions.
//!
//! `ci/model.sh` runs them. The README of the directory above, section 9, says what they do not
//! notice.

mod handoff;
mod idle;
mod inbox;
mod lifecycle;
mod lifo_slot;
mod limit;
mod request;
mod sleepers;
mod task_ref;

use loom::{sync::Arc, thread::JoinHandle};

/// Runs `scenario` in every interleaving, with up to three preemptions in one, or as many as
/// LOOM_MAX_PREEMPTIONS says. Without a bound the larger scenarios would take hours.
fn check(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(scenario);
}

/// Starts a thread of the scenario that works on what all its threads share.
fn start<S, R>(shared: &Arc<S>, run: impl FnOnce(&S) -> R + 'static) -> JoinHandle<R>
where
    S: 'static,
    R: 'static,
{
    let shared = Arc::clone(shared);
    loom::thread::spawn(move || run(&shared))
}
