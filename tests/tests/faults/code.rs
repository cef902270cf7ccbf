//! The application's own code does what breaks simple schedulers: signals, forks, panics, page
//! faults and spin locks.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    process::Command,
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use umcg::Builder;
use umcg_sys::CommandUnmanaged;
use umcg_tests::{
    BlockerGate, SpinLock, cpu, eventually, isolated, proc,
    runtime::{assert_blocks_are_seen, default_runtime, run_mixed_tasks, runtime_with},
    signals::{self, Storm},
    wrong_verdicts,
};

/// Sends SIGUSR1, which a handler counts, to every thread of this process except the caller.
fn storm(flags: i32) -> Storm {
    signals::count(libc::SIGUSR1, flags);
    let caller = umcg_sys::gettid();
    Storm::on(libc::SIGUSR1, move || {
        let mut all = proc::threads();
        all.retain(|&tid| tid != caller);
        all
    })
}

fn survives_a_storm(flags: i32) {
    let runtime = default_runtime();
    run_mixed_tasks(&runtime, 50);
    let gate = Arc::new(BlockerGate::new());
    let mutex = Arc::new(Mutex::new(0_u64));
    let (sender, receiver) = mpsc::channel();
    let held = mutex.lock().unwrap();

    // Tasks that are blocked in a read, on a lock, on a channel and on the clock, beside idle
    // workers and servers.
    let mut handles = Vec::new();
    for _ in 0..8 {
        let gate = Arc::clone(&gate);
        handles.push(runtime.spawn_blocking(move || gate.wait()));
        let mutex = Arc::clone(&mutex);
        handles.push(runtime.spawn_blocking(move || *mutex.lock().unwrap() += 1));
    }
    handles.push(runtime.spawn_blocking(move || assert_eq!(receiver.iter().count(), 100)));
    let parked = runtime.spawn(async {
        umcg::thread::park_timeout(Duration::from_millis(300));
        umcg::time::sleep(Duration::from_millis(50)).await;
    });
    eventually("the readers are blocked", || gate.waiting() == 8);

    let storm = storm(flags);
    eventually("signals come", || signals::handled(libc::SIGUSR1) > 500);
    for _ in 0..5 {
        run_mixed_tasks(&runtime, 40);
    }
    drop(held);
    for i in 0..100 {
        sender.send(i).unwrap();
    }
    drop(sender);
    eventually("more signals come", || {
        signals::handled(libc::SIGUSR1) > 2_000
    });
    gate.open();
    for handle in handles {
        handle.join().unwrap();
    }
    parked.join().unwrap();
    assert_eq!(*mutex.lock().unwrap(), 8);
    assert_blocks_are_seen(&runtime);
    drop(storm);
    run_mixed_tasks(&runtime, 50);
}

#[test]
fn signals_that_interrupt_calls_do_no_harm() {
    isolated(60, || survives_a_storm(0));
}

#[test]
fn signals_that_restart_calls_do_no_harm() {
    isolated(60, || survives_a_storm(libc::SA_RESTART));
}

/// Signals arrive while one runtime after the other starts and ends.
#[test]
fn signals_while_runtimes_come_and_go_do_no_harm() {
    isolated(60, || {
        let _storm = storm(0);
        for servers in [1, 2, 3, 2, 1] {
            let runtime = runtime_with(servers);
            run_mixed_tasks(&runtime, 20);
        }
    });
}

#[test]
fn a_worker_may_fork_and_wait_for_its_child() {
    isolated(60, || {
        let runtime = default_runtime();
        let handles: Vec<_> = (0..10)
            .map(|code| {
                runtime.spawn_blocking(move || {
                    // SAFETY: the child calls nothing but `_exit`.
                    let child = unsafe { libc::fork() };
                    if child == 0 {
                        // SAFETY: this ends the child at once.
                        unsafe { libc::_exit(code) };
                    }
                    assert!(child > 0, "fork");
                    let mut status = 0;
                    // An ordinary blocking wait.
                    // SAFETY: a live place for the answer.
                    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                    assert_eq!(waited, child);
                    assert!(libc::WIFEXITED(status));
                    assert_eq!(libc::WEXITSTATUS(status), code);
                })
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
        run_mixed_tasks(&runtime, 50);
        assert_blocks_are_seen(&runtime);
    });
}

#[test]
fn children_by_command_inherit_a_pin_or_are_given_the_original_mask() {
    isolated(60, || {
        let before = cpu::affinity();
        let runtime = default_runtime();
        let handles: Vec<_> = (0..12)
            .map(|i| {
                let before = before.clone();
                runtime.spawn_blocking(move || {
                    let mut command = Command::new("/bin/sh");
                    command.args(["-c", "grep Cpus_allowed_list /proc/self/status; exit 3"]);
                    if i % 2 == 0 {
                        command.unmanaged();
                    }
                    let output = command.output().expect("a shell");
                    assert_eq!(output.status.code(), Some(3));
                    let list = String::from_utf8(output.stdout).unwrap();
                    let cpus = parse_list(list.split(':').nth(1).unwrap_or_default().trim());
                    if i % 2 == 0 {
                        assert_eq!(cpus, before);
                    } else {
                        assert!(cpus.iter().all(|cpu| before.contains(cpu)), "{list}");
                    }
                })
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
        run_mixed_tasks(&runtime, 50);
    });
}

/// The CPUs of a list as the kernel writes it, like "0-2,5".
fn parse_list(list: &str) -> Vec<usize> {
    list.split(',')
        .flat_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            first.parse().unwrap()..=last.parse::<usize>().unwrap()
        })
        .collect()
}

/// Pages of a file, which are removed from memory before each use.
struct Pages {
    file: File,
    memory: *mut u8,
    length: usize,
}

// SAFETY: the memory is only read, and is mapped as long as this value lives.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("umcg-pages-{}", std::process::id()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .expect("a temporary file");
        std::fs::remove_file(&path).expect("it is there");
        let length = 1 << 20;
        file.write_all(&vec![1; length]).expect("room for a file");
        file.sync_all().expect("written");
        // SAFETY: a new shared mapping of an open file.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED);
        Self {
            file,
            memory: memory.cast(),
            length,
        }
    }

    /// Removes the pages from the page tables. With `from_memory` it also removes them from memory,
    /// if the file system does that: the call sleeps until a kernel thread has run on each CPU,
    /// which spinning threads delay.
    fn throw_out(&self, from_memory: bool) {
        // SAFETY: our own mapping, which afterwards reads from the file again, and our own file.
        unsafe {
            libc::madvise(self.memory.cast(), self.length, libc::MADV_DONTNEED);
            if from_memory {
                libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
            }
        }
    }

    /// Reads one byte of a page: a page fault.
    fn touch(&self, page: usize) -> u8 {
        // SAFETY: in bounds.
        unsafe { self.memory.add((page * 4096) % self.length).read_volatile() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more.
        unsafe { libc::munmap(self.memory.cast(), self.length) };
    }
}

#[test]
fn a_spin_lock_may_be_held_across_page_faults() {
    isolated(60, || {
        let pages = Arc::new(Pages::new());
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let lock = Arc::new(SpinLock::new(0_u64));
            let handles: Vec<_> = (0..8_usize)
                .map(|task| {
                    let (pages, lock) = (Arc::clone(&pages), Arc::clone(&lock));
                    runtime.spawn_blocking(move || {
                        for i in 0..20 {
                            lock.with(|sum| {
                                pages.throw_out(i % 10 == 0);
                                *sum += u64::from(pages.touch(task * 31 + i));
                            });
                            umcg::thread::yield_now();
                        }
                    })
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
            lock.with(|sum| assert_eq!(*sum, 8 * 20));
        }
    });
}

/// Trace A13. The holder of a spin lock sleeps, and passes a checkpoint before it releases the
/// lock. Meanwhile every other worker spins, on all servers.
#[test]
fn a_spin_lock_may_be_held_across_a_block_and_a_checkpoint() {
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let lock = Arc::new(SpinLock::new(0_u64));
            let handles: Vec<_> = (0..6)
                .map(|_| {
                    let lock = Arc::clone(&lock);
                    runtime.spawn_blocking(move || {
                        for _ in 0..4 {
                            lock.with(|count| {
                                // `umcg::thread::sleep` ends at a checkpoint.
                                umcg::thread::sleep(Duration::from_millis(1));
                                *count += 1;
                            });
                        }
                    })
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
            lock.with(|count| assert_eq!(*count, 6 * 4));
        }
    });
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("in a drop");
        }
    }
}

/// A panic payload that panics when it is dropped.
struct Payload;

impl Drop for Payload {
    fn drop(&mut self) {
        panic!("in the drop of a payload");
    }
}

#[test]
fn panics_stay_in_their_tasks() {
    isolated(60, || {
        let runtime = default_runtime();
        let workers = runtime.metrics().workers().total();
        for _ in 0..20 {
            let error = runtime
                .spawn_blocking(|| panic!("in a closure"))
                .join()
                .unwrap_err();
            assert!(error.is_panic());
            let payload = error.into_panic();
            assert_eq!(payload.downcast_ref::<&str>(), Some(&"in a closure"));

            let error = runtime
                .spawn(async {
                    umcg::yield_now().await;
                    panic!("in a future");
                })
                .join()
                .unwrap_err();
            assert!(error.is_panic());

            // After a block: the worker came back through its checkpoint.
            let error = runtime
                .spawn_blocking(|| {
                    thread::sleep(Duration::from_millis(1));
                    panic_any(7_u32);
                })
                .join()
                .unwrap_err();
            assert_eq!(error.into_panic().downcast_ref::<u32>(), Some(&7));

            // A local variable of a future panics when the future has returned.
            let error = runtime
                .spawn(async {
                    let _grenade = Grenade;
                    umcg::yield_now().await;
                })
                .join()
                .unwrap_err();
            assert!(error.is_panic());

            // Nobody looks at the results of these.
            drop(runtime.spawn_blocking(|| panic!("detached")));
            drop(runtime.spawn_blocking(|| Grenade));
            drop(runtime.spawn(async { Grenade }));
            drop(runtime.spawn_blocking(|| panic_any(Payload)));
        }
        run_mixed_tasks(&runtime, 100);
        assert_blocks_are_seen(&runtime);
        assert!(
            runtime.metrics().workers().total() <= workers + 64,
            "panics have cost threads: {:?}",
            runtime.metrics()
        );
    });
}

#[test]
fn a_future_may_panic_when_it_is_cancelled() {
    isolated(60, || {
        let runtime = default_runtime();
        for _ in 0..20 {
            let grenade = Grenade;
            let task = runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(grenade);
            });
            task.abort();
            assert!(task.join().is_err());
        }
        // The same when the runtime ends.
        for _ in 0..20 {
            let grenade = Grenade;
            drop(runtime.spawn(async move {
                std::future::pending::<()>().await;
                drop(grenade);
            }));
        }
        run_mixed_tasks(&runtime, 50);
        drop(runtime);
    });
}

#[test]
fn panics_in_hooks_stop_nothing() {
    isolated(60, || {
        let (starts, stops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (started, stopped) = (Arc::clone(&starts), Arc::clone(&stops));
        let runtime = Builder::new()
            .servers(2)
            .on_worker_start(move |_| {
                assert!(umcg::Handle::try_current().is_ok());
                starts.fetch_add(1, SeqCst);
                panic!("in a start hook");
            })
            .on_worker_stop(move |_| {
                // A stop hook may block like any task.
                thread::sleep(Duration::from_millis(1));
                stops.fetch_add(1, SeqCst);
                panic!("in a stop hook");
            })
            .build()
            .expect("a runtime");
        run_mixed_tasks(&runtime, 100);
        assert_blocks_are_seen(&runtime);
        assert!(started.load(SeqCst) > 0);
        drop(runtime);
        assert_eq!(stopped.load(SeqCst), started.load(SeqCst));
    });
}

/// A worker that is still in its start hook is on its way: no other worker is made in its place.
#[test]
fn a_start_hook_that_blocks_does_not_multiply_the_workers() {
    isolated(60, || {
        let runtime = Builder::new()
            .servers(2)
            .on_worker_start(|_| thread::sleep(Duration::from_millis(20)))
            .build()
            .expect("a runtime");
        let gate = Arc::new(BlockerGate::new());
        let handles: Vec<_> = (0..10)
            .map(|_| {
                let gate = Arc::clone(&gate);
                runtime.spawn_blocking(move || gate.wait())
            })
            .collect();
        eventually("all are blocked", || gate.waiting() == 10);
        run_mixed_tasks(&runtime, 20);
        let peak = runtime.metrics().workers_peak();
        // One worker for each blocked task, those of `run_mixed_tasks`, and spares.
        assert!(wrong_verdicts() || peak <= 10 + 20 + 8, "{peak} workers");
        gate.open();
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

#[test]
fn a_panic_in_block_on_reaches_its_caller() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                umcg::yield_now().await;
                panic!("in block_on");
            })
        }));
        assert!(caught.is_err());
        let poisoned = Arc::new(Mutex::new(()));
        let theirs = Arc::clone(&poisoned);
        let task = runtime.spawn_blocking(move || {
            let _held = theirs.lock();
            panic!("with a lock held");
        });
        assert!(task.join().unwrap_err().is_panic());
        drop(poisoned.lock().unwrap_or_else(PoisonError::into_inner));
        run_mixed_tasks(&runtime, 20);
    });
}
