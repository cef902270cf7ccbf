//! `fork` in a worker: the child has no scheduler, and all calls work in it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use umcg_tests::{
    blockers, isolated,
    runtime::{SERVERS, runtime_with},
};

use crate::support::{receive, yield_cpu};

/// What the child of a `fork` does: calls of each family, as a program of C would make them. It
/// does not allocate. Returns the number of the first step that failed.
fn calls_in_child(pipe: i32, socket: &UnixStream) -> i32 {
    let mut byte = 0_u8;
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    // SAFETY: descriptors and objects of this process, all alive.
    unsafe {
        if libc::read(pipe, (&raw mut byte).cast(), 1) != 1 || byte != b'p' {
            return 1;
        }
        if receive(socket).ok() != Some(b's') {
            return 2;
        }
        if libc::nanosleep(&raw const time, std::ptr::null_mut()) != 0 {
            return 3;
        }
        if libc::sched_yield() != 0 || libc::usleep(1000) != 0 {
            return 4;
        }
        let mut mutex = libc::PTHREAD_MUTEX_INITIALIZER;
        let mut condition = libc::PTHREAD_COND_INITIALIZER;
        let until = libc::timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        libc::pthread_mutex_lock(&raw mut mutex);
        // The time is long ago.
        let waited =
            libc::pthread_cond_timedwait(&raw mut condition, &raw mut mutex, &raw const until);
        if waited != libc::ETIMEDOUT || libc::pthread_mutex_unlock(&raw mut mutex) != 0 {
            return 5;
        }
        let word = 7_u32;
        let futex = libc::syscall(
            libc::SYS_futex,
            &raw const word,
            libc::FUTEX_WAIT,
            7,
            &raw const time,
        );
        if futex != -1 || *libc::__errno_location() != libc::ETIMEDOUT {
            return 6;
        }
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) != 0 {
            return 7;
        }
        // A child of the child, which sleeps as well.
        let pid = libc::fork();
        if pid == 0 {
            libc::usleep(2000);
            libc::_exit(3);
        }
        let mut status = 0;
        if libc::waitpid(pid, &raw mut status, 0) != pid || libc::WEXITSTATUS(status) != 3 {
            return 8;
        }
    }
    0
}

/// While others compute, sleep, and wait for the slot: what the child inherits says that there is
/// something to run.
#[test]
fn the_child_of_a_fork_in_a_worker_makes_all_calls() {
    isolated(120, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let stop = Arc::new(AtomicBool::new(false));
            let others: Vec<_> = (0..6)
                .map(|me| {
                    let stop = Arc::clone(&stop);
                    runtime.spawn_blocking(move || {
                        while !stop.load(SeqCst) {
                            if me % 2 == 0 {
                                thread::sleep(Duration::from_micros(200));
                            } else {
                                yield_cpu();
                                umcg::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            let forks: Vec<_> = (0..20)
                .map(|_| {
                    runtime.spawn_blocking(|| {
                        // Queued tasks, which the child must not run.
                        let queued: Vec<_> =
                            (0..3).map(|k| umcg::spawn_blocking(move || k)).collect();
                        fork_and_wait();
                        for (k, task) in queued.into_iter().enumerate() {
                            assert_eq!(task.join().expect("it is run once"), k);
                        }
                    })
                })
                .collect();
            for fork in forks {
                fork.join().expect("the child");
            }
            stop.store(true, SeqCst);
            for other in others {
                other.join().expect("it ends");
            }
            let metrics = runtime.metrics();
            assert_eq!(
                metrics.completed_tasks_count(),
                metrics.spawned_tasks_count()
            );
        }
    });
}

fn fork_and_wait() {
    use std::os::fd::AsRawFd;

    let (reader, mut writer) = blockers::pipe();
    let (here, mut there) = UnixStream::pair().expect("a socket pair");
    let pid = crate::support::fork(|| {
        let failed = calls_in_child(reader.as_raw_fd(), &here);
        // SAFETY: at the end of the child.
        unsafe { libc::_exit(failed) }
    });
    // The child sleeps in its calls meanwhile.
    thread::sleep(Duration::from_millis(2));
    writer.write_all(b"p").expect("the child reads");
    thread::sleep(Duration::from_millis(1));
    there.write_all(b"s").expect("the child receives");
    let mut status = 0;
    // SAFETY: our child, and a place for its status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "{status:x}");
    assert_eq!(
        libc::WEXITSTATUS(status),
        0,
        "the step of the child that failed"
    );
}

/// `exit`, which runs what libc has to do at the end of a process.
#[test]
fn the_child_of_a_fork_in_a_worker_may_exit() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let task = runtime.spawn_blocking(|| {
                let (mut reader, writer) = blockers::pipe();
                let queued = umcg::spawn_blocking(|| 7);
                let pid = crate::support::fork(|| {
                    // SAFETY: sleeps, and ends the process.
                    unsafe {
                        libc::usleep(1000);
                        libc::exit(9)
                    }
                });
                drop(writer);
                // Ends when the child is gone.
                assert_eq!(reader.read(&mut [0]).expect("a read"), 0);
                let mut status = 0;
                // SAFETY: our child, and a place for its status.
                assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
                assert_eq!(
                    (libc::WIFEXITED(status), libc::WEXITSTATUS(status)),
                    (true, 9)
                );
                queued.join().expect("it runs")
            });
            assert_eq!(task.join().expect("the parent goes on"), 7);
        }
    });
}
