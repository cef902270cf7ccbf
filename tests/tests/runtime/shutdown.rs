//! The ways to end a runtime, with tasks in every state.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Runtime, ThreadPool};
use umcg_tests::{
    BlockerGate, eventually, isolated,
    runtime::{SERVERS, block_tasks, default_runtime, join_all, run_mixed_tasks, runtime_with},
    threads,
};

/// A way to end a runtime, and its name.
type End = (&'static str, fn(Runtime));

const ENDS: [End; 3] = [
    ("drop", drop),
    ("shutdown_timeout", |runtime| {
        runtime.shutdown_timeout(Duration::from_millis(100));
    }),
    ("shutdown_background", Runtime::shutdown_background),
];

/// The names of the threads on which [`Noted`] values were dropped.
#[derive(Clone, Default)]
struct Drops(Arc<Mutex<Vec<String>>>);

/// A value whose drop is noted.
struct Noted(Drops);

impl Drop for Noted {
    fn drop(&mut self) {
        let name = thread::current().name().unwrap_or("?").to_owned();
        self.0.0.lock().unwrap().push(name);
    }
}

impl Drops {
    fn note(&self) -> Noted {
        Noted(self.clone())
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Asserts that this many values were dropped, and that no server ran one of their destructors.
    fn check(&self, count: usize) {
        let names = self.0.lock().unwrap();
        assert_eq!(names.len(), count);
        assert!(
            !names.iter().any(|name| threads::is_server(name)),
            "a server ran a destructor: {names:?}"
        );
    }
}

/// Ends the runtime on a thread of its own. Returns when the end is over or can go no further.
fn begin_to_end(runtime: Runtime, end: fn(Runtime)) -> thread::JoinHandle<()> {
    threads::spawn_until_at_rest("the end of the runtime", move || end(runtime))
}

/// The workers that are blocked are left behind. The servers and all other workers end, and the
/// blocked ones end when they unblock.
#[test]
fn blocked_workers_are_left_behind_and_end_later() {
    isolated(60, || {
        for (name, end) in &ENDS[1..] {
            for servers in SERVERS {
                let runtime = Builder::new()
                    .servers(servers)
                    .thread_name("ends")
                    .build()
                    .unwrap();
                let (gate, blocked) = block_tasks(&runtime, 10);
                let suspended = runtime.spawn(pending::<()>());
                let begun = Instant::now();
                end(runtime);
                let took = begun.elapsed();
                assert!(took < Duration::from_secs(5), "{name} took {took:?}");
                if *name == "shutdown_timeout" {
                    assert!(took >= Duration::from_millis(100), "{name} took {took:?}");
                }
                assert!(suspended.join().unwrap_err().is_cancelled());
                eventually("only the blocked workers are left", || {
                    threads::named("ends") <= 10
                });
                assert_eq!(gate.waiting(), 10);
                gate.open();
                // A task that has begun runs to its end.
                join_all(blocked);
                eventually("the blocked workers end", || threads::named("ends") == 0);
            }
        }
    });
}

#[test]
fn shutdown_timeout_returns_as_soon_as_nothing_runs() {
    isolated(60, || {
        let runtime = default_runtime();
        run_mixed_tasks(&runtime, 40);
        drop(runtime.spawn(pending::<()>()));
        let begun = Instant::now();
        runtime.shutdown_timeout(Duration::from_secs(30));
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

/// The call may come at any moment of the server's loop, also between two looks at its queues.
#[test]
fn servers_end_at_once_whatever_is_blocked() {
    isolated(110, || {
        let spins = |n: usize| (0..n).for_each(|_| std::hint::spin_loop());
        for round in 0..400 {
            let runtime = runtime_with(1);
            let (gate, handles) = block_tasks(&runtime, 1);
            let short = runtime.spawn(async {});
            short.join().expect("it runs");
            // The server is about to go to sleep.
            drop(runtime.spawn(async {}));
            spins(round * 37 % 4000);
            if round % 4 == 0 {
                // The server is asleep again between the two steps of this call.
                runtime.shutdown_timeout(Duration::from_millis(1));
            } else {
                runtime.shutdown_background();
            }
            eventually("the server is gone", || threads::named("umcg-s0") == 0);
            assert_eq!(gate.waiting(), 1);
            gate.open();
            join_all(handles);
        }
    });
}

#[test]
fn drop_waits_for_running_tasks() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = Builder::new()
                .servers(servers)
                .thread_name("ends")
                .build()
                .unwrap();
            let (gate, blocked) = block_tasks(&runtime, 6);
            let (stop, runs) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicBool::new(false)),
            );
            let (stops, begins) = (Arc::clone(&stop), Arc::clone(&runs));
            let running = runtime.spawn_blocking(move || {
                begins.store(true, SeqCst);
                while !stops.load(SeqCst) {
                    umcg::thread::yield_now();
                }
            });
            eventually("a task runs", || runs.load(SeqCst));
            let ending = begin_to_end(runtime, drop);
            gate.open();
            join_all(blocked);
            assert!(!ending.is_finished(), "drop returned while a task runs");
            stop.store(true, SeqCst);
            running
                .join()
                .expect("a task that has begun runs to its end");
            ending.join().unwrap();
            // The kernel wakes the joiner of a thread just before it takes the thread off its list.
            eventually("no thread is left", || threads::named("ends") == 0);
        }
    });
}

#[test]
fn drop_does_not_return_while_a_task_is_blocked() {
    isolated(60, || {
        let runtime = default_runtime();
        let (gate, blocked) = block_tasks(&runtime, 6);
        let ending = begin_to_end(runtime, drop);
        assert!(
            !ending.is_finished(),
            "drop returned while tasks are blocked"
        );
        gate.open();
        join_all(blocked);
        ending.join().unwrap();
    });
}

/// Tasks that never begin, because every worker that may exist is blocked.
#[test]
fn queued_tasks_are_cancelled() {
    isolated(60, || {
        for (name, end) in ENDS {
            eprintln!("{name}");
            let runtime = Builder::new().servers(1).max_workers(2).build().unwrap();
            let (gate, blocked) = block_tasks(&runtime, 2);
            let drops = Drops::default();
            let queued: Vec<_> = (0..100)
                .map(|i| {
                    let noted = drops.note();
                    if i % 2 == 0 {
                        runtime.spawn_blocking(move || drop(noted))
                    } else {
                        runtime.spawn(async move { drop(noted) })
                    }
                })
                .collect();
            assert_eq!(drops.count(), 0);
            let ending = begin_to_end(runtime, end);
            gate.open();
            for task in queued {
                assert!(task.join().expect_err("it never began").is_cancelled());
            }
            join_all(blocked);
            ending.join().unwrap();
            drops.check(100);
        }
    });
}

/// Tasks that wait for something that does not come, for a timer, or for their next turn.
#[test]
fn suspended_tasks_are_cancelled() {
    isolated(60, || {
        for (name, end) in ENDS {
            eprintln!("{name}");
            let runtime = default_runtime();
            let drops = Drops::default();
            let begun = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..100)
                .map(|i| {
                    let (noted, begun) = (drops.note(), Arc::clone(&begun));
                    runtime.spawn(async move {
                        begun.fetch_add(1, SeqCst);
                        match i % 3 {
                            0 => pending::<()>().await,
                            1 => umcg::time::sleep(Duration::from_secs(3600)).await,
                            _ => loop {
                                umcg::yield_now().await;
                            },
                        }
                        drop(noted);
                    })
                })
                .collect();
            eventually("all have begun", || begun.load(SeqCst) == 100);
            end(runtime);
            for task in tasks {
                assert!(task.join().expect_err("it cannot end").is_cancelled());
            }
            drops.check(100);
        }
    });
}

/// A thread joins a task that is cancelled, and tasks that it spawns too late.
#[test]
fn joins_of_cancelled_tasks_return_on_other_threads() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).max_workers(2).build().unwrap();
        let (gate, blocked) = block_tasks(&runtime, 2);
        let never = runtime.spawn_blocking(|| ());
        let joins = runtime.handle().clone();
        let waiting = thread::spawn(move || {
            let _entered = joins.enter();
            assert!(never.join().unwrap_err().is_cancelled());
            let late = umcg::spawn_blocking(|| ());
            assert!(late.join().unwrap_err().is_cancelled());
            assert!(umcg::spawn(async {}).join().unwrap_err().is_cancelled());
        });
        runtime.shutdown_background();
        waiting.join().unwrap();
        gate.open();
        join_all(blocked);
    });
}

#[test]
fn joins_of_cancelled_tasks_return_on_workers_too() {
    isolated(60, || {
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
fn a_task_that_is_spawned_while_the_runtime_ends_is_not_lost() {
    isolated(60, || {
        for _ in 0..50 {
            let runtime = Builder::new().servers(2).build().unwrap();
            let handle = runtime.handle().clone();
            let spawner = std::thread::spawn(move || {
                let mut tasks = Vec::new();
                while tasks.len() < 2_000 && handle.try_spawn(async {}).is_ok() {
                    tasks.push(handle.spawn_blocking(std::thread::yield_now));
                }
                for task in tasks {
                    // The task ran or was cancelled. A join that hangs is the failure.
                    let _ = task.join();
                }
            });
            drop(runtime);
            spawner.join().unwrap();
        }
    });
}

#[test]
fn a_runtime_may_be_dropped_inside_its_own_worker() {
    isolated(60, || {
        for servers in SERVERS {
            for (way, (name, end)) in ENDS.into_iter().enumerate() {
                eprintln!("{name}");
                let runtime = Builder::new()
                    .servers(servers)
                    .thread_name("ends")
                    .build()
                    .unwrap();
                let handle = runtime.handle().clone();
                let (done, ends) = mpsc::channel();
                let body = move || {
                    end(runtime);
                    done.send(()).unwrap();
                };
                if way % 2 == 0 {
                    drop(handle.spawn_blocking(body));
                } else {
                    drop(handle.spawn(async move { body() }));
                }
                ends.recv().expect("the task goes on after the end");
                eventually("its threads end", || threads::named("ends") == 0);
                assert!(handle.spawn(async {}).join().unwrap_err().is_cancelled());
            }
        }
    });
}

/// A task of another runtime drops it, which is an ordinary wait there.
#[test]
fn a_runtime_may_be_dropped_inside_another_one() {
    isolated(60, || {
        let outer = runtime_with(1);
        let inner = runtime_with(1);
        let (begins, begun) = mpsc::channel();
        let slow = inner.spawn_blocking(move || {
            begins.send(()).unwrap();
            thread::sleep(Duration::from_millis(100));
            3
        });
        begun.recv().unwrap();
        let dropping = outer.spawn_blocking(move || drop(inner));
        run_mixed_tasks(&outer, 40);
        dropping.join().unwrap();
        assert_eq!(slow.join().unwrap(), 3);
    });
}

/// A worker waits for the end of another runtime. It is the only worker of its own runtime, and
/// must meanwhile run the task that the other runtime waits for.
#[test]
fn waiting_for_the_end_of_a_runtime_is_managed_blocking() {
    isolated(60, || {
        let outer = Builder::new().servers(1).max_workers(1).build().unwrap();
        let inner = runtime_with(1);
        let handle = outer.handle().clone();
        let (begun, begins) = mpsc::channel();
        let (go, goes) = mpsc::channel::<()>();
        drop(inner.spawn_blocking(move || {
            begun.send(()).unwrap();
            goes.recv().unwrap_err();
            handle.spawn(async {}).join().expect("it runs");
        }));
        begins.recv().unwrap();
        let ends = outer.spawn_blocking(move || {
            drop(go);
            drop(inner);
        });
        eventually("the end of the inner one", || ends.is_finished());
        ends.join().unwrap();
    });
}

#[test]
fn a_handle_of_an_ended_runtime_cancels_or_refuses_tasks() {
    isolated(60, || {
        let runtime = default_runtime();
        let handle = runtime.handle().clone();
        drop(runtime);
        assert!(handle.spawn(async { 1 }).join().unwrap_err().is_cancelled());
        assert!(
            handle
                .spawn_blocking(|| 1)
                .join()
                .unwrap_err()
                .is_cancelled()
        );
        assert!(handle.try_spawn(async { 1 }).unwrap_err().is_shut_down());
        // The calling thread itself polls this future.
        assert_eq!(handle.block_on(async { 2 }), 2);
        assert_eq!(handle.metrics().workers().total(), 0);
    });
}

/// The waker of a task is used after the runtime has gone.
#[test]
fn a_waker_may_be_used_after_its_runtime_has_ended() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let (gives, waker) = mpsc::channel();
        let task = runtime.spawn(std::future::poll_fn(move |cx| {
            gives.send(cx.waker().clone()).unwrap();
            std::task::Poll::<()>::Pending
        }));
        let waker = waker.recv().unwrap();
        drop(runtime);
        waker.wake_by_ref();
        assert!(task.join().unwrap_err().is_cancelled());
        waker.wake();
    });
}

#[test]
fn a_runtime_may_be_dropped_in_its_own_hook() {
    static SLOT: Mutex<Option<Runtime>> = Mutex::new(None);
    isolated(60, || {
        let dropped = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&dropped);
        let runtime = Builder::new()
            .servers(1)
            .keep_alive(Duration::from_millis(10))
            .on_worker_stop(move |_| {
                let runtime = SLOT.lock().unwrap().take();
                if runtime.is_some() {
                    drop(runtime);
                    tells.store(true, SeqCst);
                }
            })
            .build()
            .unwrap();
        let (gate, handles) = block_tasks(&runtime, 4);
        *SLOT.lock().unwrap() = Some(runtime);
        gate.open();
        join_all(handles);
        eventually("the hook returns", || dropped.load(SeqCst));
    });
}

/// A stop hook waits for a task, and the worker that ends was the only one that may exist.
#[test]
fn a_stop_hook_may_wait_for_a_task() {
    isolated(60, || {
        let hooks = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&hooks);
        let runtime = Builder::new()
            .servers(1)
            .max_workers(1)
            .min_idle_workers(0)
            .keep_alive(Duration::from_millis(10))
            .on_worker_stop(move |_| {
                if counts.fetch_add(1, SeqCst) == 0 {
                    let task = umcg::Handle::current().spawn(async { 7 });
                    assert_eq!(task.join().unwrap(), 7);
                    counts.fetch_add(10, SeqCst);
                }
            })
            .build()
            .unwrap();
        runtime.spawn(async {}).join().unwrap();
        eventually("the hook returns", || hooks.load(SeqCst) > 10);
    });
}

/// The jobs that a pool keeps beyond its limit end with the runtime, even if the job that runs is
/// left behind.
#[test]
fn the_queue_of_a_pool_ends_with_its_runtime() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let pool = {
            let _entered = runtime.enter();
            ThreadPool::new(1)
        };
        let gate = Arc::new(BlockerGate::new());
        let blocks = Arc::clone(&gate);
        pool.execute(move || blocks.wait());
        eventually("the job is blocked", || gate.waiting() == 1);
        let waits = thread::spawn({
            let pool = pool.clone();
            move || pool.install(|| 7)
        });
        eventually("a job is queued", || pool.queued_count() == 1);
        runtime.shutdown_background();
        eventually("its owner is told", || waits.is_finished());
        waits.join().expect_err("it was never run");
        // The same for a job that comes late.
        let late = pool.clone();
        let late = thread::spawn(move || late.install(|| 7));
        eventually("its owner is told as well", || late.is_finished());
        late.join().expect_err("it is not run either");
        gate.open();
        pool.join();
    });
}

#[test]
fn runtimes_come_and_go() {
    isolated(60, || {
        for round in 0..60 {
            let runtime = Builder::new()
                .servers(SERVERS[round % 3])
                .thread_name("ends")
                .build()
                .unwrap();
            for _ in 0..round {
                drop(runtime.spawn_blocking(|| thread::sleep(Duration::from_micros(200))));
            }
            let (_, end) = ENDS[round / 3 % 3];
            end(runtime);
        }
        eventually("the threads end", || threads::named("ends") == 0);
    });
}
