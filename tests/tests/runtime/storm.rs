//! Everything at once, for `UMCG_STRESS_SECS` seconds (default 2) with each count of servers.

use std::{
    io::{Read, Write},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use umcg::{Builder, Handle};

use crate::common::{SERVERS, pipe, within};

/// xorshift; each task has its own.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What all tasks share.
#[derive(Default)]
struct World {
    /// Few workers: no task blocks for what a queued one does, other than in the runtime's own
    /// waits. A low cap makes that a deadlock, as for any pool of threads.
    low_cap: bool,
    done: AtomicUsize,
    mutex: Mutex<u64>,
    turn: (Mutex<u64>, Condvar),
    spun: AtomicU64,
}

fn spin(iterations: u64) -> u64 {
    (0..iterations).fold(iterations, |a, b| std::hint::black_box(a ^ b))
}

/// One random thing that a closure can do; deeper ones do more of them in children.
fn act(handle: &Handle, world: &Arc<World>, random: &mut Random, depth: u32) {
    match random.below(12) {
        0 => std::thread::sleep(Duration::from_micros(random.below(300))),
        1 => {
            world.spun.fetch_add(spin(random.below(20_000)), SeqCst);
        }
        2 => umcg::thread::yield_now(),
        3 if !world.low_cap => {
            let (mut read, mut write) = pipe();
            let writer = handle.spawn_blocking(move || write.write_all(b"x").unwrap());
            read.read_exact(&mut [0]).unwrap();
            writer.join().unwrap();
        }
        4 => {
            let mut locked = world.mutex.lock().unwrap();
            *locked += 1;
            if random.below(8) == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        5 if !world.low_cap => {
            let (tell, told) = mpsc::channel();
            let task = handle.spawn(async move {
                umcg::task::yield_now().await;
                tell.send(7).unwrap();
            });
            assert_eq!(told.recv().unwrap(), 7);
            task.join().unwrap();
        }
        6 => handle.block_on(async {
            umcg::time::sleep(Duration::from_micros(100)).await;
        }),
        7 if depth > 0 => {
            let tasks: Vec<_> = (0..random.below(4))
                .map(|_| {
                    let (next, world, seed) =
                        (handle.clone(), Arc::clone(world), random.next() | 1);
                    handle.spawn_blocking(move || {
                        act(&next, &world, &mut Random(seed), depth - 1);
                    })
                })
                .collect();
            for task in tasks {
                task.join().unwrap();
            }
        }
        8 if depth > 0 => {
            let seeds = [random.next() | 1, random.next() | 1];
            handle.scope(|scope| {
                for seed in seeds {
                    scope.spawn(move || act(handle, world, &mut Random(seed), depth - 1));
                }
            });
        }
        9 => {
            let task = handle.spawn(std::future::pending::<()>());
            task.abort();
            assert!(task.join().unwrap_err().is_cancelled());
        }
        10 => {
            let (turn, changed) = &world.turn;
            *turn.lock().unwrap() += 1;
            changed.notify_all();
        }
        _ => {
            let (turn, changed) = &world.turn;
            let locked = turn.lock().unwrap();
            drop(changed.wait_timeout(locked, Duration::from_micros(200)));
        }
    }
}

fn storm(servers: usize, max_workers: usize, pin: bool, time: Duration) {
    let runtime = Builder::new()
        .servers(servers)
        .max_workers(max_workers)
        .pin(pin)
        .keep_alive(Duration::from_millis(20))
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    let world = Arc::new(World {
        low_cap: max_workers < 100,
        ..World::default()
    });
    let start = Instant::now();
    let mut spawned = 0;
    let mut random = Random(0x9e37_79b9 + servers as u64);
    while start.elapsed() < time {
        let tasks: Vec<_> = (0..random.below(60))
            .map(|_| {
                let (next, world, seed) = (handle.clone(), Arc::clone(&world), random.next() | 1);
                handle.spawn_blocking(move || {
                    act(&next, &world, &mut Random(seed), 3);
                    world.done.fetch_add(1, SeqCst);
                })
            })
            .collect();
        spawned += tasks.len();
        for task in tasks {
            task.join().unwrap();
        }
        if random.below(10) == 0 {
            // Let workers retire.
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    assert_eq!(world.done.load(SeqCst), spawned);
    let metrics = runtime.metrics();
    assert_eq!(metrics.completed, metrics.spawned, "{metrics:#?}");
    eprintln!(
        "{servers} servers: {spawned} roots, {} tasks, peak {} workers, blocks {} + {}, \
         preempted {}, adopted {}, steals {}, at cap {}, beyond cap {}",
        metrics.spawned,
        metrics.workers_peak,
        metrics.blocks_sentinel,
        metrics.blocks_monitor,
        metrics.preempted,
        metrics.adopted,
        metrics.steals,
        metrics.at_cap,
        metrics.beyond_cap,
    );
}

fn time() -> Duration {
    Duration::from_secs(std::env::var("UMCG_STRESS_SECS").map_or(2, |secs| secs.parse().unwrap()))
}

#[test]
fn everything_at_once() {
    for servers in SERVERS {
        within(time() + Duration::from_secs(60), "the storm", move || {
            storm(servers, 4096, true, time());
        });
    }
}

#[test]
fn everything_at_once_at_a_low_cap() {
    for servers in SERVERS {
        within(time() + Duration::from_secs(60), "the storm", move || {
            storm(servers, 6, true, time());
        });
    }
}

#[test]
fn everything_at_once_without_pins() {
    for servers in SERVERS {
        within(time() + Duration::from_secs(60), "the storm", move || {
            storm(servers, 4096, false, time());
        });
    }
}
