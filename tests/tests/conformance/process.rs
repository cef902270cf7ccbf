//! What happens around a process: signals, fork, exec, exit, stop and continue, and a tracer.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::Command,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{Register, state};
use umcg_tests::{
    Harness, Me, Server, ServerGroup, Subprocess, Worker,
    blockers::{self, Futex},
    eventually, for_each_provider, providers_under_test,
    signals::{self, Storm},
    skip,
    subprocess::Running,
};

/// Workers that yield and sleep on two servers, for this number of rounds.
fn load(harness: &Arc<Harness>, rounds: u32) {
    let group = ServerGroup::start(harness, 2);
    let workers: Vec<_> = (0..4)
        .map(|index| {
            harness.worker(&format!("worker {index}"), group.tid(index), move |me| {
                for _ in 0..rounds {
                    me.yield_now();
                    me.sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    harness.until("all exit", || workers.iter().all(Worker::exited));
    group.finish();
}

/// Workers that wait, yield, sleep and block under a storm of signals.
fn signal_storm(harness: &Arc<Harness>, flags: i32) {
    let signal = signals::unused();
    signals::count(signal, flags);
    let mut server = Server::start(harness);
    let data = Futex::default();
    // A futex wait is restarted by the kernel, or repeated by the loop of its caller.
    let blocked = harness.sleeper("blocked", server.tid(), &data);
    let (mut reader, writer) = blockers::pipe();
    let reading = harness.worker("reading", server.tid(), move |me| {
        let mut buffer = [0; 1];
        loop {
            // The system call keeps its own result: EINTR comes only without SA_RESTART.
            match me.blocking(|| reader.read(&mut buffer)) {
                Ok(count) => break assert_eq!(count, 1),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "{error}");
                    assert_eq!(flags & libc::SA_RESTART, 0, "the call was not restarted");
                }
            }
        }
    });
    let parked = harness.worker("parked", server.tid(), Me::park);
    let busy = harness.worker("busy", server.tid(), |me| {
        for _ in 0..60 {
            me.yield_now();
            me.sleep(Duration::from_millis(1));
        }
    });
    let all = [&blocked, &reading, &parked, &busy];
    let mut tids: Vec<_> = all.iter().map(|worker| worker.tid()).collect();
    tids.push(server.tid());
    let storm = Storm::on(signal, move || tids.clone());
    server.run_until("200 signals", |_| {
        signals::handled(signal) > 200 && busy.exited()
    });
    assert_eq!(
        parked.state(),
        state::RUNNABLE,
        "the worker no longer waits"
    );
    assert!(!blocked.exited() && !reading.exited());
    data.set();
    std::io::Write::write_all(&mut &writer, b"x").expect("write to the pipe");
    server.run_until_parked(&parked);
    server.ready.push_back(parked.tid());
    server.run_to_exit(&all);
    drop(storm);
    server.finish();
}

#[test]
fn signals_with_restart() {
    for_each_provider(|harness| signal_storm(harness, libc::SA_RESTART));
}

#[test]
fn signals_without_restart() {
    for_each_provider(|harness| signal_storm(harness, 0));
}

#[test]
fn a_forked_child_is_no_task() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let checked = Arc::new(AtomicBool::new(false));
        let worker = harness.worker("worker", server.tid(), {
            let checked = Arc::clone(&checked);
            move |me| {
                me.checkpoint();
                let status = forked(me);
                me.checkpoint();
                assert_eq!(status, 0, "the call with this number did not return ESRCH");
                checked.store(true, SeqCst);
                // The parent is what it was before.
                me.yield_now();
                me.sleep(Duration::from_millis(1));
            }
        });
        server.run_to_exit(&[&worker]);
        assert!(checked.load(SeqCst));
        server.finish();
    });
}

/// Forks, makes every call in the child, and returns 0 or the number of the call with a wrong
/// result.
fn forked(me: &Me) -> i32 {
    let provider = me.provider().as_ref();
    let own = NonNull::from(me.task());
    // SAFETY: the child makes only `_exit` and the calls under test, which must be safe there.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let gone = |result: Result<(), umcg_sys::Error>| {
            result.is_err_and(|error| error.errno() == libc::ESRCH)
        };
        let answers = [
            gone(provider.checkpoint()),
            gone(provider.wait(0, 0)),
            gone(provider.unregister(own)),
            gone(provider.preempt(me.task().tid())),
            gone(provider.wake(me.task().server_tid())),
            // SAFETY: the call fails.
            gone(unsafe { provider.register(own, &Register::worker()) }),
        ];
        let wrong = answers.iter().position(|&answer| !answer);
        // SAFETY: this ends the child at once.
        unsafe { libc::_exit(wrong.map_or(0, |index| index as i32 + 1)) };
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: this process's own child; the status is alive. No handler runs on this thread, so
    // there is no EINTR.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    assert!(libc::WIFEXITED(status), "the child died: {status:#x}");
    libc::WEXITSTATUS(status)
}

#[test]
fn a_forked_child_of_a_server_is_no_task() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let provider = harness.provider().as_ref();
        // SAFETY: as in `forked`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let wait = provider.wait(0, 0).is_err_and(|error| error.is_gone());
            let leave = provider.unregister(NonNull::from(server.task()));
            let leave = leave.is_err_and(|error| error.is_gone());
            // SAFETY: this ends the child at once.
            unsafe { libc::_exit(i32::from(!wait) + 2 * i32::from(!leave)) };
        }
        let mut status = 0;
        // SAFETY: this process's own child; the status is alive.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!((waited, status), (pid, 0));
        let worker = harness.worker("worker", server.tid(), |me| me.yield_now());
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn a_worker_starts_another_program() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            let output = me.blocking(|| Command::new("echo").arg("hello").output());
            let output = output.expect("run a program");
            assert!(output.status.success());
            assert_eq!(output.stdout, b"hello\n");
        });
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn exec_from_a_worker() {
    // The exec ends every thread of the process, the helper threads of the provider included.
    for provider in providers_under_test() {
        Subprocess::new(120)
            .on(&provider)
            .ends_with("exec works")
            .run(|| for_each_provider(exec));
    }

    fn exec(harness: &Arc<Harness>) {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            me.yield_now();
            let error = Command::new("echo").arg("exec works").exec();
            panic!("exec: {error}");
        });
        let other = harness.worker("other", server.tid(), |me| {
            me.sleep(Duration::from_secs(600));
        });
        server.run_to_exit(&[&worker, &other]);
    }
}

#[test]
fn exit_with_tasks_in_every_state() {
    for provider in providers_under_test() {
        Subprocess::new(120)
            .on(&provider)
            .ends_with("exits")
            .run(|| for_each_provider(exit));
    }

    fn exit(harness: &Arc<Harness>) {
        let mut server = Server::start(harness);
        let asleep = harness.worker("asleep", server.tid(), |me| {
            me.sleep(Duration::from_secs(600));
        });
        let parked = harness.worker("parked", server.tid(), Me::park);
        server.run_until("both sleep", |_| {
            asleep.state() == state::BLOCKED && parked.record().parked.load(SeqCst)
        });
        let spinner = harness.worker("spinner", server.tid(), |me| {
            me.spin_until(|| false);
        });
        server.hold(&spinner);
        harness.worker("admitted", server.tid(), |_| {});
        println!("exits");
        std::process::exit(0);
    }
}

/// A process that others stop and trace prints this line before it begins its work.
const BEGINS: &str = "the work begins";

fn print_and_work(rounds: u32) {
    println!("{BEGINS}");
    for_each_provider(move |harness| load(harness, rounds));
}

/// Waits in the first process until the work has begun in the other one.
fn wait_until_it_begins(running: &Running) {
    eventually("the process begins", || {
        running.has_printed_or_ended(BEGINS)
    });
}

#[test]
fn stop_and_continue() {
    Subprocess::new(200)
        .meanwhile(|running| {
            wait_until_it_begins(running);
            for _ in 0..10 {
                let pid = running.pid();
                // SAFETY: this process's own child, which is not reaped yet.
                unsafe { libc::kill(pid, libc::SIGSTOP) };
                eventually("the process stops", || stopped_or_gone(pid));
                // Long enough for deadlines to pass and for sleeps to end meanwhile.
                std::thread::sleep(Duration::from_millis(15));
                // SAFETY: as above.
                unsafe { libc::kill(pid, libc::SIGCONT) };
                std::thread::sleep(Duration::from_millis(10));
            }
        })
        .run(|| print_and_work(150));
}

/// Whether `/proc` says that every thread of the process is stopped, or that the process has ended.
fn stopped_or_gone(pid: i32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        matches!(state, Some('T' | 'Z' | 'X') | None)
    })
}

#[test]
fn a_tracer_sees_ordinary_threads() {
    let mut stops = 0;
    let output = Subprocess::new(200)
        .meanwhile(|running| {
            wait_until_it_begins(running);
            for _ in 0..20 {
                stops += trace_once(running.pid());
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .run(|| print_and_work(150));
    if output.is_some() && stops == 0 {
        skip!("this system lets nobody trace its own child");
    }
}

/// Attaches to every thread of the process, stops it and lets it go. Returns how many threads were
/// stopped.
fn trace_once(pid: i32) -> u32 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let tids: Vec<i32> = tasks
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect();
    let none = std::ptr::null_mut::<libc::c_void>();
    let mut stops = 0;
    for tid in tids {
        // SAFETY: requests without addresses, on threads of this process's own child. Each thread
        // that is attached to is detached.
        unsafe {
            if libc::ptrace(libc::PTRACE_SEIZE, tid, none, none) != 0 {
                continue;
            }
            libc::ptrace(libc::PTRACE_INTERRUPT, tid, none, none);
            let mut status = 0;
            if libc::waitpid(tid, &raw mut status, libc::__WALL) == tid && libc::WIFSTOPPED(status)
            {
                stops += 1;
                libc::ptrace(libc::PTRACE_DETACH, tid, none, none);
            }
        }
    }
    stops
}

/// A worker reads its standard input, as a filter would.
#[test]
fn standard_streams_are_ordinary_blockers() {
    for provider in providers_under_test() {
        Subprocess::new(120)
            .on(&provider)
            .meanwhile(|running| {
                eventually("the reader blocks", || {
                    running.has_printed_or_ended("the reader blocks")
                });
                running.write(b"hello\n");
            })
            .run(|| for_each_provider(filter));
    }

    fn filter(harness: &Arc<Harness>) {
        let mut server = Server::start(harness);
        let reader = harness.worker("reader", server.tid(), |me| {
            let mut line = String::new();
            me.blocking(|| std::io::stdin().read_line(&mut line))
                .expect("a line");
            assert_eq!(line, "hello\n");
        });
        let ticker = harness.worker("ticker", server.tid(), {
            let reader = reader.clone();
            move |me| {
                me.spin_until(|| reader.state() == state::BLOCKED);
                println!("the reader blocks");
            }
        });
        server.run_to_exit(&[&reader, &ticker]);
        server.finish();
    }
}
