//! Blocks in unexpected places: growth of the descriptor table, and page faults.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    files::{forget, written},
    work::{Stop, compute},
};
use crate::{
    clock::Clock,
    probe::{self, say},
    report::Row,
    runner::{Effort, Group},
    system::{System, Systems},
    with_system,
};

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let mut rows = Vec::new();
    if effort.takes("fd_table") {
        let workers = systems.workers.to_string();
        for system in ["umcg", "tokio", "async-executor"] {
            let arguments = ["fd_table", system, &workers];
            let outcome = probe::run(&arguments, Duration::from_secs(20));
            let title = "as many tasks as workers open 4000 files each (the kernel waits for an \
                         RCU grace period whenever the table grows), beside a task that computes \
                         for 10 us and yields: its rounds, and its longest gap";
            rows.push(probe::row("fd_table", title, system, outcome));
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    rows.extend(faults(systems, folder.path(), effort).run(effort));
    rows
}

/// The probe: the descriptor table grows beside a task that computes.
pub(super) fn fd_table(system: &str, workers: usize) {
    with_system!(system, workers, s => grow_table(s, workers));
}

fn grow_table<S: System>(system: &'static S, workers: usize) {
    crate::system::prime(system, workers);
    let stop = Stop::default();
    let (rounds, gap) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let computing = {
        let (stop, rounds, gap) = (stop.clone(), Arc::clone(&rounds), Arc::clone(&gap));
        system.spawn(async move {
            let mut last = Instant::now();
            while !stop.is_set() {
                compute(Duration::from_micros(10));
                rounds.fetch_add(1, Relaxed);
                gap.fetch_max(last.elapsed().as_micros() as u64, Relaxed);
                last = Instant::now();
                S::yield_now().await;
            }
        })
    };
    let begin = Instant::now();
    let openers: Vec<_> = (0..workers)
        .map(|_| {
            system.spawn(async {
                let file = File::open("/dev/null").expect("the device");
                (0..4000)
                    .map_while(|_| file.try_clone().ok())
                    .collect::<Vec<_>>()
                    .len()
            })
        })
        .collect();
    let mut opened = 0;
    for opener in openers {
        opened += futures_lite::future::block_on(opener);
    }
    let took = begin.elapsed();
    stop.set();
    futures_lite::future::block_on(computing);
    say("files", opened as f64);
    say("ms", took.as_secs_f64() * 1e3);
    say("rounds", rounds.load(Relaxed) as f64);
    say("longest gap us", gap.load(Relaxed) as f64);
}

/// A file that is mapped until this value is dropped.
struct Mapping {
    address: *mut libc::c_void,
    length: usize,
    _file: OwnedFd,
}

// SAFETY: the memory is only read.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole file, without reading ahead.
    fn of(file: &File, length: usize) -> Self {
        // SAFETY: this makes a new read-only mapping of an open file.
        let address = unsafe {
            let address = libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            assert_ne!(address, libc::MAP_FAILED, "a mapping");
            libc::madvise(address, length, libc::MADV_RANDOM);
            address
        };
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(libc::dup(file.as_raw_fd())) };
        Self {
            address,
            length,
            _file: file,
        }
    }

    fn byte(&self, at: usize) -> u8 {
        assert!(at < self.length);
        // SAFETY: the byte is within the mapping, and the file is not shortened.
        unsafe { self.address.cast::<u8>().add(at).read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped in `of`, and there is no pointer into it.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

/// Tasks touch pages of a mapped file that is not in the page cache.
fn faults(systems: &Systems, folder: &Path, effort: &Effort) -> Group<'static> {
    const PAGE: usize = 4096;
    const TASKS: usize = 32;
    let pages: usize = effort.pick(4096, 1024);
    let file = written(&folder.join("mapped"), pages * PAGE).expect("a file");
    let file: &'static File = Box::leak(Box::new(file));
    let mut group = Group::new(
        "page_faults",
        format!("{TASKS} tasks touch {pages} pages of a mapped cold file between them"),
        "page",
        pages as u64,
    );
    let touch = move |mapping: &Mapping, task: usize| {
        // The pages are spread, so that a fault does not bring in the next page.
        for i in (0..pages / TASKS).map(|i| (i * TASKS + task) * 61 % pages) {
            assert_eq!(mapping.byte(i * PAGE + 5), 5);
        }
    };
    macro_rules! cell {
        ($s:expr, $name:expr, $spawn:ident, $job:ident => $wrapped:expr) => {{
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                forget(file);
                let mapping = Arc::new(Mapping::of(file, pages * PAGE));
                clock.time(|| {
                    let tasks: Vec<_> = (0..TASKS)
                        .map(|task| {
                            let mapping = Arc::clone(&mapping);
                            let $job = move || touch(&mapping, task);
                            s.$spawn($wrapped)
                        })
                        .collect();
                    s.block_on(async {
                        for task in tasks {
                            task.await;
                        }
                    });
                });
            });
        }};
    }
    cell!(systems.umcg, "umcg", spawn, job => async move { job() });
    cell!(systems.tokio, "tokio", spawn, job => async move { job() });
    cell!(systems.tokio, "tokio spawn_blocking", spawn_blocking, job => job);
    cell!(systems.async_executor, "async-executor", spawn, job => async move { job() });
    cell!(systems.threadpool, "threadpool(512)", spawn_blocking, job => job);
    group
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}
