//! Ports of the peers' own benches of executors, with their constants.
//!
//! They come from tokio's `benches/rt_multi_threaded.rs` and `remote_spawn.rs`, and from
//! async-executor's `benches/executor.rs`. Each function is one iteration there. As in the
//! originals, the calling thread is not a thread of the system, and blocks until everything is
//! done.

use std::{
    future::{Future, poll_fn},
    hint::black_box,
    mem,
    pin::Pin,
    sync::{
        Arc, Barrier,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use futures_lite::future;

use crate::system::System;

/// tokio's `NUM_SPAWN`.
pub const SPAWNS: usize = 10_000;
/// tokio's `NUM_YIELD`.
pub const YIELDS: usize = 1_000;
/// tokio's `TASKS` of `yield_many`.
pub const YIELDERS: usize = 200;
/// tokio's `NUM_PINGS`.
pub const PINGS: usize = 1_000;
/// tokio's `ITER` of `chained_spawn`.
pub const CHAIN: usize = 1_000;
/// tokio's `TOTAL_TASKS` of `remote_spawn`.
pub const REMOTE: usize = 12_800;
/// async-executor's `TASKS`.
pub const TASKS: usize = 300;
/// async-executor's `STEPS`.
pub const STEPS: usize = 300;
/// async-executor's `LIGHT_TASKS`.
pub const LIGHT_TASKS: usize = 25_000;

/// `spawn_many_local`: spawns inside `block_on`, which is *not* on a worker in any of the systems.
pub fn spawn_many_local<S: System>(system: &'static S) {
    let (tell, told) = mpsc::sync_channel(1000);
    system.block_on(async {
        spawn_counted(system, &tell);
        told.recv().expect("the last task tells");
    });
}

/// The same in a task, so on a worker.
pub fn spawn_many_worker<S: System>(system: &'static S) {
    let (tell, told) = mpsc::sync_channel(1000);
    system.spawn_detached(async move { spawn_counted(system, &tell) });
    told.recv().expect("the last task tells");
}

fn spawn_counted<S: System>(system: &'static S, tell: &mpsc::SyncSender<()>) {
    let left = Arc::new(AtomicUsize::new(SPAWNS));
    for _ in 0..SPAWNS {
        let (tell, left) = (tell.clone(), Arc::clone(&left));
        system.spawn_detached(async move {
            if left.fetch_sub(1, Relaxed) == 1 {
                tell.send(()).expect("the bench waits");
            }
        });
    }
}

/// `spawn_many_remote_idle`: spawns from an outside thread, and awaits each task.
pub fn spawn_many_remote<S: System>(system: &'static S) {
    let handles: Vec<_> = (0..SPAWNS).map(|_| system.spawn(async {})).collect();
    system.block_on(async {
        for handle in handles {
            handle.await;
        }
    });
}

/// Tasks that keep the workers busy for `spawn_many_remote_busy1` and `_busy2`, until this value is
/// dropped.
#[derive(Debug)]
pub struct Stalling(Arc<AtomicBool>);

impl Stalling {
    /// `busy1`: two tasks for each worker that compute for 10 us and yield, again and again.
    pub fn yielding<S: System>(system: &'static S, workers: usize) -> Self {
        let go = Arc::new(AtomicBool::new(true));
        for _ in 0..2 * workers {
            let go = Arc::clone(&go);
            system.spawn_detached(async move {
                while go.load(Relaxed) {
                    S::yield_now().await;
                    stall();
                }
            });
        }
        Self(go)
    }

    /// `busy2`: a task for each worker that computes for 10 us and wakes itself, again and again.
    pub fn waking<S: System>(system: &'static S, workers: usize) -> Self {
        let go = Arc::new(AtomicBool::new(true));
        for _ in 0..workers {
            let go = Arc::clone(&go);
            system.spawn_detached(poll_fn(move |cx| {
                stall();
                if go.load(Relaxed) {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            }));
        }
        Self(go)
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

fn stall() {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(10) {
        thread::yield_now();
    }
}

/// `yield_many`, with the system's own `yield_now`, or with a task that wakes itself.
pub fn yield_many<S: System>(system: &'static S, own: bool) {
    let (tell, told) = mpsc::sync_channel(YIELDERS);
    for _ in 0..YIELDERS {
        let tell = tell.clone();
        system.spawn_detached(async move {
            if own {
                for _ in 0..YIELDS {
                    S::yield_now().await;
                }
            } else {
                for _ in 0..YIELDS {
                    future::yield_now().await;
                }
            }
            tell.send(()).expect("the bench waits");
        });
    }
    for _ in 0..YIELDERS {
        told.recv().expect("each task tells");
    }
}

/// `ping_pong`: two tasks and two channels for each ping.
pub fn ping_pong<S: System>(system: &'static S) {
    let (tell, told) = mpsc::sync_channel(1000);
    let left = Arc::new(AtomicUsize::new(PINGS));
    system.block_on(async {
        system.spawn_detached(async move {
            for _ in 0..PINGS {
                let (left, tell) = (Arc::clone(&left), tell.clone());
                system.spawn_detached(async move {
                    let (ping, pinged) = oneshot::channel();
                    let (pong, ponged) = oneshot::channel();
                    system.spawn_detached(async move {
                        pinged.await.expect("a partner");
                        pong.send(()).expect("a partner");
                    });
                    ping.send(()).expect("a partner");
                    ponged.await.expect("a partner");
                    if left.fetch_sub(1, Relaxed) == 1 {
                        tell.send(()).expect("the bench waits");
                    }
                });
            }
        });
        told.recv().expect("the last task tells");
    });
}

/// `chained_spawn`: each task spawns the next.
pub fn chained_spawn<S: System>(system: &'static S) {
    fn next<S: System>(system: &'static S, tell: mpsc::SyncSender<()>, n: usize) {
        if n == 0 {
            tell.send(()).expect("the bench waits");
        } else {
            // Boxed, because the type of the future would contain itself otherwise.
            let future: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(async move { next(system, tell, n - 1) });
            system.spawn_detached(future);
        }
    }
    let (tell, told) = mpsc::sync_channel(1000);
    system.block_on(async {
        next(system, tell, CHAIN);
        told.recv().expect("the last task tells");
    });
}

/// `remote_spawn`: this many outside threads spawn at once, behind a barrier. Returns how long the
/// pushes took, and leaves the rest out, as `iter_custom` does there.
pub fn remote_spawn<S: System>(system: &'static S, threads: usize) -> Duration {
    let barrier = Barrier::new(threads);
    let (longest, tasks) = thread::scope(|scope| {
        let pushers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut tasks = Vec::with_capacity(REMOTE / threads);
                    barrier.wait();
                    let begin = Instant::now();
                    for _ in 0..REMOTE / threads {
                        tasks.push(system.spawn(async {}));
                    }
                    (begin.elapsed(), tasks)
                })
            })
            .collect();
        let mut longest = Duration::ZERO;
        let mut all = Vec::with_capacity(REMOTE);
        for pusher in pushers {
            let (took, tasks) = pusher.join().expect("a pusher");
            longest = longest.max(took);
            all.extend(tasks);
        }
        (longest, all)
    });
    system.block_on(async {
        for task in tasks {
            task.await;
        }
    });
    longest
}

/// async-executor's `spawn_one`.
pub fn spawn_one<S: System>(system: &'static S) {
    system.block_on(async { system.spawn(async {}).await });
}

/// async-executor's `spawn_many_local`, which awaits one task after the other.
pub fn spawn_many_joined<S: System>(system: &'static S) {
    system.block_on(async {
        let tasks: Vec<_> = (0..LIGHT_TASKS).map(|_| system.spawn(async {})).collect();
        for task in tasks {
            task.await;
        }
    });
}

/// async-executor's `spawn_recursively`.
pub fn spawn_recursively<S: System>(system: &'static S) {
    fn go<S: System>(
        system: &'static S,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(async move {
            if depth != 0 {
                system.spawn(go(system, depth - 1)).await;
            }
        })
    }
    system.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| system.spawn(go(system, STEPS)))
            .collect();
        for task in tasks {
            task.await;
        }
    });
}

/// async-executor's `channels`: a token goes round a ring of tasks.
pub fn channels<S: System>(system: &'static S) {
    system.block_on(async {
        let mut tasks = Vec::new();
        let (first, mut last) = async_channel::bounded::<()>(1);
        for _ in 0..TASKS {
            let (send, next) = async_channel::bounded(1);
            let receive = mem::replace(&mut last, next);
            tasks.push(system.spawn(async move {
                for _ in 0..STEPS {
                    receive.recv().await.expect("a neighbour");
                    send.send(()).await.expect("a neighbour");
                }
            }));
        }
        for _ in 0..STEPS {
            first.send(()).await.expect("a neighbour");
            last.recv().await.expect("a neighbour");
        }
        for task in tasks {
            task.await;
        }
    });
}

/// async-executor's `web_server`: a server task spawns a task for each request, and half of these
/// ask a database task. The random numbers have a seed, so that each system does the same work.
pub fn web_server<S: System>(system: &'static S) {
    system.block_on(async {
        let (ask, asked) = async_channel::bounded::<async_channel::Sender<usize>>(TASKS / 5);
        let mut db_rng = fastrand::Rng::with_seed(0x1234_5678);
        let mut web_rng = db_rng.fork();
        let database = system.spawn(async move {
            while let Ok(answer) = asked.recv().await {
                for _ in 0..db_rng.usize(..10) {
                    future::yield_now().await;
                }
                let _ = answer.send(db_rng.usize(..)).await;
            }
        });
        let server = system.spawn(async move {
            for i in 0..TASKS {
                if web_rng.usize(..=16) == 16 {
                    future::yield_now().await;
                }
                let mut rng = web_rng.fork();
                let ask = ask.clone();
                system.spawn_detached(async move {
                    if rng.bool() {
                        future::yield_now().await;
                        return;
                    }
                    for _ in 0..rng.usize(STEPS / 2..STEPS) {
                        let (answer, answered) = async_channel::bounded(1);
                        ask.send(answer).await.expect("the database");
                        black_box(answered.recv().await.expect("the database"));
                    }
                    for _ in 0..rng.usize(3..16) {
                        future::yield_now().await;
                    }
                });
                if i & 16 == 0 {
                    future::yield_now().await;
                }
            }
        });
        server.await;
        database.await;
    });
}

/// tokio's `spawn_blocking` bench: `tasks` tasks, each of which spawns 100 batches of 16 empty
/// closures.
pub fn noop_blocking<S: System>(system: &'static S, tasks: usize) {
    system.block_on(async {
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                system.spawn(async move {
                    for _ in 0..100 {
                        let batch: Vec<_> = (0..16)
                            .map(|_| system.spawn_blocking(|| black_box(0)))
                            .collect();
                        for closure in batch {
                            closure.await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
}

/// Computes for this time, by the clock.
pub fn compute(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A flag that stops the tasks beside a measurement.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Sets the flag.
    pub fn set(&self) {
        self.0.store(true, SeqCst);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.0.load(SeqCst)
    }
}
