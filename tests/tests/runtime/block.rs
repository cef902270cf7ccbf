//! Tasks that block: who runs meanwhile, on whose stack, and that nobody waits forever.

use std::{
    cell::Cell,
    io::Read,
    net::UdpSocket,
    os::unix::net::UnixStream,
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use umcg::{Builder, Handle};
use umcg_tests::{
    BlockerGate, blockers, eventually, isolated,
    runtime::{assert_blocks_are_seen, default_runtime, join_all, run_mixed_tasks, runtime_with},
};

#[test]
fn a_server_goes_on_whatever_its_task_blocks_in() {
    isolated(60, || {
        let runtime = runtime_with(1);
        for blocker in blockers::all() {
            let name = blocker.name;
            let before = Arc::new(AtomicBool::new(false));
            let begun = Arc::clone(&before);
            let call = blocker.call;
            let blocked = runtime.spawn_blocking(move || {
                begun.store(true, SeqCst);
                call()
            });
            eventually(name, || before.load(SeqCst));
            assert_eq!(
                runtime.spawn(async { 1 }).join().unwrap(),
                1,
                "beside {name}"
            );
            (blocker.release)();
            assert_eq!(
                blocked.join().unwrap(),
                blocker.expect,
                "the result of {name}"
            );
        }
    });
}

#[test]
fn a_block_inside_a_future_stops_no_other_future() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let gate = Arc::new(BlockerGate::new());
        let blocked = Arc::clone(&gate);
        let task = runtime.spawn(async move {
            umcg::yield_now().await;
            blocked.wait();
            umcg::yield_now().await;
            5
        });
        eventually("the poll blocks", || gate.waiting() == 1);
        run_mixed_tasks(&runtime, 100);
        gate.open();
        assert_eq!(task.join().unwrap(), 5);
    });
}

/// The shape of rayon's issue 592. A thread holds a lock while it waits for a job that it has
/// spawned. It must not run, on its own stack, another job that wants the lock.
#[test]
fn a_lock_may_be_held_while_waiting_for_a_spawned_job() {
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let mutex = Arc::new(Mutex::new(0_u64));
            let handles: Vec<_> = (0..32)
                .map(|i| {
                    let mutex = Arc::clone(&mutex);
                    runtime.spawn_blocking(move || {
                        let mut held = mutex.lock().unwrap();
                        *held += match i % 4 {
                            0 => umcg::spawn_blocking(|| 1).join().unwrap(),
                            1 => umcg::spawn(async { 1 }).join().unwrap(),
                            2 => umcg::join(|| 1, || 0).0,
                            _ => umcg::scope(|s| s.spawn(|| 1).join().unwrap()),
                        };
                    })
                })
                .collect();
            for handle in handles {
                handle.join().unwrap();
            }
            assert_eq!(*mutex.lock().unwrap(), 32);
        }
    });
}

thread_local! {
    /// The number of tasks on the stack of this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

fn alone_on_this_stack<R>(f: impl FnOnce() -> R) -> R {
    DEPTH.with(|depth| {
        assert_eq!(depth.replace(1), 0, "another task is on this stack");
        let result = f();
        depth.set(0);
        result
    })
}

#[test]
fn no_task_runs_on_the_stack_of_a_blocked_task() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let handles: Vec<_> = (0..200)
            .map(|i| {
                runtime.spawn_blocking(move || {
                    alone_on_this_stack(|| match i % 6 {
                        0 => {
                            umcg::spawn_blocking(|| alone_on_this_stack(|| ()))
                                .join()
                                .unwrap();
                        }
                        1 => umcg::scope(|s| {
                            s.spawn(|| alone_on_this_stack(|| ()));
                        }),
                        2 => Handle::current().block_on(async {
                            umcg::yield_now().await;
                            umcg::spawn(async { alone_on_this_stack(|| ()) })
                                .await
                                .unwrap();
                        }),
                        3 => umcg::thread::park_timeout(Duration::from_millis(1)),
                        4 => umcg::thread::yield_now(),
                        _ => thread::sleep(Duration::from_millis(1)),
                    });
                })
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

/// Trace A12: every worker waits for a task that is queued behind the tasks which wait.
#[test]
fn sixty_four_workers_may_wait_for_queued_tasks() {
    type Wait = fn(usize) -> usize;
    let waits: [(&str, Wait); 5] = [
        ("join of a child", |i| {
            umcg::spawn_blocking(move || i).join().unwrap()
        }),
        ("join of a child that joins a child", |i| {
            let child = umcg::spawn_blocking(move || {
                let child = umcg::spawn_blocking(move || {
                    thread::sleep(Duration::from_millis(1));
                    i
                });
                child.join().unwrap()
            });
            child.join().unwrap()
        }),
        ("a scope", |i| {
            umcg::scope(|s| s.spawn(|| i).join().unwrap())
        }),
        ("block_on of a spawned future", |i| {
            Handle::current().block_on(async move {
                let child = umcg::spawn(async move {
                    umcg::yield_now().await;
                    i
                });
                child.await.unwrap()
            })
        }),
        ("park until a child unparks", |i| {
            let this = umcg::thread::current();
            let done = Arc::new(AtomicBool::new(false));
            let sets = Arc::clone(&done);
            drop(umcg::spawn(async move {
                sets.store(true, SeqCst);
                this.unpark();
            }));
            while !done.load(SeqCst) {
                umcg::thread::park();
            }
            i
        }),
    ];
    isolated(60, || {
        for (name, wait) in waits {
            eprintln!("{name}");
            let runtime = Builder::new().servers(2).max_workers(64).build().unwrap();
            let barrier = Arc::new(Barrier::new(64));
            let handles: Vec<_> = (0..64)
                .map(|i| {
                    let barrier = Arc::clone(&barrier);
                    runtime.spawn_blocking(move || {
                        barrier.wait();
                        wait(i)
                    })
                })
                .collect();
            join_all(handles);
            run_mixed_tasks(&runtime, 50);
        }
    });
}

/// Blocks for `time`, in one of the ways that std offers.
fn block_plainly(way: usize, time: Duration) {
    match way % 5 {
        0 => thread::sleep(time),
        1 => {
            let (_sender, receiver) = mpsc::channel::<()>();
            assert!(receiver.recv_timeout(time).is_err());
        }
        2 => {
            let mutex = Mutex::new(());
            let guard = mutex.lock().unwrap();
            let waited = Condvar::new().wait_timeout_while(guard, time, |()| true);
            assert!(waited.unwrap().1.timed_out());
        }
        3 => {
            let (mut here, _there) = UnixStream::pair().unwrap();
            here.set_read_timeout(Some(time)).unwrap();
            assert!(here.read(&mut [0]).is_err());
        }
        _ => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(time)).unwrap();
            assert!(socket.recv(&mut [0]).is_err());
        }
    }
}

/// The purpose of the runtime: a future that wants to run every millisecond does so beside futures
/// that block for a second at a time, in calls that the runtime knows nothing about.
#[test]
fn a_ticker_keeps_ticking_beside_futures_that_block() {
    isolated(60, || {
        let runtime = default_runtime();
        let stop = Arc::new(AtomicBool::new(false));
        let neighbours: Vec<_> = (0..16)
            .map(|way| {
                let stop = Arc::clone(&stop);
                runtime.spawn(async move {
                    while !stop.load(SeqCst) {
                        block_plainly(way, Duration::from_secs(1));
                        umcg::yield_now().await;
                    }
                })
            })
            .collect();
        let ticker = runtime.spawn(async {
            let begun = Instant::now();
            let (mut gaps, mut last) = (Vec::new(), begun);
            while last - begun < Duration::from_millis(2500) {
                umcg::time::sleep(Duration::from_millis(1)).await;
                let now = Instant::now();
                gaps.push(now - last);
                last = now;
            }
            gaps
        });
        let mut gaps = ticker.join().unwrap();
        stop.store(true, SeqCst);
        for neighbour in neighbours {
            neighbour.join().unwrap();
        }
        gaps.sort_unstable();
        // 1 or 2 ms on a machine at rest. If a block stopped the ticker, one gap in three would be
        // as long as the block, because more tasks block than there are servers.
        let late = gaps[gaps.len() * 99 / 100];
        assert!(
            late < Duration::from_millis(200),
            "one of 100 gaps took {late:?} or more, of {} gaps, the longest {:?}",
            gaps.len(),
            gaps.last()
        );
    });
}

#[test]
fn a_task_in_the_lifo_slot_is_not_stranded_by_a_block() {
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            for _ in 0..50 {
                let gate = Arc::new(BlockerGate::new());
                let (wake, woken) = tokio::sync::oneshot::channel::<()>();
                let suspended = runtime.spawn(async move { woken.await.is_ok() });
                let blocked = Arc::clone(&gate);
                let waker = runtime.spawn_blocking(move || {
                    // A wake-up on a worker puts the task into the LIFO slot. Then this worker
                    // blocks.
                    wake.send(()).unwrap();
                    blocked.wait();
                });
                assert!(suspended.join().unwrap());
                gate.open();
                waker.join().unwrap();
            }
        }
    });
}

#[test]
fn tasks_queued_behind_a_block_are_not_stranded() {
    isolated(60, || {
        let runtime = runtime_with(1);
        for _ in 0..20 {
            let gate = Arc::new(BlockerGate::new());
            let (blocked, (sender, receiver)) = (Arc::clone(&gate), mpsc::channel());
            let task = runtime.spawn_blocking(move || {
                for i in 0..50 {
                    let sender = sender.clone();
                    drop(umcg::spawn(async move { sender.send(i).unwrap() }));
                }
                drop(sender);
                blocked.wait();
            });
            let mut seen: Vec<_> = receiver.iter().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..50).collect::<Vec<_>>());
            gate.open();
            task.join().unwrap();
        }
    });
}

#[test]
fn blocking_tasks_overlap_as_if_each_had_a_thread() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let begun = Instant::now();
        let handles: Vec<_> = (0..100)
            .map(|_| runtime.spawn_blocking(|| thread::sleep(Duration::from_millis(50))))
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
        // One after another they would take 5 s.
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_blocks_are_seen(&runtime);
    });
}

#[test]
fn block_in_place_returns_what_it_is_given_and_stops_nobody() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let gate = Arc::new(BlockerGate::new());
        let blocked = Arc::clone(&gate);
        let task = runtime.spawn(async move {
            umcg::block_in_place(|| {
                blocked.wait();
                9
            })
        });
        eventually("it blocks", || gate.waiting() == 1);
        run_mixed_tasks(&runtime, 40);
        gate.open();
        assert_eq!(task.join().unwrap(), 9);
        assert_eq!(umcg::block_in_place(|| 3), 3, "outside of a runtime, too");
    });
}

/// Workers that unblock take the slot over from workers that block, without a server or a sentinel
/// in between (the README of the provider, "A take-over").
#[test]
fn unblocked_workers_take_the_slot_over_from_blocked_ones() {
    isolated(60, || {
        let runtime = Builder::new().servers(1).max_workers(64).build().unwrap();
        if !runtime
            .metrics()
            .provider_description()
            .contains("sentinel on each")
        {
            // Other providers, and unpinned servers, do not do this: the kernel or the monitor sees
            // the blocks.
            return;
        }
        // Several rounds, because a take-over needs a CPU that no other process uses.
        eventually("one take-over in a round of sleeps", || {
            let tasks: Vec<_> = (0..500)
                .map(|_| runtime.spawn_blocking(|| thread::sleep(Duration::from_micros(100))))
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
            let metrics = runtime.metrics();
            metrics.servers()[0].provider().taken_over > 0 && metrics.provider().blocks_sibling > 0
        });
    });
}
