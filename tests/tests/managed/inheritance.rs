//! What the scheduler does to its threads is not seen by the program: its pins, its policy and its
//! time slice stay with the workers.

use std::{
    ffi::{CStr, c_void},
    io::Read,
    mem,
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{Command, Stdio},
    ptr,
    sync::mpsc,
    thread,
};

use umcg::{Builder, Runtime};
use umcg_tests::{Subprocess, cpu, isolated, proc, runtime::runtime_with, threads};

use crate::support::managed;

/// What the kernel says about a thread, past all managed calls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thread {
    cpus: String,
    policy: i32,
    slice: u64,
}

impl Thread {
    fn current() -> Self {
        let cpus = proc::status(umcg_sys::gettid(), "Cpus_allowed_list");
        Self {
            cpus: cpus.expect("/proc"),
            policy: cpu::policy(0),
            slice: cpu::slice(),
        }
    }
}

/// Runs `body` on a worker, and asserts that the worker has its pin and its time slice afterwards.
fn on_a_worker<R: Send + 'static>(
    runtime: &Runtime,
    body: impl FnOnce() -> R + Send + 'static,
) -> R {
    let task = runtime.spawn_blocking(|| {
        let before = Thread::current();
        let result = body();
        let after = Thread::current();
        // The policy may change when another process wants the CPU, and changes back.
        assert_eq!(
            (after.cpus, after.slice),
            (before.cpus, before.slice),
            "the worker itself has changed"
        );
        result
    });
    task.join().expect("the body")
}

/// A runtime whose workers differ from ordinary threads, and what an ordinary thread is like.
/// `None`: they do not differ, or nothing hides it.
fn scene() -> Option<(Runtime, Thread)> {
    // Without other threads that could have changed the process's own.
    let ordinary = Thread::current();
    // One server, so that no other one takes the worker to another CPU.
    let runtime = runtime_with(1);
    if !managed(&runtime) {
        return None;
    }
    let worker = runtime
        .spawn_blocking(Thread::current)
        .join()
        .expect("a worker");
    // A container with one CPU, or one that permits no pins: then this tests little.
    assert_ne!(worker, ordinary, "a worker is like any thread");
    Some((runtime, ordinary))
}

#[test]
fn a_task_sees_all_cpus_of_the_process() {
    isolated(60, || {
        let (parallelism, cpus) = (
            thread::available_parallelism().expect("a number"),
            cpu::affinity(),
        );
        let Some((runtime, _)) = scene() else { return };
        let seen = on_a_worker(&runtime, || {
            let own = umcg_sys::gettid();
            let mut set = vec![0_u8; 128];
            // By its own id and not 0, and with glibc's other name for it.
            // SAFETY: a live buffer of that size.
            let result =
                unsafe { libc::sched_getaffinity(own as i32, set.len(), set.as_mut_ptr().cast()) };
            assert_eq!(result, 0);
            let by_id: Vec<_> = (0..1024)
                .filter(|cpu| set[cpu / 8] & (1 << (cpu % 8)) != 0)
                .collect();
            (
                thread::available_parallelism().expect("a number"),
                cpu::affinity(),
                by_id,
            )
        });
        assert_eq!(seen, (parallelism, cpus.clone(), cpus));
    });
}

#[test]
fn threads_that_a_task_starts_are_ordinary_ones() {
    isolated(60, || {
        let Some((runtime, ordinary)) = scene() else {
            return;
        };
        let (plain, named) = on_a_worker(&runtime, || {
            let plain = thread::spawn(Thread::current).join().expect("a thread");
            let named = thread::Builder::new()
                .name("reactor".to_owned())
                .spawn(|| {
                    (
                        Thread::current(),
                        threads::look(umcg_sys::gettid()).expect("/proc").name,
                    )
                })
                .expect("a thread")
                .join()
                .expect("its value");
            (plain, named)
        });
        assert_eq!(plain, ordinary);
        assert_eq!(named, (ordinary.clone(), "reactor".to_owned()));
        // And so are the threads of such a thread, and scoped ones.
        let (nested, scoped) = on_a_worker(&runtime, || {
            let nested = thread::spawn(|| thread::spawn(Thread::current).join().expect("a thread"));
            let scoped = thread::scope(|scope| {
                scope
                    .spawn(Thread::current)
                    .join()
                    .expect("a scoped thread")
            });
            (nested.join().expect("a thread"), scoped)
        });
        assert_eq!((nested, scoped), (ordinary.clone(), ordinary));
    });
}

/// What pthread_create was told in its attributes holds, as without a scheduler.
#[test]
fn attributes_of_a_thread_come_before_what_it_inherits() {
    extern "C" fn look(sender: *mut c_void) -> *mut c_void {
        // SAFETY: the box that the caller gave to this thread.
        let sender = unsafe { Box::from_raw(sender.cast::<mpsc::Sender<Thread>>()) };
        sender.send(Thread::current()).expect("somebody waits");
        ptr::null_mut()
    }

    /// A thread with the attributes that `set` changes.
    fn create(set: impl FnOnce(*mut libc::pthread_attr_t)) -> Thread {
        let (sender, receiver) = mpsc::channel();
        // SAFETY: initialized before its use, destroyed after it; `look` takes the box.
        unsafe {
            let mut attributes = mem::zeroed();
            libc::pthread_attr_init(&raw mut attributes);
            set(&raw mut attributes);
            let mut thread = mem::zeroed();
            let sender = Box::into_raw(Box::new(sender)).cast();
            let result = libc::pthread_create(&raw mut thread, &raw const attributes, look, sender);
            assert_eq!(result, 0, "pthread_create");
            libc::pthread_attr_destroy(&raw mut attributes);
            assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
        }
        receiver.recv().expect("what it saw")
    }

    isolated(60, || {
        let Some((runtime, ordinary)) = scene() else {
            return;
        };
        // The last CPU, as an application would choose one.
        let last = *cpu::affinity().last().expect("a CPU");
        let (neither, pinned, explicit) = on_a_worker(&runtime, move || {
            let neither = create(|attributes| {
                // SAFETY: initialized attributes.
                unsafe { libc::pthread_attr_setstacksize(attributes, 1 << 20) };
            });
            let pinned = create(|attributes| {
                // SAFETY: a set of that size, and initialized attributes.
                unsafe {
                    let mut set: libc::cpu_set_t = mem::zeroed();
                    libc::CPU_SET(last, &mut set);
                    libc::pthread_attr_setaffinity_np(
                        attributes,
                        size_of_val(&set),
                        &raw const set,
                    );
                }
            });
            let explicit = create(|attributes| {
                // SAFETY: initialized attributes.
                unsafe {
                    libc::pthread_attr_setschedpolicy(attributes, libc::SCHED_OTHER);
                    libc::pthread_attr_setinheritsched(attributes, libc::PTHREAD_EXPLICIT_SCHED);
                }
            });
            (neither, pinned, explicit)
        });
        assert_eq!(neither, ordinary);
        assert_eq!(
            (pinned.cpus, pinned.policy, pinned.slice),
            (last.to_string(), ordinary.policy, ordinary.slice)
        );
        assert_eq!(
            (explicit.cpus, explicit.policy),
            (ordinary.cpus, libc::SCHED_OTHER)
        );
    });
}

/// Starts a program with these arguments, and returns what it printed.
type Start = fn(&[&CStr]) -> String;

/// Ways to start a program.
const WAYS: [(&str, Start); 7] = [
    ("Command", by_command),
    ("Command with a hook", by_command_with_hook),
    ("posix_spawn", |arguments| by_posix_spawn(arguments, false)),
    ("posix_spawnp", |arguments| by_posix_spawn(arguments, true)),
    ("fork and execv", |arguments| {
        by_fork(arguments, |a| {
            // SAFETY: C strings and a list of them that ends with null.
            unsafe { libc::execv(*a, a) }
        })
    }),
    ("fork and execvp", |arguments| {
        by_fork(arguments, |a| {
            // SAFETY: as above.
            unsafe { libc::execvp(*a, a) }
        })
    }),
    ("vfork and execve", by_vfork),
];

/// What a child prints: its CPUs, and its policy, which is the 41st field of `stat`.
const SCRIPT: &CStr = c"nproc; sed -n 's/Cpus_allowed_list:\\s*//p' /proc/self/status; \
    sed 's/.*) //' /proc/$$/stat | cut -d' ' -f39";

#[test]
fn programs_that_a_task_starts_are_ordinary_ones() {
    isolated(60, || {
        let arguments = [c"/bin/sh", c"-c", SCRIPT];
        let expected = by_command(&arguments);
        assert_eq!(expected.lines().count(), 3, "{expected}");
        let Some((runtime, ordinary)) = scene() else {
            return;
        };
        assert!(expected.contains(&ordinary.cpus), "{expected}");
        for (name, start) in WAYS {
            let printed = on_a_worker(&runtime, move || start(&arguments));
            assert_eq!(printed, expected, "{name}");
        }
    });
}

fn by_command(arguments: &[&CStr]) -> String {
    output(&mut command(arguments))
}

fn by_command_with_hook(arguments: &[&CStr]) -> String {
    let mut command = command(arguments);
    // SAFETY: it does nothing.
    unsafe { command.pre_exec(|| Ok(())) };
    output(&mut command)
}

fn command(arguments: &[&CStr]) -> Command {
    let text = |argument: &CStr| argument.to_str().expect("UTF-8").to_owned();
    let mut command = Command::new(text(arguments[0]));
    command.args(arguments[1..].iter().map(|argument| text(argument)));
    command
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("a child");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The arguments as C has them.
fn list(arguments: &[&CStr]) -> Vec<*const libc::c_char> {
    let mut list: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    list.push(ptr::null());
    list
}

/// A pipe whose second end becomes the child's output.
fn piped(start: impl FnOnce(i32) -> libc::pid_t) -> String {
    let (mut reader, writer) = umcg_tests::blockers::pipe();
    let pid = start(writer.as_raw_fd());
    assert!(pid > 0, "no child: {pid}");
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("its output");
    let mut status = 0;
    // SAFETY: our child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "{text}");
    text
}

fn by_posix_spawn(arguments: &[&CStr], search: bool) -> String {
    let list = list(arguments);
    piped(|output| {
        let mut pid = 0;
        // SAFETY: initialized actions; lists of C strings that end with null.
        unsafe {
            let mut actions = mem::zeroed();
            libc::posix_spawn_file_actions_init(&raw mut actions);
            libc::posix_spawn_file_actions_adddup2(&raw mut actions, output, 1);
            let spawn = if search {
                libc::posix_spawnp
            } else {
                libc::posix_spawn
            };
            let (argv, environ) = (list.as_ptr().cast(), environment());
            let result = spawn(
                &raw mut pid,
                list[0],
                &raw const actions,
                ptr::null(),
                argv,
                environ,
            );
            assert_eq!(result, 0);
            libc::posix_spawn_file_actions_destroy(&raw mut actions);
        }
        pid
    })
}

fn environment() -> *const *mut libc::c_char {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: libc's; nobody changes it in these tests.
    unsafe { environ }
}

fn by_fork(arguments: &[&CStr], exec: fn(*const *const libc::c_char) -> i32) -> String {
    let list = list(arguments);
    piped(|output| {
        // SAFETY: the child makes system calls only, on memory that exists.
        unsafe {
            match libc::fork() {
                0 => {
                    libc::dup2(output, 1);
                    exec(list.as_ptr());
                    libc::_exit(127)
                }
                pid => pid,
            }
        }
    })
}

/// What the child of [`by_vfork`] needs.
struct Exec {
    output: i32,
    arguments: *const *const libc::c_char,
}

/// As `vfork`: the child shares the memory of the worker, which waits until it has called `exec`.
fn by_vfork(arguments: &[&CStr]) -> String {
    extern "C" fn child(exec: *mut c_void) -> i32 {
        // SAFETY: the parent waits meanwhile; system calls only.
        unsafe {
            let exec = &*exec.cast::<Exec>();
            libc::dup2(exec.output, 1);
            libc::execve(*exec.arguments, exec.arguments, environment().cast());
            libc::_exit(127)
        }
    }

    let list = list(arguments);
    let mut stack = vec![0_u8; 64 << 10];
    piped(|output| {
        let exec = Exec {
            output,
            arguments: list.as_ptr(),
        };
        // SAFETY: a stack of its own, of which this is the upper end, and it outlives the child's
        // use.
        unsafe {
            libc::clone(
                child,
                stack
                    .as_mut_ptr_range()
                    .end
                    .map_addr(|end| end & !15)
                    .cast(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                (&raw const exec).cast_mut().cast(),
            )
        }
    })
}

/// `execve` without a fork: the program replaces the whole process, from a worker.
#[test]
fn a_program_that_replaces_the_process_is_an_ordinary_one() {
    isolated(60, || {
        let ordinary = Thread::current();
        // The child of this process does that, so that the test goes on.
        let expected = by_command(&[c"/bin/sh", c"-c", SCRIPT]);
        // SAFETY: the child has one thread, and starts a runtime of its own; no other thread of
        // this process has a lock by now.
        let printed = piped(|output| match unsafe { libc::fork() } {
            0 => {
                let runtime = Builder::new().servers(1).build().expect("a runtime");
                let task = runtime.spawn_blocking(move || {
                    // SAFETY: a descriptor of this process.
                    unsafe { libc::dup2(output, 1) };
                    let error = command(&[c"/bin/sh", c"-c", SCRIPT]).exec();
                    panic!("exec: {error}");
                });
                let _ = task.join();
                // SAFETY: it failed.
                unsafe { libc::_exit(1) }
            }
            pid => pid,
        });
        let runtime = runtime_with(1);
        if managed(&runtime) {
            assert_eq!(printed, expected);
            assert!(printed.contains(&ordinary.cpus));
        }
    });
}

/// A runtime that is built inside of a task is like one that is built outside.
#[test]
fn a_runtime_in_a_task_has_as_many_servers_and_may_use_all_cpus() {
    let alone = Subprocess::new(60).setup(|command| {
        // The default number is what is compared.
        command.env_remove("UMCG_SERVERS");
    });
    alone.run(|| {
        let outside = Runtime::new().expect("a runtime");
        if !managed(&outside) {
            return;
        }
        let servers = outside.metrics().num_servers();
        let mut cpus: Vec<_> = cpus_of(&outside);
        drop(outside);
        let Some((runtime, ordinary)) = scene() else {
            return;
        };
        let (inside, mut inner_cpus, child) = on_a_worker(&runtime, || {
            let inner = Builder::new()
                .thread_name("inner")
                .build()
                .expect("a runtime");
            let child = inner
                .spawn_blocking(|| thread::spawn(Thread::current).join().expect("a thread"))
                .join()
                .expect("a task of the inner runtime");
            (inner.metrics().num_servers(), cpus_of(&inner), child)
        });
        cpus.sort_unstable();
        inner_cpus.sort_unstable();
        assert_eq!((inside, inner_cpus), (servers, cpus));
        assert_eq!(child, ordinary);
    });
}

fn cpus_of(runtime: &Runtime) -> Vec<Option<usize>> {
    let metrics = runtime.metrics();
    metrics
        .servers()
        .iter()
        .map(umcg::ServerMetrics::cpu)
        .collect()
}
