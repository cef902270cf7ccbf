//! The sentinel: one SCHED_IDLE thread for each CPU that servers are pinned to.
//!
//! The kernel runs it when nothing else (in its cgroup) wants that CPU. If a slot there is held
//! by a worker, that worker most likely blocked: this is the mail's "view the server more like
//! the idle thread", taken literally. It confirms, judges, and wakes whoever is next.
//!
//! One for each CPU and not for each server: two idle-priority threads on one CPU would take
//! turns in `sched_yield`, and neither would see the CPU free.
//!
//! It may be stopped at any instruction for ever (an idle-priority thread beside a busy process
//! waits 7 ms in the median). So it takes no lock, allocates nothing, logs nothing, creates
//! nothing, holds no pin, touches no user memory, and blocks all signals (trace A5).

use std::{
    io,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{
    super::{
        clock::now,
        os,
        packed::{Index, Phase, Run},
        record::Counts,
        registry::REGISTRY,
        verdict::Judge,
    },
    cpus::{Cpu, SERVERS, cpu, start_gate},
};

/// A refused verdict is repeated after a yield this many times before the sentinel naps: it
/// would burn the CPU of, say, a worker that moved itself to another one (trace B2).
const REFUSALS: u32 = 32;

/// Naps go from 50 us, doubling, to 1 ms.
const FIRST_NAP_NS: u64 = 50_000;
const LAST_NAP_NS: u64 = 1_000_000;

impl Cpu {
    /// Puts a server on this CPU and makes sure of a sentinel. The caller holds the lock of the
    /// CPU table.
    pub(crate) fn attach(&self, number: usize, server: Index) -> io::Result<()> {
        let Some(place) = self.servers.iter().find(|place| place.load(SeqCst) == 0) else {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        };
        place.store(server, SeqCst);
        self.users.fetch_add(1, SeqCst);
        if self.running.swap(1, SeqCst) == 0 {
            if let Err(error) = self.start(number) {
                self.running.store(0, SeqCst);
                self.detach(server);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts the sentinel. Waits only while it is a thread of normal priority: the policy is set
    /// from here, since an idle-priority thread may take seconds to say that it is one.
    fn start(&self, number: usize) -> io::Result<()> {
        let start = (self.start_gate.load(SeqCst) & !(start_gate::GENERATION - 1))
            .wrapping_add(start_gate::GENERATION);
        self.start_gate.store(start | start_gate::CLOSED, SeqCst);
        let (tell, told) = std::sync::mpsc::channel();
        os::start_helper(format!("umcg-sentinel{number}"), move || {
            let pinned = os::CpuSet::only(number).apply(0);
            os::sharp_timers();
            let _ = tell.send(pinned.map(|()| crate::gettid()));
            drop(tell);
            let cpu = cpu(number);
            // Who ends this: the starter, below.
            while cpu.start_gate.load(SeqCst) == start | start_gate::CLOSED {
                cpu.start_gate.wait(start | start_gate::CLOSED, None);
            }
            // Else sent away, perhaps some starts ago.
            if cpu.start_gate.load(SeqCst) == start | start_gate::OPEN {
                cpu.watch(number);
            }
        })?;
        let ready = told
            .recv()
            .unwrap_or_else(|_| Err(io::Error::from_raw_os_error(libc::EAGAIN)))
            .and_then(|tid| os::set_policy(tid, libc::SCHED_IDLE));
        let word = if ready.is_ok() {
            start_gate::OPEN
        } else {
            start_gate::REFUSED
        };
        self.start_gate.store(start | word, SeqCst);
        self.start_gate.wake();
        ready
    }

    /// The sentinel's life.
    fn watch(&self, number: usize) {
        let mut refusals = Refusals::default();
        loop {
            if self.users() == 0 {
                self.running.store(0, SeqCst);
                // A server may have come between the two lines; whoever swaps goes on.
                if self.users() == 0 || self.running.swap(1, SeqCst) != 0 {
                    return;
                }
            }
            if os::this_cpu() != number && os::CpuSet::only(number).apply(0).is_err() {
                // Not our CPU any more (a cpuset changed): what looks idle here says nothing about
                // the slots there. The monitor sees their blocks.
                self.cell.sleep_while(|| self.users() != 0);
                continue;
            }
            // What is judged below is what was read here, before the confirmation (trace A1).
            let mut seen = [(0, Run(0)); SERVERS];
            let mut candidates = 0;
            let mut held = false;
            let mut signature = 0_u64;
            for place in &self.servers {
                let server = place.load(SeqCst);
                if server == 0 {
                    continue;
                }
                let slot = REGISTRY.record(server).slot();
                if !slot.is_held() {
                    continue;
                }
                held = true;
                signature = signature.wrapping_mul(31).wrapping_add(slot.0);
                let run = REGISTRY.record(slot.index()).run();
                if run.phase() == Phase::Acked && run.epoch() == slot.epoch() {
                    seen[candidates] = (slot.index(), run);
                    candidates += 1;
                }
            }
            if !held {
                self.cell.sleep_while(|| self.nothing_held());
                refusals.reset();
                continue;
            }
            if refusals.signature != signature {
                refusals.reset();
                refusals.signature = signature;
            }
            let free = cpu_is_free();
            if candidates > 0 && free {
                for &(index, run) in &seen[..candidates] {
                    let host = REGISTRY.record(index).host.load(crate::sync::Relaxed);
                    if REGISTRY.judge(index, run, Judge::Sentinel) {
                        // The CPU is not kept busy by others: we run.
                        REGISTRY
                            .record(host)
                            .contended
                            .store(0, crate::sync::Relaxed);
                    }
                }
                refusals.reset();
            } else {
                if candidates > 0 {
                    let host = REGISTRY.record(seen[0].0).host.load(crate::sync::Relaxed);
                    Counts::bump(&REGISTRY.record(host).counts.refused);
                }
                refusals.another();
            }
        }
    }

    fn nothing_held(&self) -> bool {
        self.users() != 0
            && self.servers.iter().all(|place| {
                let server = place.load(SeqCst);
                server == 0 || !REGISTRY.record(server).slot().is_held()
            })
    }
}

/// Refused verdicts in a row, for the same slots.
#[derive(Default)]
struct Refusals {
    signature: u64,
    count: u32,
    nap_ns: u64,
}

impl Refusals {
    fn reset(&mut self) {
        self.count = 0;
        self.nap_ns = FIRST_NAP_NS;
    }

    fn another(&mut self) {
        self.count += 1;
        if self.count > REFUSALS {
            os::nap(self.nap_ns);
            self.nap_ns = (self.nap_ns * 2).min(LAST_NAP_NS);
        }
    }
}

/// A yield that comes back within this time did not let anybody else run. Set by the self-test.
static QUICK_NS: AtomicU64 = AtomicU64::new(SHORTEST_QUICK_NS);

/// Worked on every machine tried.
const SHORTEST_QUICK_NS: u64 = 1_500;

/// A hand-over and back would pass for a free CPU if it were more.
const LONGEST_QUICK_NS: u64 = 3_000;

/// The confirmation: `sched_yield` comes back at once when nobody else wants this CPU.
fn cpu_is_free() -> bool {
    let begin = now();
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
    now() - begin <= QUICK_NS.load(Relaxed)
}

/// Whether the confirmation can tell a free CPU from a busy one here, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// A yield on a free CPU takes `alone_ns`, and is `quick` up to `quick_ns`.
    Yield { alone_ns: u64, quick_ns: u64 },
    /// The CPU was too busy to find out: not in time, and the test goes on in the background, or
    /// not at all.
    Untimed,
    /// No sentinel verdicts; why.
    None(String),
}

/// The self-test is a few ms on a free CPU. On a busy one its idle-priority thread may take
/// seconds, which nobody waits for.
const PATIENCE: Duration = Duration::from_millis(20);

/// Tries the confirmation once in this process, on a free and on a busy CPU. What came of it, or
/// came of it since. If there is no thread for it: no sentinels this time, and the next caller
/// tries again.
pub(crate) fn self_test(number: usize) -> &'static Confirmation {
    static RESULT: OnceLock<Confirmation> = OnceLock::new();
    static NO_THREAD: OnceLock<Confirmation> = OnceLock::new();
    /// One at a time.
    static TEST: Mutex<()> = Mutex::new(());

    let known = || LATE.get().or_else(|| RESULT.get());
    if let Some(result) = known() {
        return result;
    }
    let _test = TEST.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(result) = known() {
        return result;
    }
    match try_self_test(number) {
        Ok(result) => RESULT.get_or_init(|| result),
        Err(error) => NO_THREAD
            .get_or_init(|| Confirmation::None(format!("no thread for the self-test: {error}"))),
    }
}

/// Of a test that took longer than anybody waited.
static LATE: OnceLock<Confirmation> = OnceLock::new();

/// The self-test, on a thread of its own, of which it makes an idle-priority one.
fn try_self_test(number: usize) -> io::Result<Confirmation> {
    let (tell, told) = std::sync::mpsc::channel();
    os::start_helper("umcg-selftest".into(), move || {
        let result = probe(number);
        if let Ok(result) = &result {
            QUICK_NS.store(
                match result {
                    Confirmation::Yield { quick_ns, .. } => *quick_ns,
                    Confirmation::Untimed => SHORTEST_QUICK_NS,
                    // Nothing is quick: each verdict is refused. It matters when the answer
                    // comes too late to do without sentinels.
                    Confirmation::None(_) => 0,
                },
                Relaxed,
            );
        }
        if let Err(std::sync::mpsc::SendError(Ok(late))) = tell.send(result) {
            let _ = LATE.set(late);
        }
    })?;
    told.recv_timeout(PATIENCE)
        .unwrap_or(Ok(Confirmation::Untimed))
}

/// Samples of a yield on a free CPU.
const SAMPLES: usize = 64;

/// How long the spinner of the self-test spins, at most.
const SPIN: Duration = Duration::from_millis(2);

/// # Errors
/// No thread for the spinner.
fn probe(number: usize) -> io::Result<Confirmation> {
    if let Err(error) = os::CpuSet::only(number).apply(0) {
        return Ok(Confirmation::None(format!(
            "sched_setaffinity is refused: {error}"
        )));
    }
    // The spinner is made before this thread becomes SCHED_IDLE: policy is inherited, and an
    // unprivileged thread cannot leave SCHED_IDLE again.
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let (tell, spinning) = std::sync::mpsc::channel();
    let spinner = std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || {
            if gone.recv().is_ok() {
                let begin = std::time::Instant::now();
                let _ = tell.send(());
                while begin.elapsed() < SPIN {
                    core::hint::spin_loop();
                }
            }
        })?;
    if let Err(error) = os::set_policy(0, libc::SCHED_IDLE) {
        drop(go);
        let _ = spinner.join();
        return Ok(Confirmation::None(format!(
            "SCHED_IDLE is refused: {error}"
        )));
    }
    let switched = os::times_switched_away();
    let mut samples = [0_u64; SAMPLES];
    for sample in &mut samples {
        let begin = now();
        // SAFETY: no arguments.
        unsafe { libc::sched_yield() };
        *sample = now() - begin;
    }
    let switched = os::times_switched_away() - switched;
    // The fastest: others may want this CPU right now, and then most samples are theirs.
    let alone_ns = samples.into_iter().min().unwrap_or(u64::MAX);
    let timed = timed(alone_ns, switched);
    let quick_ns = match timed {
        Confirmation::Yield { quick_ns, .. } => quick_ns,
        _ => SHORTEST_QUICK_NS,
    };
    let _ = go.send(());
    let _ = spinning.recv();
    // The spinner spins: a yield must let it run.
    let begin = now();
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
    let busy_ns = now() - begin;
    let still = !spinner.is_finished();
    let _ = spinner.join();
    // If the spinner was done before we came back from `recv` the CPU was ours in between, and
    // the sample says nothing; then the kernel clearly ran the spinner first, which is what the
    // test is about.
    if still && busy_ns <= quick_ns {
        return Ok(Confirmation::None(format!(
            "sched_yield comes back after {busy_ns} ns from a busy CPU"
        )));
    }
    Ok(timed)
}

/// What the fastest of [`SAMPLES`] yields says, of which `switched` let somebody else run.
fn timed(alone_ns: u64, switched: u64) -> Confirmation {
    if alone_ns <= LONGEST_QUICK_NS {
        return Confirmation::Yield {
            alone_ns,
            quick_ns: (alone_ns * 4).clamp(SHORTEST_QUICK_NS, LONGEST_QUICK_NS),
        };
    }
    // Slow because others had the CPU, or because yields are slow here? Half, since an interrupt
    // makes a single sample slow.
    if switched > SAMPLES as u64 / 2 {
        Confirmation::Untimed
    } else {
        Confirmation::None(format!(
            "sched_yield takes {alone_ns} ns on a free CPU, too long to tell it from a busy one"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(alone_ns: u64) -> Confirmation {
        timed(alone_ns, 0)
    }

    #[test]
    fn a_yield_is_quick_up_to_four_times_the_fastest_within_bounds() {
        for (alone_ns, quick_ns) in [(0, 1_500), (300, 1_500), (500, 2_000), (3_000, 3_000)] {
            assert_eq!(quick(alone_ns), Confirmation::Yield { alone_ns, quick_ns });
        }
    }

    #[test]
    fn yields_that_are_slow_on_a_free_cpu_confirm_nothing_and_it_is_said() {
        for alone_ns in [3_001, 50_000] {
            let Confirmation::None(why) = quick(alone_ns) else {
                panic!("{alone_ns} ns never confirm");
            };
            assert!(why.contains(&format!("takes {alone_ns} ns")), "{why}");
        }
    }

    #[test]
    fn yields_that_let_others_run_say_nothing_of_a_free_cpu() {
        assert_eq!(timed(2_000_000, SAMPLES as u64), Confirmation::Untimed);
        // One of them was quick all the same.
        let quick = timed(500, SAMPLES as u64 - 1);
        assert!(matches!(quick, Confirmation::Yield { .. }), "{quick:?}");
    }

    #[test]
    fn a_yield_beside_a_spinner_is_seen_to_let_it_run() {
        use std::sync::atomic::AtomicBool;

        static STOP: AtomicBool = AtomicBool::new(false);
        let number = os::this_cpu();
        let here = move || os::CpuSet::only(number).apply(0).unwrap();
        let spinner = std::thread::spawn(move || {
            here();
            while !STOP.load(SeqCst) {
                core::hint::spin_loop();
            }
        });
        let yielder = std::thread::spawn(move || {
            here();
            let before = os::times_switched_away();
            let begin = std::time::Instant::now();
            while os::times_switched_away() == before {
                assert!(begin.elapsed().as_secs() < 10, "no yield let it run");
                // SAFETY: no arguments.
                unsafe { libc::sched_yield() };
            }
        });
        let result = yielder.join();
        STOP.store(true, SeqCst);
        spinner.join().unwrap();
        result.unwrap();
    }
}
