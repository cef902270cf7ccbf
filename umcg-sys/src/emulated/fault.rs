//! Fault injection: a thread that judges workers which run.
//!
//! Only with the feature `fault-injection`. A wrong verdict may cost a switch and must have no
//! other effect. The whole test suite runs with `UMCG_FAULT=verdicts:N` to check that.

use std::sync::Once;

use super::{os, packed::Phase, record::status, registry::REGISTRY, verdict::Judge};

/// Reads `UMCG_FAULT`, once in a process. With `verdicts:N` a thread judges an arbitrary ACKED
/// worker about every N microseconds, whatever that worker does.
///
/// # Panics
/// If `UMCG_FAULT` has any other value, because a test run must not go on without its faults.
pub(crate) fn start_from_env() {
    static START: Once = Once::new();
    START.call_once(|| {
        let Some(what) = std::env::var("UMCG_FAULT")
            .ok()
            .filter(|what| !what.is_empty())
        else {
            return;
        };
        let period = what
            .strip_prefix("verdicts:")
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("UMCG_FAULT={what}: want verdicts:<microseconds>"));
        os::start_helper("umcg-fault".into(), move || judge_at_random(period * 1_000))
            .expect("a thread for the fault injection");
    });
}

/// Judges a worker every `period_ns` nanoseconds, at random as a sentinel or as the monitor.
fn judge_at_random(period_ns: u64) -> ! {
    os::sharp_timers();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    loop {
        os::nap(period_ns);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let end = REGISTRY.indices().count() as u64;
        // The first ACKED worker after a random index.
        let victim = (0..end)
            .map(|i| (1 + (random + i) % end.max(1)) as u32)
            .find(|&index| {
                REGISTRY.record(index).status.load(crate::sync::SeqCst) == status::WORKER
                    && REGISTRY.record(index).run().phase() == Phase::Acked
            });
        if let Some(index) = victim {
            let run = REGISTRY.record(index).run();
            if run.phase() == Phase::Acked {
                let judge = if random & 1 == 0 {
                    Judge::Sentinel
                } else {
                    Judge::Monitor
                };
                REGISTRY.judge(index, run, judge);
            }
        }
    }
}
