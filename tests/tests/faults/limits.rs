//! The machine has less than the runtime would like: threads, descriptors, `/proc`.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::unix::process::CommandExt,
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use umcg::{Builder, Runtime};
use umcg_sys::ProviderKind;
use umcg_tests::{
    BlockerGate, Subprocess, eventually, isolated, limits,
    runtime::{assert_blocks_are_seen, run_mixed_tasks},
    skip, threads,
};

/// Lets one test run at a time, unless this is root. Root gives each test a user of its own.
/// Otherwise all tests run as one user, whose threads are counted together.
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    (!root).then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Becomes a user for whom RLIMIT_NPROC holds, with room for `spare` more threads.
fn limit_threads(spare: u64) -> u64 {
    limits::drop_privileges().expect("root may become anybody");
    let limit = limits::threads_of_this_user() + spare;
    limits::set_soft(libc::RLIMIT_NPROC, limit).expect("a lower limit is permitted");
    limit
}

fn lift_thread_limit() {
    let hard = limits::get(libc::RLIMIT_NPROC)
        .expect("it has a limit")
        .rlim_max;
    limits::set_soft(libc::RLIMIT_NPROC, hard).expect("up to the hard limit is permitted");
}

#[test]
fn growth_that_the_system_refuses_costs_time_and_loses_nothing() {
    let _alone = alone();
    isolated(60, || {
        limit_threads(14);
        // By default there would not be more workers than the limit of this moment allows.
        let runtime = Builder::new()
            .servers(2)
            .max_workers(64)
            .build()
            .expect("room for the servers");
        // Far more tasks block at once than there can be threads.
        let most = Arc::new(AtomicUsize::new(0));
        let handles: Vec<_> = (0..300_usize)
            .map(|i| {
                let most = Arc::clone(&most);
                runtime.spawn_blocking(move || {
                    thread::sleep(Duration::from_millis(3));
                    if i % 50 == 0 {
                        most.fetch_max(threads::count(), SeqCst);
                    }
                    i
                })
            })
            .collect();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().expect("nothing is lost"), i);
        }
        assert!(
            runtime.metrics().worker_spawn_failure_count() > 0,
            "the limit was never reached: {:?}",
            runtime.metrics()
        );
    });
}

#[test]
fn growth_is_tried_again_when_there_is_room() {
    let _alone = alone();
    isolated(60, || {
        limit_threads(14);
        // More than the limit allows now, as above.
        let runtime = Builder::new()
            .servers(2)
            .max_workers(64)
            .build()
            .expect("room for the servers");
        // All tasks must be blocked at the same time, so this cannot end under the limit.
        let gate = Arc::new(BlockerGate::new());
        let handles: Vec<_> = (0..40_usize)
            .map(|i| {
                let gate = Arc::clone(&gate);
                runtime.spawn_blocking(move || {
                    gate.wait();
                    i
                })
            })
            .collect();
        // Several times after the last worker blocked: nobody is left to ask for a thread, and the
        // runtime tries again all the same.
        let failures = || runtime.metrics().worker_spawn_failure_count();
        let mut quiet_since = (gate.waiting(), failures());
        eventually("a thread is refused again and again", || {
            if gate.waiting() != quiet_since.0 {
                quiet_since = (gate.waiting(), failures());
            }
            failures() >= quiet_since.1 + 6
        });
        assert!(gate.waiting() < 40);
        lift_thread_limit();
        eventually("all are blocked at once", || gate.waiting() == 40);
        gate.open();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().expect("nothing is lost"), i);
        }
    });
}

#[test]
fn a_runtime_without_room_for_its_threads_is_an_error() {
    let _alone = alone();
    isolated(30, || {
        limit_threads(0);
        let before = threads::count();
        let error = Builder::new()
            .servers(2)
            .build()
            .expect_err("no thread at all");
        assert!(!error.to_string().is_empty());
        lift_thread_limit();
        // Everything that was made for it has gone, and the next attempt succeeds.
        eventually("no thread is left over", || threads::count() <= before);
        let runtime = Builder::new().servers(2).build().expect("room again");
        run_mixed_tasks(&runtime, 40);
        assert_blocks_are_seen(&runtime);
    });
}

/// With any number of threads that the limit leaves, a runtime either starts or returns an error.
#[test]
fn any_limit_of_threads_gives_an_error_or_a_working_runtime() {
    let _alone = alone();
    isolated(60, || {
        // Some threads are made once for the process, and stay.
        drop(Builder::new().servers(2).build().expect("no limit yet"));
        limits::drop_privileges().expect("root may become anybody");
        for spare in 1..12 {
            let limit = limits::threads_of_this_user() + spare;
            limits::set_soft(libc::RLIMIT_NPROC, limit).expect("a lower limit is permitted");
            match Builder::new().servers(2).build() {
                Err(error) => assert!(!error.to_string().is_empty()),
                Ok(runtime) => {
                    run_mixed_tasks(&runtime, 40);
                    // The workers of this runtime must have ended before the next limit is set.
                    drop(runtime);
                }
            }
            lift_thread_limit();
            eventually("the threads are gone", || threads::named("umcg") <= 4);
        }
    });
}

/// Opens files until no descriptor is left.
fn exhaust_descriptors() -> Vec<File> {
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                return taken;
            }
        }
    }
}

/// Trace B5.
#[test]
fn without_a_free_descriptor_everything_works() {
    let _alone = alone();
    isolated(60, || {
        let gate = Arc::new(BlockerGate::new());
        // If the device is used, it takes one descriptor for the process, permanently.
        let _ = umcg_sys::Device::open();
        limits::set_soft(libc::RLIMIT_NOFILE, 64).expect("a lower limit is permitted");
        let taken = exhaust_descriptors();
        let runtime = Builder::new()
            .servers(2)
            .build()
            .expect("it needs no descriptor");
        run_mixed_tasks(&runtime, 200);
        let handles: Vec<_> = (0..6_usize)
            .map(|i| {
                let gate = Arc::clone(&gate);
                runtime.spawn_blocking(move || {
                    gate.wait();
                    i
                })
            })
            .collect();
        eventually("all are blocked", || gate.waiting() == 6);
        assert_eq!(runtime.spawn(async { 1 }).join().unwrap(), 1);
        gate.open();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i);
        }
        drop(taken);
    });
}

/// Covers `/proc` with an empty directory, in a mount namespace of this process alone.
fn hide_proc() -> io::Result<()> {
    const NONE: &CStr = c"none";
    let check = |result: i32| {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: system calls with constant strings, between fork and exec.
    unsafe {
        let user = if libc::geteuid() == 0 {
            0
        } else {
            libc::CLONE_NEWUSER
        };
        check(libc::unshare(libc::CLONE_NEWNS | user))?;
        let all = libc::MS_REC | libc::MS_PRIVATE;
        let null = std::ptr::null();
        check(libc::mount(null, c"/".as_ptr(), null, all, null.cast()))?;
        let tmpfs = c"tmpfs".as_ptr();
        check(libc::mount(
            NONE.as_ptr(),
            c"/proc".as_ptr(),
            tmpfs,
            0,
            null.cast(),
        ))
    }
}

/// The description says that nobody can ask for the state of a thread. Other providers need not
/// ask.
fn is_said(runtime: &Runtime) {
    let metrics = runtime.metrics();
    if metrics.provider_kind() == ProviderKind::Emulated {
        let text = metrics.provider_description();
        assert!(text.contains("without /proc"), "{text}");
    }
}

#[test]
fn without_proc_everything_works() {
    let _alone = alone();
    let setup = |command: &mut Command| {
        // SAFETY: see `hide_proc`. The body of the test notices if it was refused.
        unsafe {
            command.pre_exec(|| {
                let _ = hide_proc();
                Ok(())
            });
        }
    };
    Subprocess::new(60).setup(setup).run(|| {
        if File::open("/proc/self/stat").is_ok() {
            skip!("this user may not have a mount namespace to hide /proc in");
        }
        let runtime = Builder::new()
            .servers(2)
            .build()
            .expect("it needs no /proc");
        run_mixed_tasks(&runtime, 200);
        assert_blocks_are_seen(&runtime);
        is_said(&runtime);
        let unpinned = Builder::new()
            .servers(1)
            .pin(false)
            .build()
            .expect("a runtime with the monitor alone");
        is_said(&unpinned);
        run_mixed_tasks(&unpinned, 40);
        assert_blocks_are_seen(&unpinned);
    });
}

#[test]
fn ten_thousand_blocking_tasks_pass_through_sixty_four_workers() {
    let _alone = alone();
    const TASKS: usize = 10_000;
    isolated(60, || {
        let runtime = Builder::new().servers(2).max_workers(64).build().unwrap();
        let gate = Arc::new(BlockerGate::new());
        let handles: Vec<_> = (0..TASKS)
            .map(|i| {
                let gate = Arc::clone(&gate);
                runtime.spawn_blocking(move || {
                    gate.wait();
                    i
                })
            })
            .collect();
        eventually("all workers are blocked", || gate.waiting() == 64);
        // Servers and helper threads come on top of the workers.
        assert!(threads::count() < 64 + 16, "{} threads", threads::count());
        assert!(
            runtime.metrics().workers().total() <= 64,
            "{:?}",
            runtime.metrics()
        );
        gate.open();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i);
        }
    });
}

#[test]
fn ten_thousand_tasks_are_blocked_at_once() {
    let _alone = alone();
    const TASKS: usize = 10_000;
    isolated(110, || {
        let room = limits::room_for_threads();
        if room < TASKS as u64 + 2_000 {
            skip!("this machine permits {room} threads, {TASKS} and some are needed");
        }
        let runtime = Builder::new()
            .servers(2)
            .max_workers(TASKS)
            .thread_stack_size(64 * 1024)
            .build()
            .unwrap();
        let gate = Arc::new(BlockerGate::new());
        let handles: Vec<_> = (0..TASKS)
            .map(|i| {
                let gate = Arc::clone(&gate);
                runtime.spawn_blocking(move || {
                    gate.wait();
                    i
                })
            })
            .collect();
        while gate.waiting() < TASKS {
            assert_eq!(
                runtime.metrics().worker_spawn_failure_count(),
                0,
                "{:?}",
                runtime.metrics()
            );
            thread::sleep(Duration::from_millis(5));
        }
        let each = limits::resident_bytes() / TASKS as u64;
        assert!(
            each < 64 * 1024,
            "{each} bytes of memory for each blocked task"
        );
        gate.open();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i);
        }
    });
}
