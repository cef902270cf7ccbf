//! Measuring beside others: what was disturbed is measured again.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use umcg_benches::usage::Usage;

/// Others may use so much of one CPU meanwhile.
const TOLERATED: f64 = 0.03;

/// A clock tick of the kernel's accounts: a difference may be off by that.
const TICK: Duration = Duration::from_millis(10);

/// Nobody else has to run for so long before a measurement ...
const QUIET: Duration = Duration::from_millis(500);
/// ... which is waited for at most for so long.
const PATIENCE: Duration = Duration::from_secs(60);

const ATTEMPTS: u32 = 12;

/// Measurements that were disturbed at each attempt.
static DISTURBED: AtomicU32 = AtomicU32::new(0);

/// What all processes but this one have used so far.
fn others() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut ticks = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse::<u32>().ok());
    // user, nice, system; not idle and iowait; irq, softirq, steal.
    let busy: u32 = ticks.by_ref().take(3).sum::<u32>() + ticks.skip(2).take(3).sum::<u32>();
    (busy * TICK).checked_sub(Usage::now().cpu)
}

/// Whether others left the CPUs alone since `before`.
fn were_quiet(before: Option<Duration>, begin: Instant) -> bool {
    let (Some(before), Some(after)) = (before, others()) else {
        return true;
    };
    let used = after.saturating_sub(before);
    used <= begin.elapsed().mul_f64(TOLERATED) + 2 * TICK
}

/// Measures; again if others ran meanwhile. After so many attempts the last one counts.
pub(crate) fn measured<R>(mut measure: impl FnMut() -> R) -> R {
    let mut attempt = 1;
    loop {
        let patience = Instant::now();
        while patience.elapsed() < PATIENCE {
            let (before, begin) = (others(), Instant::now());
            thread::sleep(QUIET);
            if were_quiet(before, begin) {
                break;
            }
        }
        let (before, begin) = (others(), Instant::now());
        let result = measure();
        if were_quiet(before, begin) {
            return result;
        }
        if attempt == ATTEMPTS {
            DISTURBED.fetch_add(1, Relaxed);
            return result;
        }
        attempt += 1;
    }
}

/// How many measurements count although they were disturbed.
pub(crate) fn disturbed() -> u32 {
    DISTURBED.load(Relaxed)
}
