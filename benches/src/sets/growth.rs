//! Threads that come and go: waits at the limit of threads, growth, and memory. Each probe runs in
//! a process of its own.

use std::{
    future::poll_fn,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::{
    probe::{self, say},
    report::Row,
    runner::Effort,
    system::{Countdown, System, Systems},
    usage::{self, status_kib},
    with_system,
};

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let workers = systems.workers.to_string();
    let mut rows = Vec::new();
    if effort.takes("cap_nested") {
        for system in ["umcg", "tokio spawn_blocking"] {
            let outcome = probe::run(&["cap_nested", system], Duration::from_secs(10));
            let title = "128 blocking closures that each wait for another one, 64 threads at \
                         most; 10 s at most";
            rows.push(probe::row("cap_nested", title, system, outcome));
        }
    }
    let count = effort.pick("10000", "1000");
    if effort.takes("memory_blocked") {
        for system in ["umcg", "std threads", "tokio"] {
            let outcome = probe::run(
                &["memory_blocked", system, &workers, count],
                Duration::from_secs(60),
            );
            let title = format!(
                "{count} closures that block at a condvar, all at once: memory for each, and the \
                 time until all of them do"
            );
            rows.push(probe::row("memory_blocked", &title, system, outcome));
        }
    }
    if effort.takes("memory_idle") {
        let outcome = probe::run(&["memory_idle", &workers], Duration::from_secs(30));
        let title = "1000 workers after their work is done: memory for each";
        rows.push(probe::row("memory_idle", title, "umcg", outcome));
    }
    if effort.takes("memory_task") {
        for system in ["umcg", "tokio", "async-executor", "futures", "may"] {
            let outcome = probe::run(&["memory_task", system, &workers], Duration::from_secs(30));
            let title = "futures that wait for a wake-up, all spawned: memory for each";
            rows.push(probe::row("memory_task", title, system, outcome));
        }
    }
    rows
}

/// The probe: parents wait for children in the same pool, and there are more parents than the pool
/// may have threads. tokio hangs, as its documentation warns.
pub(super) fn cap_nested(system: &str) {
    const CAP: usize = 64;
    const PARENTS: usize = 2 * CAP;
    let begin = Instant::now();
    let done = Countdown::new(PARENTS);
    match system {
        "umcg" => {
            let runtime = umcg::Builder::new().max_workers(CAP).build();
            let runtime = Arc::new(runtime.expect("a runtime"));
            for _ in 0..PARENTS {
                let (handle, done) = (runtime.handle().clone(), done.clone());
                drop(runtime.spawn_blocking(move || {
                    let child = handle.spawn_blocking(|| thread::sleep(Duration::from_millis(1)));
                    child.join().expect("the child");
                    done.done();
                }));
            }
            done.wait();
            say(
                "threads beyond the cap",
                runtime.metrics().max_workers_exceeded_count() as f64,
            );
        }
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .max_blocking_threads(CAP)
                .build()
                .expect("a runtime");
            for _ in 0..PARENTS {
                let (handle, done) = (runtime.handle().clone(), done.clone());
                runtime.spawn_blocking(move || {
                    let child = handle.spawn_blocking(|| thread::sleep(Duration::from_millis(1)));
                    futures_lite::future::block_on(child).expect("the child");
                    done.done();
                });
            }
            done.wait();
        }
    }
    say("ms", begin.elapsed().as_secs_f64() * 1e3);
}

/// The memory of the process, and of the kernel on its behalf, in KiB.
struct Memory {
    resident: u64,
    /// Of the whole machine, because the kernel does not count them for a process.
    kernel_stacks: u64,
    page_tables: u64,
}

impl Memory {
    fn now() -> Self {
        Self {
            resident: status_kib("VmRSS"),
            kernel_stacks: usage::memory_kib("KernelStack"),
            page_tables: status_kib("VmPTE"),
        }
    }

    /// Prints what was added since then, in bytes for each of `count`.
    fn say_since(&self, earlier: &Self, count: usize) {
        let each = |now: u64, then: u64| (now as f64 - then as f64) * 1024.0 / count as f64;
        say("resident bytes", each(self.resident, earlier.resident));
        say(
            "kernel stack bytes",
            each(self.kernel_stacks, earlier.kernel_stacks),
        );
        say(
            "page table bytes",
            each(self.page_tables, earlier.page_tables),
        );
    }
}

/// The condition that blocked closures wait for.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.inside.fetch_add(1, SeqCst);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.opened
                .wait_while(open, |open| !*open)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    /// Waits until this many closures wait, or nothing has changed for a second. Returns how many
    /// wait.
    fn fill(&self, count: usize) -> usize {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let inside = self.inside.load(SeqCst);
            if inside == count || since.elapsed() > Duration::from_secs(1) {
                return inside;
            }
            if inside != last {
                (last, since) = (inside, Instant::now());
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// The probe: this many closures block at the same time.
pub(super) fn memory_blocked(system: &str, workers: usize, count: usize) {
    match system {
        "umcg" => {
            let builder = umcg::Builder::new().max_workers(count + 100);
            let system = crate::system::leak(crate::system::Umcg::build(workers, builder));
            block_many(system, workers, count);
        }
        "tokio" => {
            // Its limit is 512 by default.
            let system = crate::system::Tokio::with_cap(workers, count + 100);
            block_many(crate::system::leak(system), workers, count);
        }
        name => {
            with_system!(name, workers, s => block_many(s, workers, count));
        }
    }
}

fn block_many<S: System>(system: &'static S, workers: usize, count: usize) {
    crate::system::prime(system, workers);
    let gate = Arc::new(Gate::default());
    let (before, begin) = (Memory::now(), Instant::now());
    let done = Countdown::new(count);
    for _ in 0..count {
        let (gate, done) = (Arc::clone(&gate), done.clone());
        system.execute(move || {
            gate.pass();
            done.done();
        });
    }
    let inside = gate.fill(count);
    let grown = begin.elapsed();
    say("blocked at once", inside as f64);
    say(
        "us each to get there",
        grown.as_secs_f64() * 1e6 / inside as f64,
    );
    Memory::now().say_since(&before, inside);
    let begin = Instant::now();
    gate.open();
    done.wait();
    say("ms until all went on", begin.elapsed().as_secs_f64() * 1e3);
}

/// The probe: the memory of a worker that is idle again.
pub(super) fn memory_idle(workers: usize) {
    const COUNT: usize = 1000;
    let system = crate::system::leak(crate::system::Umcg::new(workers));
    crate::system::prime(system, workers);
    let (before, threads) = (Memory::now(), usage::threads());
    let gate = Arc::new(Gate::default());
    let done = Countdown::new(COUNT);
    for _ in 0..COUNT {
        let (gate, done) = (Arc::clone(&gate), done.clone());
        system.execute(move || {
            gate.pass();
            done.done();
        });
    }
    gate.fill(COUNT);
    gate.open();
    done.wait();
    usage::settle();
    let came = usage::threads().saturating_sub(threads);
    say(
        "idle workers",
        system.runtime().metrics().workers().idle() as f64,
    );
    Memory::now().say_since(&before, came.max(1));
}

/// The probe: the memory of a future that waits.
pub(super) fn memory_task(system: &str, workers: usize) {
    // Coroutines need mappings, of which Linux allows 65 530 by default.
    let count = if system == "may" { 10_000 } else { 200_000 };
    with_system!(system, workers, s => wait_many(s, workers, count));
}

fn wait_many<S: System>(system: &'static S, workers: usize, count: usize) {
    crate::system::prime(system, workers);
    let begun = Arc::new(AtomicUsize::new(0));
    // The wakers are kept, because some systems free a future that cannot be woken. Their memory is
    // allocated and touched before the measurement.
    let mut wakers = vec![Some(Waker::noop().clone()); count];
    wakers.clear();
    let wakers = Arc::new(Mutex::new(wakers));
    let before = Memory::now();
    for _ in 0..count {
        let (begun, wakers) = (Arc::clone(&begun), Arc::clone(&wakers));
        system.spawn_detached(poll_fn(move |cx| {
            let mut wakers = wakers.lock().unwrap_or_else(PoisonError::into_inner);
            wakers.push(Some(cx.waker().clone()));
            begun.fetch_add(1, SeqCst);
            Poll::Pending
        }));
    }
    while begun.load(SeqCst) < count {
        thread::sleep(Duration::from_millis(1));
    }
    let after = Memory::now();
    say("tasks", count as f64);
    say(
        "resident bytes",
        (after.resident as f64 - before.resident as f64) * 1024.0 / count as f64,
    );
}
