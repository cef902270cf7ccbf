//! What the options of the builder do, and which ones it refuses.

use std::sync::mpsc;

use umcg::{BuildError, Builder, ProviderChoice};
use umcg_tests::{
    eventually, isolated, proc,
    runtime::{block_tasks, join_all, run_mixed_tasks, runtime_with},
    threads,
};

#[test]
fn values_that_cannot_work_are_refused() {
    for (builder, name) in [
        (Builder::new().servers(0), "servers"),
        (Builder::new().max_workers(0), "max_workers"),
        (Builder::new().servers(usize::MAX), "servers"),
        (Builder::new().thread_name("a\0b"), "thread_name"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    // On most machines there is no device. Where there is one, it must be usable.
    match Builder::new().provider(ProviderChoice::Device).build() {
        Ok(_) => assert!(std::path::Path::new("/dev/umcg").exists()),
        Err(error) => assert!(matches!(error, BuildError::Provider(_)), "{error}"),
    }
    // No address space has room for this stack.
    let error = Builder::new()
        .thread_stack_size(1 << 46)
        .build()
        .unwrap_err();
    assert!(matches!(error, BuildError::Thread(_)), "{error}");
}

#[test]
fn the_thread_name_and_the_stack_size_are_used() {
    isolated(60, || {
        let runtime = Builder::new()
            .servers(2)
            .thread_name("named")
            .thread_stack_size(1 << 20)
            .build()
            .unwrap();
        run_mixed_tasks(&runtime, 20);
        assert!(threads::named("named") >= 2);
        // A stack of a megabyte has room for this.
        let deep = runtime
            .spawn_blocking(|| {
                fn down(depth: usize) -> usize {
                    let page = std::hint::black_box([depth as u8; 1024]);
                    if depth == 0 {
                        0
                    } else {
                        down(depth - 1) + usize::from(page[0] != 0).min(1)
                    }
                }
                down(400)
            })
            .join()
            .unwrap();
        assert!(deep > 300);
    });
}

#[test]
fn hooks_are_called_once_for_each_worker() {
    isolated(60, || {
        let (started, start) = mpsc::channel();
        let (stopped, stop) = mpsc::channel();
        let runtime = Builder::new()
            .servers(2)
            .on_worker_start(move |id| started.send(id).unwrap())
            .on_worker_stop(move |id| stopped.send(id).unwrap())
            .build()
            .unwrap();
        let (gate, blocked) = block_tasks(&runtime, 10);
        gate.open();
        for handle in blocked {
            handle.join().unwrap();
        }
        drop(runtime);
        let (mut began, mut ended): (Vec<_>, Vec<_>) =
            (start.iter().collect(), stop.iter().collect());
        began.sort_unstable();
        ended.sort_unstable();
        assert!(began.len() >= 10);
        assert_eq!(began, ended);
    });
}

#[test]
fn servers_block_signals_and_workers_do_not() {
    isolated(60, || {
        let runtime = Builder::new()
            .servers(1)
            .thread_name("sig")
            .build()
            .unwrap();
        // The second worker is made by the worker spawner, which blocks signals itself.
        let (gate, blocked) = block_tasks(&runtime, 4);
        let blocks_usr1 = |name: &str| {
            let thread = threads::by_name(name)?;
            let mask = u64::from_str_radix(&proc::status(thread.tid, "SigBlk")?, 16).unwrap();
            Some(mask & (1_u64 << (libc::SIGUSR1 - 1)) != 0)
        };
        for (name, blocks) in [
            ("sig-s0", true),
            ("sig-spawner", true),
            ("sig-w0", false),
            ("sig-w1", false),
        ] {
            // A new thread takes a moment to set its mask.
            eventually(name, || blocks_usr1(name) == Some(blocks));
        }
        gate.open();
        join_all(blocked);
    });
}

#[test]
fn a_runtime_built_on_a_worker_is_not_confined_to_its_cpu() {
    isolated(60, || {
        let cpus_of = |tid| proc::status(tid, "Cpus_allowed");
        let all = cpus_of(umcg_sys::gettid());
        assert!(all.is_some());
        let outer = runtime_with(1);
        let _inner = outer
            .spawn_blocking(|| Builder::new().servers(2).thread_name("inner").build())
            .join()
            .unwrap()
            .unwrap();
        eventually("the worker spawner has all CPUs", || {
            threads::by_name("inner-spawner").is_some_and(|thread| cpus_of(thread.tid) == all)
        });
    });
}
