//! The sentinel: one SCHED_IDLE thread for each CPU that servers are pinned to.
//!
//! *Problem.* Something has to notice that a worker blocked, soon, and without cost for workers
//! that do not block.
//!
//! *Mechanism.* The kernel runs a SCHED_IDLE thread when nothing else (in its cgroup) wants the
//! CPU. If a worker holds a slot there at that time, it has most likely blocked: this is the mail's
//! "view the server more like the idle thread", taken literally. The sentinel confirms that the CPU
//! is free, judges the worker, and wakes its successor or its server. While no slot on the CPU is
//! held it sleeps in its sleep cell.
//!
//! There is one sentinel for a CPU and not for a server, because two idle-priority threads on one
//! CPU would take turns in `sched_yield`, and neither would see the CPU free.
//!
//! *Correctness.* A sentinel may be stopped at any instruction for any length of time: beside a
//! busy process an idle-priority thread waits 7 ms in the median for its next turn. So it takes no
//! lock, allocates nothing, logs nothing, creates no thread, holds no guard, touches no user
//! memory, and blocks all signals (trace A5).
//!
//! *Cost.* It takes from the other threads of its CPU what its `sched_yield` costs them (trace B2).

use std::{
    io,
    sync::{
        Mutex, OnceLock,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
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

/// How many times in a row the sentinel tries again at once after a refused confirmation, before it
/// naps. Without naps it would keep a whole CPU busy, for example when the worker has moved itself
/// to another CPU (trace B2).
///
/// What matters is that there is a bound; its value does not. With 0, 8, 32, 128 and without a
/// bound, 4,000 blocks on one CPU took the same time, and a worker that yields in a loop kept its
/// rate.
const REFUSALS: u32 = 32;

/// The first nap. Each further nap is twice as long, up to [`LAST_NAP_NS`].
const FIRST_NAP_NS: u64 = 50_000;
/// The longest nap: how late a block is noticed at most because of naps.
const LAST_NAP_NS: u64 = 1_000_000;

impl Cpu {
    /// Lets the sentinel of this CPU, whose number is `number`, watch a server. Starts the sentinel
    /// if there is none. The caller holds the lock of the CPU table in `affinity`.
    ///
    /// # Errors
    /// EAGAIN: there is no place for another server. Otherwise what starting the sentinel returned;
    /// the server is not watched then.
    pub(crate) fn attach(&self, number: usize, server: Index) -> io::Result<()> {
        // Only this function fills a free place, under the lock. `detach` may free one at the same
        // time without the lock; if this load comes first, the place counts as taken.
        let Some(place) = self.servers.iter().find(|place| place.load(SeqCst) == 0) else {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        };
        // Pairs with the loads of the sentinel; see `Cpu::servers`.
        place.store(server, SeqCst);
        // `users`, then `running`. Pairs with a sentinel that ends, which writes `running`, then
        // reads `users`. All are SeqCst, so the sentinel sees this server, or this thread sees that
        // no sentinel runs. If both do, the one that swaps `running` first goes on.
        self.users.fetch_add(1, SeqCst);
        if self.running.swap(1, SeqCst) == 0 {
            if let Err(error) = self.start(number) {
                // No sentinel runs. The next `attach`, which reads this, comes under the same lock.
                self.running.store(0, SeqCst);
                self.detach(server);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Starts the sentinel. This waits for the new thread only while that one has normal priority:
    /// the policy is set from here, because an idle-priority thread beside busy processes may take
    /// seconds to report that it is one.
    ///
    /// # Errors
    /// There is no thread for it, or the system refuses the affinity or SCHED_IDLE.
    fn start(&self, number: usize) -> io::Result<()> {
        // Relaxed: all that write the gate hold the lock. The new thread sees this generation, or
        // what is stored below, because it is started after the store.
        let start = (self.start_gate.load(Relaxed) & !(start_gate::GENERATION - 1))
            .wrapping_add(start_gate::GENERATION);
        self.start_gate.store(start | start_gate::CLOSED, Relaxed);
        let (tell, told) = std::sync::mpsc::channel();
        os::start_helper(format!("umcg-sentinel{number}"), move || {
            let pinned = os::CpuSet::only(number).apply(0);
            os::sharp_timers();
            let _ = tell.send(pinned.map(|()| crate::gettid()));
            drop(tell);
            let cpu = cpu(number);
            // Ended by the thread that starts this one, below. Relaxed: the Acquire that follows
            // orders what this thread does next.
            while cpu.start_gate.load(Relaxed) == start | start_gate::CLOSED {
                cpu.start_gate.wait(start | start_gate::CLOSED, None);
            }
            // Acquire: pairs with the Release below, so this thread is SCHED_IDLE before it
            // watches. Any other word means that SCHED_IDLE was refused to it, and that later
            // starts may have come since.
            if cpu.start_gate.load(Acquire) == start | start_gate::OPEN {
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
        // Release: the policy is set before. Pairs with the Acquire of the new thread. The kernel
        // compares the word as it puts that thread to sleep, so the thread sees this store or is
        // asleep when the wake comes.
        self.start_gate.store(start | word, Release);
        self.start_gate.wake();
        ready
    }

    /// What the sentinel does until no server is left on its CPU.
    fn watch(&self, number: usize) {
        let mut refusals = Refusals::default();
        loop {
            if self.users() == 0 {
                // SeqCst: see the next comment.
                self.running.store(0, SeqCst);
                // `running`, then `users`: pairs with `attach`. A server may have come meanwhile.
                // Then this thread or a new one goes on, whichever swaps `running` first.
                if self.users() == 0 || self.running.swap(1, SeqCst) != 0 {
                    return;
                }
            }
            if os::this_cpu() != number && os::CpuSet::only(number).apply(0).is_err() {
                // A change of the cpuset has taken the CPU away. That another CPU is free says
                // nothing about the workers in these slots. The monitor sees their blocks.
                self.cell.sleep_while(|| self.users() != 0);
                continue;
            }
            // The run words are read here, before the confirmation, and judged below (trace A1).
            let mut seen = [(0, Run(0)); SERVERS];
            let mut candidates = 0;
            let mut held = false;
            let mut signature = 0_u64;
            for place in &self.servers {
                // Pairs with the stores of `attach` and `detach`; see `Cpu::servers`.
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
                        // The sentinel runs, so other processes do not keep the CPU busy. Relaxed:
                        // a hint, which orders nothing. `host` may be outdated for the same reason.
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

    /// Whether the sentinel may sleep: no slot on this CPU is held, and there are servers. The
    /// loads of `users` pair with `detach`; those of the places and slots pair with a dispatcher,
    /// which gives the slot and then looks at the sleep cell. See [`Cpu::servers`].
    fn nothing_held(&self) -> bool {
        self.users() != 0
            && self.servers.iter().all(|place| {
                let server = place.load(SeqCst);
                server == 0 || !REGISTRY.record(server).slot().is_held()
            })
    }
}

/// The refused confirmations in a row for the same held slots.
#[derive(Default)]
struct Refusals {
    /// A hash of the slot words at the last look. A dispatch changes it, and so ends the row.
    signature: u64,
    /// How many refusals there were since the last dispatch or verdict.
    count: u32,
    /// How long the next nap is.
    nap_ns: u64,
}

impl Refusals {
    /// Ends the row.
    fn reset(&mut self) {
        self.count = 0;
        self.nap_ns = FIRST_NAP_NS;
    }

    /// Counts a refusal, and naps if the row is long.
    fn another(&mut self) {
        self.count += 1;
        if self.count > REFUSALS {
            os::nap(self.nap_ns);
            self.nap_ns = (self.nap_ns * 2).min(LAST_NAP_NS);
        }
    }
}

/// A `sched_yield` that returns within this time did not let another thread run. Written by the
/// self-test. Relaxed: it orders nothing, and a sentinel that still sees the default may refuse or
/// give a verdict wrongly, which is harmless.
static QUICK_NS: AtomicU64 = AtomicU64::new(SHORTEST_QUICK_NS);

/// The default and the lower bound of [`QUICK_NS`]. It has told a free CPU from a busy one on every
/// machine tried.
const SHORTEST_QUICK_NS: u64 = 1_500;

/// The upper bound of [`QUICK_NS`]. Within a longer time the CPU could switch to another thread and
/// back, so that a busy CPU would pass for a free one.
const LONGEST_QUICK_NS: u64 = 3_000;

/// The confirmation: `sched_yield` returns at once if no other thread wants this CPU.
fn cpu_is_free() -> bool {
    let begin = now();
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
    now() - begin <= QUICK_NS.load(Relaxed)
}

/// The result of the self-test: whether the confirmation can tell a free CPU from a busy one here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// It can. A yield on a free CPU takes `alone_ns`, and up to `quick_ns` counts as quick.
    Yield { alone_ns: u64, quick_ns: u64 },
    /// The CPU was too busy to find out. Either the test found that, or it did not end in time and
    /// goes on in the background. Sentinels are used, with the default.
    Untimed,
    /// It cannot, so there are no sentinels. The reason.
    None(String),
}

/// How long a server waits for the self-test. It takes a few milliseconds on a free CPU. On a busy
/// one its idle-priority thread may take seconds, and a server must not wait for that.
const PATIENCE: Duration = Duration::from_millis(20);

/// Tries the confirmation on a free and on a busy CPU, once in this process, and returns the
/// result. A test that took longer than [`PATIENCE`] replaces [`Confirmation::Untimed`] when it
/// ends. If there is no thread for the test there are no sentinels for this caller, and the next
/// one tries again.
pub(crate) fn self_test(number: usize) -> &'static Confirmation {
    /// The result of the first test that was started.
    static RESULT: OnceLock<Confirmation> = OnceLock::new();
    /// What callers get for whom no test could be started.
    static NO_THREAD: OnceLock<Confirmation> = OnceLock::new();
    /// Held during a test, so that there is one at a time.
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

/// The result of a test that took longer than [`PATIENCE`].
static LATE: OnceLock<Confirmation> = OnceLock::new();

/// Runs the self-test in a thread of its own, which becomes SCHED_IDLE and so cannot be the
/// caller's.
fn try_self_test(number: usize) -> io::Result<Confirmation> {
    let (tell, told) = std::sync::mpsc::channel();
    os::start_helper("umcg-selftest".into(), move || {
        let result = probe(number);
        if let Ok(result) = &result {
            QUICK_NS.store(
                match result {
                    Confirmation::Yield { quick_ns, .. } => *quick_ns,
                    Confirmation::Untimed => SHORTEST_QUICK_NS,
                    // No yield is quick, so all verdicts are refused. This matters if the result
                    // comes late, when sentinels run already.
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

/// How many yields on a free CPU the self-test measures.
const SAMPLES: usize = 64;

/// How long the spinner of the self-test keeps the CPU busy, which is about how long the yield
/// beside it takes: much more than [`LONGEST_QUICK_NS`], and much less than [`PATIENCE`].
const SPIN: Duration = Duration::from_millis(2);

/// The self-test: measures yields on a CPU without other threads of this process, and one beside a
/// spinner.
///
/// # Errors
/// There is no thread for the spinner.
fn probe(number: usize) -> io::Result<Confirmation> {
    if let Err(error) = os::CpuSet::only(number).apply(0) {
        return Ok(Confirmation::None(format!(
            "sched_setaffinity is refused: {error}"
        )));
    }
    // The spinner is started before this thread becomes SCHED_IDLE, because a thread inherits the
    // policy, and without privilege cannot leave SCHED_IDLE again.
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
    // The fastest one, because other processes may use this CPU now and make most samples slow.
    let alone_ns = samples.into_iter().min().unwrap_or(u64::MAX);
    let timed = timed(alone_ns, switched);
    let quick_ns = match timed {
        Confirmation::Yield { quick_ns, .. } => quick_ns,
        _ => SHORTEST_QUICK_NS,
    };
    let _ = go.send(());
    let _ = spinning.recv();
    // Beside the spinner a yield must let the spinner run, and so be slow.
    let begin = now();
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
    let busy_ns = now() - begin;
    let still = !spinner.is_finished();
    let _ = spinner.join();
    // If the spinner has finished, perhaps before `recv` returned, the sample says nothing. Then
    // the kernel has run the spinner and not this thread, which is what the test wants to know.
    if still && busy_ns <= quick_ns {
        return Ok(Confirmation::None(format!(
            "sched_yield returns after {busy_ns} ns on a busy CPU"
        )));
    }
    Ok(timed)
}

/// The result if the fastest of [`SAMPLES`] yields took `alone_ns`, and `switched` of them let
/// another thread run.
fn timed(alone_ns: u64, switched: u64) -> Confirmation {
    if alone_ns <= LONGEST_QUICK_NS {
        return Confirmation::Yield {
            alone_ns,
            quick_ns: (alone_ns * 4).clamp(SHORTEST_QUICK_NS, LONGEST_QUICK_NS),
        };
    }
    // Either other threads had the CPU, and the kernel has counted that, or yields are slow here.
    // More than half of the yields must have let another thread run, because an occasional switch
    // does not explain why all of them were slow.
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

    /// The result where no yield let another thread run.
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
        // But one quick yield is enough.
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
