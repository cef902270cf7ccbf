//! The runtime as a whole, one property a test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg::{Builder, Runtime};

#[test]
fn a_future_runs_and_its_value_comes_back() {
    let runtime = Runtime::new().unwrap();
    assert_eq!(
        runtime.block_on(async { umcg::spawn(async { 7 }).await.unwrap() }),
        7
    );
}

#[test]
fn sleeping_closures_overlap_on_one_server() {
    let runtime = Builder::new().servers(1).build().unwrap();
    let start = Instant::now();
    let tasks: Vec<_> = (0..200)
        .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(50))))
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    let elapsed = start.elapsed();
    eprintln!("{elapsed:?} {:#?}", runtime.metrics());
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn many_tasks_on_many_servers_all_run() {
    for servers in [1, 2, 5] {
        let runtime = Builder::new().servers(servers).build().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..10_000)
            .map(|_| {
                let count = Arc::clone(&count);
                runtime.spawn(async move {
                    count.fetch_add(1, SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(count.load(SeqCst), 10_000);
    }
}

/// A line of a thread's `/proc` status.
fn status_of(thread: &str, field: &str) -> Option<String> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("status")).ok())
        .find(|status| status.lines().next() == Some(&format!("Name:\t{thread}")))
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with(field))?;
            Some(line.split_whitespace().nth(1)?.to_owned())
        })
}

/// Whether a thread of this process blocks SIGUSR1. `None`: no such thread.
fn blocks_usr1(thread: &str) -> Option<bool> {
    let mask = u64::from_str_radix(&status_of(thread, "SigBlk:")?, 16).unwrap();
    Some(mask & (1_u64 << (libc::SIGUSR1 - 1)) != 0)
}

#[test]
fn servers_handle_no_signals_and_workers_do() {
    let runtime = Builder::new()
        .servers(1)
        .thread_name("sig")
        .build()
        .unwrap();
    let grow: Vec<_> = (0..4)
        .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))))
        .collect();
    for task in grow {
        task.join().unwrap();
    }
    // A new thread takes a moment to set its mask.
    for (thread, blocks) in [
        ("sig-s0", true),
        ("sig-maker", true),
        ("sig-w0", false),
        // Made by the maker.
        ("sig-w1", false),
    ] {
        crate::common::eventually(thread, || blocks_usr1(thread) == Some(blocks));
    }
}

#[test]
fn a_runtime_built_on_a_worker_is_not_confined_to_its_cpu() {
    let all = status_of("a_runtime_built", "Cpus_allowed:");
    let outer = Builder::new().servers(1).build().unwrap();
    let _inner = outer
        .spawn_blocking(|| Builder::new().servers(2).thread_name("inner").build())
        .join()
        .unwrap()
        .unwrap();
    assert!(all.is_some());
    crate::common::eventually("the maker has all CPUs", || {
        status_of("inner-maker", "Cpus_allowed:") == all
    });
}

#[test]
fn builders_refuse_what_cannot_work() {
    for (builder, name) in [
        (Builder::new().servers(0), "servers"),
        (Builder::new().max_workers(0), "max_workers"),
        (Builder::new().servers(usize::MAX), "servers"),
        (Builder::new().thread_name("a\0b"), "thread_name"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    // On most machines there is no device; where there is one, it must be usable.
    match Builder::new()
        .provider(umcg::ProviderChoice::Device)
        .build()
    {
        Ok(_) => assert!(std::path::Path::new("/dev/umcg").exists()),
        Err(error) => assert!(matches!(error, umcg::BuildError::Provider(_)), "{error}"),
    }
    // No address space has room for this stack.
    let error = Builder::new()
        .thread_stack_size(1 << 46)
        .build()
        .unwrap_err();
    assert!(matches!(error, umcg::BuildError::Thread(_)), "{error}");
}

#[test]
fn try_spawn_stops_at_the_limit() {
    let runtime = Builder::new()
        .servers(1)
        .max_workers(1)
        .queue_limit(3)
        .build()
        .unwrap();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let first = runtime.spawn_blocking(move || gate.recv().unwrap());
    crate::common::eventually("it runs", || runtime.metrics().queued == 0);
    let queued: Vec<_> = (0..3)
        .map(|_| runtime.handle().try_spawn(async {}).unwrap())
        .collect();
    let refused = runtime.handle().try_spawn(async {}).unwrap_err();
    assert!(refused.is_full());
    // `spawn` is not limited.
    let more = runtime.spawn(refused.into_inner());
    open.send(()).unwrap();
    for task in queued.into_iter().chain([first, more]) {
        task.join().unwrap();
    }
}
