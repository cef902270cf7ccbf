//! The cost of being idle (target P10).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock::Clock,
    probe::{self, Probe, say},
    report::Row,
    runner::{Effort, Group},
    system::{Countdown, System, Systems},
    usage::{self, Usage},
    with_system,
};

/// How long an idle system is measured.
const SECONDS: u64 = 10;
/// The number of blocks in the burst.
const BURST: usize = 5000;

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let workers = systems.workers.to_string();
    let mut rows = Vec::new();
    // The probes run side by side, because they are idle most of the time. Their bursts take half a
    // second each, and come one after the other.
    if effort.takes("burst") {
        let probes: Vec<(&str, Probe)> = ["umcg", "tokio", "async-executor"]
            .into_iter()
            .map(|system| {
                let probe = Probe::start(&["burst", system, &workers], Duration::from_secs(40));
                thread::sleep(Duration::from_millis(1500));
                (system, probe)
            })
            .collect();
        for (system, probe) in probes {
            let title = format!(
                "{BURST} closures that block 50 ms at once: threads before, at most, and how \
                 long after the last one is done there are as few again (25 s: not)"
            );
            rows.push(probe::row("burst", &title, system, probe.outcome()));
        }
    }
    if effort.takes("idle") {
        let seconds = effort.pick(SECONDS, 3).to_string();
        let probes: Vec<(&str, Probe)> =
            ["umcg", "tokio", "async-executor", "futures", "rayon", "may"]
                .into_iter()
                .map(|system| {
                    let arguments = ["idle", system, &workers, &seconds];
                    (system, Probe::start(&arguments, Duration::from_secs(60)))
                })
                .collect();
        for (system, probe) in probes {
            let title = format!("nothing to do for {seconds} s, after some work");
            rows.push(probe::row("idle", &title, system, probe.outcome()));
        }
    }
    rows.extend(noop(systems, effort).run(effort));
    rows
}

/// rayon's `noop`: the CPU time of an empty task every 10 ms.
fn noop(systems: &Systems, effort: &Effort) -> Group<'static> {
    let count: u64 = effort.pick(100, 30);
    let mut group = Group::new(
        "noop",
        "an empty closure every 10 ms (rayon's noop): its CPU time",
        "closure",
        count,
    );
    macro_rules! cells {
        ($($s:expr),*) => {$({
            let s = $s;
            group.cell(name(s), threads(s), move |clock: &mut Clock| {
                clock.time(|| for _ in 0..count {
                    thread::sleep(Duration::from_millis(10));
                    s.execute(|| {});
                });
            });
        })*};
    }
    cells!(
        systems.umcg,
        systems.tokio,
        systems.async_executor,
        systems.futures_pool,
        systems.threadpool,
        systems.rayon,
        systems.may
    );
    group
}

fn name<S: System>(_: &'static S) -> &'static str {
    S::NAME
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}

/// The probe: some work, and then nothing.
pub(super) fn idle(system: &str, workers: usize, seconds: u64) {
    with_system!(system, workers, s => {
        crate::system::prime(s, workers);
        let countdown = Countdown::new(200);
        for _ in 0..200 {
            let countdown = countdown.clone();
            s.execute(move || {
                thread::sleep(Duration::from_millis(1));
                countdown.done();
            });
        }
        countdown.wait();
        // The threads that the work needed leave after 10 s, in umcg and in tokio.
        thread::sleep(Duration::from_secs(12));
        let switches = usage::switches_of_others();
        let before = Usage::now();
        thread::sleep(Duration::from_secs(seconds));
        // This includes the sleep of the measuring thread.
        say("CPU ms", Usage::now().since(before).cpu.as_secs_f64() * 1e3);
        say("wake-ups", (usage::switches_of_others() - switches) as f64);
        say("threads", usage::threads_named(name(s)).max(threads_of(s)) as f64);
    });
}

fn threads_of<S: System>(_: &'static S) -> usize {
    usage::threads_named(S::THREADS)
}

/// The probe: many blocks at once, and the time until the threads for them are gone.
pub(super) fn burst(system: &str, workers: usize) {
    with_system!(system, workers, s => {
        crate::system::prime(s, workers);
        usage::settle();
        let base = usage::threads();
        let countdown = Countdown::new(BURST);
        let begin = Instant::now();
        for _ in 0..BURST {
            let countdown = countdown.clone();
            s.execute(move || {
                thread::sleep(Duration::from_millis(50));
                countdown.done();
            });
        }
        countdown.wait();
        let done = Instant::now();
        say("burst ms", (done - begin).as_secs_f64() * 1e3);
        say("threads before", base as f64);
        say("threads at most", usage::threads() as f64);
        while usage::threads() > base && done.elapsed() < Duration::from_secs(25) {
            thread::sleep(Duration::from_millis(20));
        }
        say("threads after", usage::threads() as f64);
        say("seconds until then", done.elapsed().as_secs_f64());
    });
}
