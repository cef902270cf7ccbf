//! What a shared word costs on this machine, measured with two pinned threads.
//!
//! Lines that the other CPU wrote are measured in batches: one CPU prepares them, says so, and the
//! other times its accesses to all of them. That is the cost of one access without a queue at the
//! line, which is what the simulation wants; what a queue adds is its business.
//!
//! Each access needs the value of the one before, in an order that no prefetcher guesses. Without
//! that a CPU has many of them under way at once, locked ones and fences notwithstanding, and a
//! line that comes from the other CPU seems to cost nothing.

use std::{
    hint::{black_box, spin_loop},
    sync::{
        Arc, Barrier,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
    thread,
    time::{Duration, Instant},
};

use umcg_benches::runner::median;

/// Queues in a batch, so many apart as those of two servers are in `Backlog::servers`.
const QUEUES: usize = 256;

/// Operations of one round where nobody else is at the line.
const ALONE: u32 = 1 << 18;

/// Nanoseconds, medians over the rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// A load of a line that this CPU has, one of many.
    pub(crate) load: f64,
    /// A locked read-modify-write of a line that this CPU has.
    pub(crate) rmw: f64,
    /// A SeqCst fence behind a store to a line that this CPU has.
    pub(crate) fence: f64,
    /// `clock_gettime(CLOCK_MONOTONIC)`.
    pub(crate) clock: f64,
    /// A locked read-modify-write of a line that the other CPU wrote.
    pub(crate) rmw_dirty: f64,
    /// The same of a line that both have read.
    pub(crate) rmw_shared: f64,
    /// A load of a line that the other CPU wrote.
    pub(crate) load_dirty: f64,
    /// The same where the next load does not wait for it: a walk over all queues.
    pub(crate) load_scan: f64,
    /// The same with a fence behind each: a walk of steals from empty queues.
    pub(crate) load_fenced: f64,
    /// From the store of one CPU to the store of the other that saw it.
    pub(crate) hand: f64,
    /// One of the additions that both CPUs make to one word without a pause.
    pub(crate) both_add: f64,
    /// One of the increments that both CPUs make by load and compare-exchange.
    pub(crate) both_cas: f64,
    /// One of the additions that both CPUs make at once, each to a word of its own.
    pub(crate) both_own: f64,
    /// How much longer a multiplication takes while the other CPU multiplies as well.
    pub(crate) pair: f64,
    /// `futex(FUTEX_WAKE)` of a thread that sleeps on the other CPU, for the caller.
    pub(crate) wake: f64,
    /// From before that call until the thread runs.
    pub(crate) wake_latency: f64,
}

/// Pins the calling thread.
///
/// # Panics
/// If the CPU cannot be had.
pub(crate) fn pin(cpu: usize) {
    pin_to(&[cpu]);
}

/// Pins the calling thread to several CPUs.
///
/// # Panics
/// If they cannot be had.
pub(crate) fn pin_to(cpus: &[usize]) {
    // SAFETY: an all-zero set is valid, and the call reads one of the right size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus {
            libc::CPU_SET(cpu, &mut set);
        }
        assert_eq!(
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set),
            0,
            "the CPUs {cpus:?} cannot be had"
        );
    }
}

/// The first two CPUs that this process may use.
pub(crate) fn two_cpus() -> Option<[usize; 2]> {
    // SAFETY: an all-zero set is valid, and the call fills one of the right size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &raw mut set);
        set
    };
    // SAFETY: the number is below the size of the set.
    let mut cpus =
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    Some([cpus.next()?, cpus.next()?])
}

/// A line pair of its own, as crossbeam pads: nothing else is fetched with it.
#[repr(align(128))]
#[derive(Default)]
struct Padded(AtomicU64);

/// Of the size and layout of a server's `Waiting`.
#[derive(Default)]
struct QueueWords {
    head: Padded,
    tail: Padded,
    _rest: Padded,
}

/// Measures all of it. `rounds` medians.
pub(crate) fn measure([here, there]: [usize; 2], rounds: usize) -> Costs {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                pin(here);
                let costs = |cost: &dyn Fn() -> f64| median((0..rounds).map(|_| cost()).collect());
                let [add, cas, own, pair] = [Both::Add, Both::Cas, Both::Own, Both::Multiply]
                    .map(|both| costs(&|| both.run([here, there])));
                let batches: Vec<[f64; 5]> = batches([here, there], rounds);
                let batch = |at: usize| median(batches.iter().map(|batch| batch[at]).collect());
                let wakes = wakes([here, there], rounds * 20);
                Costs {
                    load: costs(&loads),
                    rmw: costs(&additions),
                    fence: costs(&stored_and_fenced),
                    clock: costs(&clocks),
                    rmw_dirty: batch(0),
                    rmw_shared: batch(1),
                    load_dirty: batch(2),
                    load_scan: batch(3),
                    load_fenced: batch(4),
                    hand: costs(&|| hands([here, there])),
                    both_add: add / 2.0,
                    both_cas: cas / 2.0,
                    both_own: own,
                    pair: pair / costs(&|| each(OPS, multiply)),
                    wake: median(wakes.iter().map(|wake| wake.0).collect()),
                    wake_latency: median(wakes.iter().map(|wake| wake.1).collect()),
                }
            })
            .join()
            .expect("the measuring thread")
    })
}

fn each(count: u32, mut op: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..count {
        op();
    }
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}

fn loads() -> f64 {
    let word = Padded::default();
    each(ALONE, || {
        black_box(black_box(&word).0.load(SeqCst));
    })
}

fn additions() -> f64 {
    let word = Padded::default();
    each(ALONE, || {
        black_box(&word).0.fetch_add(1, SeqCst);
    })
}

fn stored_and_fenced() -> f64 {
    let word = Padded::default();
    each(ALONE, || {
        black_box(&word).0.store(1, Relaxed);
        fence(SeqCst);
    })
}

fn clocks() -> f64 {
    each(ALONE / 8, || {
        black_box(Instant::now());
    })
}

/// What the CPU there does to the lines before those here are timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prepare {
    Write,
    Read,
}

/// Rounds of: a read-modify-write of dirty lines, of shared ones, a load of dirty lines; and that
/// of many at once, without and with fences.
fn batches([_, there]: [usize; 2], rounds: usize) -> Vec<[f64; 5]> {
    let queues: Vec<QueueWords> = (0..QUEUES).map(|_| QueueWords::default()).collect();
    let mut order: Vec<usize> = (0..QUEUES).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    // Odd: the other one prepares. Even: this one measures. 0 ends.
    let turn = AtomicU32::new(2);
    let how = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(there);
            loop {
                let now = turn.load(Acquire);
                if now == 0 {
                    return;
                }
                if now.is_multiple_of(2) {
                    spin_loop();
                    continue;
                }
                for queue in &queues {
                    for word in [&queue.head, &queue.tail] {
                        if how.load(Relaxed) == Prepare::Write as u32 {
                            word.0.fetch_add(1, SeqCst);
                        } else {
                            black_box(word.0.load(SeqCst));
                        }
                    }
                }
                turn.store(now + 1, Release);
            }
        });
        let prepare = |prepare: Prepare| {
            how.store(prepare as u32, Relaxed);
            let now = turn.load(Relaxed);
            turn.store(now + 1, Release);
            while turn.load(Acquire) != now + 2 {
                spin_loop();
            }
        };
        let each = |begin: Instant| begin.elapsed().as_nanos() as f64 / (2 * QUEUES) as f64;
        // Not known to the compiler, nor to the CPU before the value is there.
        let zero = black_box(0);
        let chain = |op: &dyn Fn(&AtomicU64) -> u64| {
            let begin = Instant::now();
            let mut seen = 0;
            for &index in &order {
                seen = op(&queues[index + (seen & zero) as usize].head.0);
                seen = op(&queues[index + (seen & zero) as usize].tail.0);
            }
            black_box(seen);
            each(begin)
        };
        let add = |word: &AtomicU64| word.fetch_add(1, SeqCst);
        let load = |word: &AtomicU64| word.load(SeqCst);
        let results = (0..rounds)
            .map(|_| {
                prepare(Prepare::Write);
                let dirty = chain(&add);
                prepare(Prepare::Read);
                // Now both have read it.
                chain(&load);
                let shared = chain(&add);
                prepare(Prepare::Write);
                let loaded = chain(&load);
                prepare(Prepare::Write);
                // As `Backlog::any_queued` goes over all queues: a branch at each.
                let begin = Instant::now();
                let mut empty = 0;
                for queue in &queues {
                    let head = queue.head.0.load(SeqCst);
                    let tail = queue.tail.0.load(SeqCst);
                    empty += u32::from(head == tail);
                }
                black_box(empty);
                let scan = each(begin);
                prepare(Prepare::Write);
                // As `Injector::steal` looks at an empty queue.
                let begin = Instant::now();
                let mut empty = 0;
                for queue in &queues {
                    let head = queue.head.0.load(Acquire);
                    fence(SeqCst);
                    let tail = queue.tail.0.load(Relaxed);
                    empty += u32::from(head == tail);
                }
                black_box(empty);
                let fenced = each(begin);
                [dirty, shared, loaded, scan, fenced]
            })
            .collect();
        turn.store(0, Release);
        results
    })
}

/// Two CPUs take turns at storing to a word that both spin on.
fn hands([_, there]: [usize; 2]) -> f64 {
    const TURNS: u64 = 20_000;
    let word = Padded::default();
    thread::scope(|scope| {
        let wait = |turn: u64| {
            while word.0.load(Acquire) != turn {
                spin_loop();
            }
            word.0.store(turn + 1, Release);
        };
        scope.spawn(move || {
            pin(there);
            for turn in 0..TURNS {
                wait(2 * turn + 1);
            }
        });
        wait(0);
        while word.0.load(Acquire) != 2 {
            spin_loop();
        }
        // The other one is there.
        let begin = Instant::now();
        for turn in 1..TURNS {
            wait(2 * turn);
        }
        begin.elapsed().as_nanos() as f64 / (2 * TURNS - 2) as f64
    })
}

/// Operations of each of two threads.
const OPS: u32 = 100_000;

/// What both CPUs do at once, without a pause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Both {
    /// Additions to one word.
    Add,
    /// Increments of one word by load and compare-exchange.
    Cas,
    /// Additions to a word each.
    Own,
    /// No memory at all: whether they share a core.
    Multiply,
}

impl Both {
    /// Nanoseconds of one of them for one operation.
    fn run(self, [_, there]: [usize; 2]) -> f64 {
        let words = [Padded::default(), Padded::default()];
        let barrier = Barrier::new(2);
        let work = |word: &Padded| {
            barrier.wait();
            each(OPS, || match self {
                Self::Add | Self::Own => {
                    word.0.fetch_add(1, SeqCst);
                }
                Self::Cas => {
                    let mut seen = word.0.load(Acquire);
                    while let Err(found) = word.0.compare_exchange(seen, seen + 1, SeqCst, Acquire)
                    {
                        seen = found;
                    }
                }
                Self::Multiply => multiply(),
            })
        };
        let other = &words[usize::from(self == Self::Own)];
        let [a, b] = thread::scope(|scope| {
            let there = scope.spawn(|| {
                pin(there);
                work(other)
            });
            [work(&words[0]), there.join().expect("the other thread")]
        });
        f64::midpoint(a, b)
    }
}

/// Eight chains: enough to keep a core's multipliers busy from one thread.
fn multiply() {
    let mut values = [1_u64, 3, 5, 7, 9, 11, 13, 15];
    for _ in 0..16 {
        for value in &mut values {
            *value = black_box(*value).wrapping_mul(0x2545_f491_4f6c_dd1d);
        }
    }
    black_box(values);
}

/// What waking a thread that sleeps on the other CPU costs the caller, and how long until it
/// runs.
fn wakes([_, there]: [usize; 2], rounds: usize) -> Vec<(f64, f64)> {
    let word = Arc::new(AtomicU32::new(0));
    let ran = Arc::new(AtomicU64::new(0));
    let epoch = Instant::now();
    let sleeper = {
        let (word, ran) = (Arc::clone(&word), Arc::clone(&ran));
        thread::spawn(move || {
            pin(there);
            for round in 0..rounds as u32 {
                while word.load(Acquire) == round {
                    // SAFETY: the word outlives the call; there is no timeout.
                    unsafe {
                        libc::syscall(
                            libc::SYS_futex,
                            word.as_ptr(),
                            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                            round,
                            std::ptr::null::<libc::timespec>(),
                        );
                    }
                }
                ran.store(epoch.elapsed().as_nanos() as u64, Release);
            }
        })
    };
    let wakes = (0..rounds)
        .map(|_| {
            // Until the sleeper sleeps, and its CPU with it.
            thread::sleep(Duration::from_micros(300));
            ran.store(0, Relaxed);
            word.fetch_add(1, Release);
            let begin = epoch.elapsed().as_nanos() as u64;
            // SAFETY: a wake does not touch the memory.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    word.as_ptr(),
                    libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                    1,
                );
            }
            let end = epoch.elapsed().as_nanos() as u64;
            let mut at = 0;
            while at == 0 {
                spin_loop();
                at = ran.load(Acquire);
            }
            ((end - begin) as f64, at.saturating_sub(begin) as f64)
        })
        .collect();
    sleeper.join().expect("the sleeper");
    wakes
}
