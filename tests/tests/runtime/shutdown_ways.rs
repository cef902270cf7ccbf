//! The three ways to end a runtime, with tasks in every state.

use std::{
    future::pending,
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use umcg::{Builder, Runtime};

use crate::common::{SERVERS, eventually, pipe, threads, within};

const LIMIT: Duration = Duration::from_secs(30);

/// Notes the thread on which it is dropped.
struct Witness(Arc<Mutex<Vec<String>>>);

impl Drop for Witness {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        self.0.lock().unwrap().push(name);
    }
}

fn blocked_for_ever(runtime: &Runtime) -> UnixStream {
    let (mut read, write) = pipe();
    let (tell, told) = mpsc::channel();
    drop(runtime.spawn_blocking(move || block_on_read(&mut read, &tell)));
    told.recv().unwrap();
    write
}

fn block_on_read(read: &mut UnixStream, tell: &mpsc::Sender<()>) {
    tell.send(()).unwrap();
    let _ = read.read(&mut [0]);
}

#[test]
fn drop_waits_for_what_runs_and_cancels_the_rest() {
    for servers in SERVERS {
        within(LIMIT, "drop", move || {
            let name = format!("drop{servers}");
            let runtime = Builder::new()
                .servers(servers)
                .max_workers(servers)
                .thread_name(&name)
                .build()
                .unwrap();
            let dropped_on = Arc::new(Mutex::new(Vec::new()));
            let suspended: Vec<_> = (0..20)
                .map(|_| {
                    let witness = Witness(Arc::clone(&dropped_on));
                    runtime.spawn(async move {
                        let _witness = witness;
                        pending::<()>().await;
                    })
                })
                .collect();
            let metrics = runtime.handle().clone();
            eventually("all are suspended", || metrics.metrics().suspended == 20);
            let done = Arc::new(AtomicUsize::new(0));
            let (tell, told) = mpsc::channel();
            let running: Vec<_> = (0..servers)
                .map(|_| {
                    let (done, tell) = (Arc::clone(&done), tell.clone());
                    runtime.spawn_blocking(move || {
                        tell.send(()).unwrap();
                        std::thread::sleep(Duration::from_millis(100));
                        done.fetch_add(1, SeqCst);
                    })
                })
                .collect();
            for _ in 0..servers {
                told.recv().unwrap();
            }
            // The cap is reached and all workers are busy: these stay queued.
            let queued: Vec<_> = (0..20)
                .map(|_| {
                    let witness = Witness(Arc::clone(&dropped_on));
                    runtime.spawn_blocking(move || drop(witness))
                })
                .collect();
            drop(runtime);
            assert_eq!(done.load(SeqCst), servers, "running ones were waited for");
            for task in running {
                task.join().unwrap();
            }
            for task in suspended.into_iter().chain(queued) {
                assert!(task.join().unwrap_err().is_cancelled());
            }
            let dropped_on = dropped_on.lock().unwrap();
            assert_eq!(dropped_on.len(), 40);
            assert!(
                !dropped_on.iter().any(|name| name.contains("-s")),
                "no server runs a destructor: {dropped_on:?}"
            );
            // The kernel wakes whoever joins a thread just before it takes it off its list.
            eventually("no thread is left", || threads(&name).is_empty());
        });
    }
}

#[test]
fn timeout_leaves_behind_what_is_blocked_for_ever_and_it_ends_later() {
    for servers in SERVERS {
        within(LIMIT, "shutdown_timeout", move || {
            let name = format!("time{servers}");
            let runtime = Builder::new()
                .servers(servers)
                .thread_name(&name)
                .build()
                .unwrap();
            let writers: Vec<_> = (0..10).map(|_| blocked_for_ever(&runtime)).collect();
            let start = Instant::now();
            runtime.shutdown_timeout(Duration::from_millis(100));
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(100), "{took:?}");
            // Servers go, and workers that have nothing on their stack.
            eventually("only blocked ones are left", || threads(&name).len() <= 10);
            drop(writers);
            eventually("late ones end", || threads(&name).is_empty());
        });
    }
}

#[test]
fn timeout_is_not_used_up_when_nothing_runs() {
    within(LIMIT, "shutdown_timeout", || {
        let runtime = Runtime::new().unwrap();
        drop(runtime.spawn(pending::<()>()));
        let start = Instant::now();
        runtime.shutdown_timeout(Duration::from_secs(20));
        assert!(start.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn background_returns_at_once_and_the_threads_end_when_they_can() {
    for servers in SERVERS {
        within(LIMIT, "shutdown_background", move || {
            let name = format!("back{servers}");
            let runtime = Builder::new()
                .servers(servers)
                .thread_name(&name)
                .build()
                .unwrap();
            let writers: Vec<_> = (0..10).map(|_| blocked_for_ever(&runtime)).collect();
            let task = runtime.spawn(pending::<()>());
            runtime.shutdown_background();
            assert!(task.join().unwrap_err().is_cancelled());
            eventually("only blocked ones are left", || threads(&name).len() <= 10);
            drop(writers);
            eventually("late ones end", || threads(&name).is_empty());
        });
    }
}

#[test]
fn a_runtime_dropped_on_its_own_worker_does_not_wait_for_itself() {
    for servers in SERVERS {
        within(LIMIT, "drop in a task", move || {
            let name = format!("self{servers}");
            let runtime = Builder::new()
                .servers(servers)
                .thread_name(&name)
                .build()
                .unwrap();
            let handle = runtime.handle().clone();
            let after = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&after);
            drop(handle.spawn_blocking(move || {
                drop(runtime);
                seen.store(true, SeqCst);
            }));
            eventually("the task goes on after the drop", || after.load(SeqCst));
            eventually("its threads end", || threads(&name).is_empty());
            let late = handle.spawn(async {});
            assert!(late.join().unwrap_err().is_cancelled());
        });
    }
}

#[test]
fn tasks_that_are_spawned_while_it_ends_are_cancelled_not_lost() {
    for _ in 0..50 {
        within(LIMIT, "spawning into a shutdown", || {
            let runtime = Builder::new().servers(2).build().unwrap();
            let handle = runtime.handle().clone();
            let spawner = std::thread::spawn(move || {
                let mut tasks = Vec::new();
                while tasks.len() < 2_000 && handle.try_spawn(async {}).is_ok() {
                    tasks.push(handle.spawn_blocking(std::thread::yield_now));
                }
                for task in tasks {
                    // Ran, or was cancelled; a join that hangs is the failure.
                    let _ = task.join();
                }
            });
            drop(runtime);
            spawner.join().unwrap();
        });
    }
}

#[test]
fn destructors_may_spawn_while_the_runtime_ends() {
    struct Spawner(umcg::Handle, Arc<AtomicUsize>);
    impl Drop for Spawner {
        fn drop(&mut self) {
            let cancelled = self.0.spawn(async {}).join().unwrap_err().is_cancelled();
            self.1.fetch_add(usize::from(cancelled), SeqCst);
        }
    }
    within(LIMIT, "spawning destructors", || {
        let runtime = Builder::new().servers(2).build().unwrap();
        let cancelled = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let spawner = Spawner(runtime.handle().clone(), Arc::clone(&cancelled));
            drop(runtime.spawn(async move {
                let _spawner = spawner;
                pending::<()>().await;
            }));
        }
        let handle = runtime.handle().clone();
        eventually("all are suspended", || handle.metrics().suspended == 10);
        drop(runtime);
        assert_eq!(cancelled.load(SeqCst), 10);
    });
}

#[test]
fn joins_of_cancelled_tasks_return_on_workers_too() {
    within(LIMIT, "join at the end", || {
        let runtime = Builder::new().servers(1).build().unwrap();
        let never = runtime.spawn(pending::<()>());
        let (tell, told) = mpsc::channel();
        let joiner = runtime.spawn_blocking(move || {
            tell.send(()).unwrap();
            never.join().unwrap_err().is_cancelled()
        });
        told.recv().unwrap();
        drop(runtime);
        assert!(joiner.join().unwrap());
    });
}

#[test]
fn many_short_lives() {
    for servers in SERVERS {
        within(
            Duration::from_secs(60),
            "building and dropping",
            move || {
                for round in 0..40 {
                    let runtime = Builder::new().servers(servers).build().unwrap();
                    for _ in 0..round {
                        drop(runtime.spawn_blocking(|| {
                            std::thread::sleep(Duration::from_micros(200));
                        }));
                    }
                    match round % 3 {
                        0 => drop(runtime),
                        1 => runtime.shutdown_background(),
                        _ => runtime.shutdown_timeout(Duration::from_millis(1)),
                    }
                }
            },
        );
    }
}
