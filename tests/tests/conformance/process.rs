//! What happens around a process: signals, fork, exec, stop and continue, a tracer.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg_sys::{Register, state};
use umcg_tests::{
    Fleet, Me, Server, Stage, Worker,
    blockers::{self, Futex},
    child, on_each, proc, subjects,
};

/// Some of everything on two servers, until `stop` or for that many rounds.
fn load(stage: &Arc<Stage>, rounds: u32) {
    let fleet = Fleet::start(stage, 2);
    let workers: Vec<_> = (0..4)
        .map(|index| {
            stage.worker(&format!("worker {index}"), fleet.tid(index), move |me| {
                for _ in 0..rounds {
                    me.yield_now();
                    me.sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    stage.until("all exit", || workers.iter().all(Worker::exited));
    fleet.finish();
}

/// Sends signals to these threads until dropped.
struct Storm {
    stop: Arc<AtomicBool>,
}

impl Storm {
    fn start(stage: &Arc<Stage>, signal: i32, tids: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        stage.thread("storm", {
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(SeqCst) {
                    for &tid in &tids {
                        proc::signal(tid, signal);
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        Self { stop }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// Workers that wait, yield, sleep and block under a storm of signals. A signal of its own for
/// each set of flags: a handler is the whole process's, and tests run side by side.
fn signal_storm(stage: &Arc<Stage>, signal: i32, flags: i32) {
    proc::count_signals(signal, flags);
    let mut server = Server::start(stage);
    let data = Futex::default();
    // A futex wait is restarted, or it is not and the caller's loop repeats it.
    let blocked = stage.worker("blocked", server.tid(), {
        let data = data.clone();
        move |me| me.blocking(|| data.wait())
    });
    let (mut reader, writer) = blockers::pipe();
    let reading = stage.worker("reading", server.tid(), move |me| {
        let mut buffer = [0; 1];
        loop {
            // The result of the system call is its own: EINTR only without SA_RESTART.
            match me.blocking(|| reader.read(&mut buffer)) {
                Ok(count) => break assert_eq!(count, 1),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "{error}");
                    assert_eq!(flags & libc::SA_RESTART, 0, "it was to be restarted");
                }
            }
        }
    });
    let parked = stage.worker("parked", server.tid(), Me::park);
    let busy = stage.worker("busy", server.tid(), |me| {
        for _ in 0..60 {
            me.yield_now();
            me.sleep(Duration::from_millis(1));
        }
    });
    let all = [&blocked, &reading, &parked, &busy];
    let mut tids: Vec<_> = all.iter().map(|worker| worker.tid()).collect();
    tids.push(server.tid());
    let storm = Storm::start(stage, signal, tids);
    let before = proc::signals();
    server.run_until("the storm was there", |_| {
        proc::signals() > before + 200 && busy.exited()
    });
    assert_eq!(parked.state(), state::RUNNABLE, "it waits all the same");
    assert!(!blocked.exited() && !reading.exited());
    data.set();
    std::io::Write::write_all(&mut &writer, b"x").expect("write to the pipe");
    server.run_until("the parked one", |_| parked.unpark());
    server.ready.push_back(parked.tid());
    server.run_to_exit(&all);
    drop(storm);
    server.finish();
}

#[test]
fn signals_with_restart() {
    on_each(|stage| signal_storm(stage, libc::SIGUSR1, libc::SA_RESTART));
}

#[test]
fn signals_without_restart() {
    on_each(|stage| signal_storm(stage, libc::SIGUSR2, 0));
}

#[test]
fn a_forked_child_is_no_task() {
    on_each(|stage| {
        let mut server = Server::start(stage);
        let checked = Arc::new(AtomicBool::new(false));
        let worker = stage.worker("worker", server.tid(), {
            let checked = Arc::clone(&checked);
            move |me| {
                me.checkpoint();
                let status = forked(me);
                me.checkpoint();
                assert_eq!(status, 0, "the call of that number did not say ESRCH");
                checked.store(true, SeqCst);
                // The parent is what it was.
                me.yield_now();
                me.sleep(Duration::from_millis(1));
            }
        });
        server.run_to_exit(&[&worker]);
        assert!(checked.load(SeqCst));
        server.finish();
    });
}

/// Forks, makes every call in the child, and returns 0 or the number of the wrong one.
fn forked(me: &Me) -> i32 {
    let provider = me.provider().as_ref();
    let own = NonNull::from(me.task());
    // SAFETY: the child makes only the calls that are tested, which must be safe there, and
    // _exit.
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
            // SAFETY: the call fails.
            gone(unsafe { provider.register(own, &Register::worker()) }),
        ];
        let wrong = answers.iter().position(|&answer| !answer);
        // SAFETY: leaves the child at once.
        unsafe { libc::_exit(wrong.map_or(0, |index| index as i32 + 1)) };
    }
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the own child; the status is alive. EINTR does not occur: no handler runs here.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    assert!(libc::WIFEXITED(status), "the child died: {status:#x}");
    libc::WEXITSTATUS(status)
}

#[test]
fn a_forked_child_of_a_server_is_no_task() {
    on_each(|stage| {
        let mut server = Server::start(stage);
        let provider = stage.provider().as_ref();
        // SAFETY: as in `forked`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let wait = provider.wait(0, 0).is_err_and(|error| error.is_gone());
            let leave = provider.unregister(NonNull::from(server.task()));
            let leave = leave.is_err_and(|error| error.is_gone());
            // SAFETY: leaves the child at once.
            unsafe { libc::_exit(i32::from(!wait) + 2 * i32::from(!leave)) };
        }
        let mut status = 0;
        // SAFETY: the own child; the status is alive.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!((waited, status), (pid, 0));
        let worker = stage.worker("worker", server.tid(), |me| me.yield_now());
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn a_worker_starts_another_program() {
    on_each(|stage| {
        let mut server = Server::start(stage);
        let worker = stage.worker("worker", server.tid(), |me| {
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
    const NAME: &str = "process::exec_from_a_worker";
    if child::is_child("exec") {
        // Every thread of this process ends in the exec, helpers included.
        use std::os::unix::process::CommandExt;
        on_each(|stage| {
            let mut server = Server::start(stage);
            let worker = stage.worker("worker", server.tid(), |me| {
                me.yield_now();
                let error = Command::new("echo").arg("exec works").exec();
                panic!("exec: {error}");
            });
            let other = stage.worker("other", server.tid(), |me| {
                me.sleep(Duration::from_secs(600));
            });
            server.run_to_exit(&[&worker, &other]);
        });
        return;
    }
    for subject in subjects() {
        let child = child::start_on(&subject, NAME, "exec");
        let output = child::assert_success(child);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("exec works"), "{text}");
    }
}

#[test]
fn exit_with_tasks_in_every_state() {
    const NAME: &str = "process::exit_with_tasks_in_every_state";
    if child::is_child("exit") {
        on_each(|stage| {
            let mut server = Server::start(stage);
            let asleep = stage.worker("asleep", server.tid(), |me| {
                me.sleep(Duration::from_secs(600));
            });
            let parked = stage.worker("parked", server.tid(), Me::park);
            server.run_until("both sleep", |_| {
                asleep.state() == state::BLOCKED && parked.record().parked.load(SeqCst)
            });
            let spinner = stage.worker("spinner", server.tid(), |me| {
                me.spin_until(|| false);
            });
            server.hold(&spinner);
            stage.worker("admitted", server.tid(), |_| {});
            println!("leaves");
            std::process::exit(0);
        });
        return;
    }
    for subject in subjects() {
        let child = child::start_on(&subject, NAME, "exit");
        let output = child::assert_success(child);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("leaves"), "{text}");
    }
}

#[test]
fn stop_and_continue() {
    const NAME: &str = "process::stop_and_continue";
    if child::is_child("stop") {
        println!("ready");
        on_each(|stage| load(stage, 150));
        return;
    }
    let mut child = child::start(NAME, "stop");
    let pid = child.id() as i32;
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(output.read_line(&mut line).expect("its output"), 0);
    }
    for _ in 0..10 {
        // SAFETY: the own child, which is not reaped yet.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
        let end = Instant::now() + Duration::from_secs(20);
        while !stopped_or_gone(pid) {
            assert!(Instant::now() < end, "the child does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Long enough for deadlines to pass and for sleeps to end meanwhile.
        std::thread::sleep(Duration::from_millis(15));
        // SAFETY: as above.
        unsafe { libc::kill(pid, libc::SIGCONT) };
        std::thread::sleep(Duration::from_millis(10));
    }
    std::io::copy(&mut output, &mut std::io::sink()).expect("its output");
    child::assert_success(child);
}

/// By `/proc`: every thread of that process is stopped, or it has ended.
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
    const NAME: &str = "process::a_tracer_sees_ordinary_threads";
    if child::is_child("traced") {
        println!("ready");
        on_each(|stage| load(stage, 150));
        return;
    }
    let mut child = child::start(NAME, "traced");
    let pid = child.id() as i32;
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(output.read_line(&mut line).expect("its output"), 0);
    }
    let mut stops = 0;
    for _ in 0..20 {
        stops += trace_once(pid);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::io::copy(&mut output, &mut std::io::sink()).expect("its output");
    child::assert_success(child);
    if stops == 0 {
        umcg_tests::skip!("this system lets nobody trace its own child");
    }
}

/// Attaches to every thread of the process, stops it, and lets it go. How many were stopped.
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
        // SAFETY: requests without addresses on a thread of the own child; each one that is
        // attached is detached.
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

#[test]
fn standard_streams_are_ordinary_blockers() {
    // A worker that reads its standard input, as a filter would.
    const NAME: &str = "process::standard_streams_are_ordinary_blockers";
    if child::is_child("stdin") {
        on_each(|stage| {
            let mut server = Server::start(stage);
            let ticks = Arc::new(AtomicBool::new(false));
            let reader = stage.worker("reader", server.tid(), |me| {
                let mut line = String::new();
                me.blocking(|| std::io::stdin().read_line(&mut line))
                    .expect("a line");
                assert_eq!(line, "hello\n");
            });
            let ticker = stage.worker("ticker", server.tid(), {
                let (ticks, reader) = (Arc::clone(&ticks), reader.clone());
                move |me| {
                    me.spin_until(|| reader.state() == state::BLOCKED || reader.reached(1));
                    ticks.store(true, SeqCst);
                    println!("reader blocks");
                }
            });
            server.run_to_exit(&[&reader, &ticker]);
            server.finish();
            assert!(ticks.load(SeqCst));
        });
        return;
    }
    let mut command = child::command(NAME, "stdin");
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the child");
    let mut input = child.stdin.take().expect("its input");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    loop {
        line.clear();
        if output.read_line(&mut line).expect("its output") == 0 {
            break;
        }
        if line.contains("reader blocks") {
            std::io::Write::write_all(&mut input, b"hello\n").expect("its input");
        }
    }
    child::assert_success(child);
}
