//! More servers than CPUs. Each server has a queue of its own, so the others steal what one task
//! spawns. No task is lost on the way, and none runs twice.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use umcg::{Handle, Runtime};
use umcg_tests::{
    eventually, isolated,
    runtime::{compute, runtime_with},
};

const LIMIT: Duration = Duration::from_secs(60);

/// The machines that run these tests have fewer CPUs, or not many more.
const MANY: [usize; 2] = [8, 16];

/// How often each task of a set has run.
struct Runs(Box<[AtomicU32]>);

impl Runs {
    fn of(tasks: usize) -> Arc<Self> {
        Arc::new(Self((0..tasks).map(|_| AtomicU32::new(0)).collect()))
    }

    fn note(&self, task: usize) {
        self.0[task].fetch_add(1, SeqCst);
    }

    fn all_ran(&self) -> bool {
        self.0.iter().all(|runs| runs.load(SeqCst) > 0)
    }

    fn assert_once_each(&self) {
        for (task, runs) in self.0.iter().enumerate() {
            assert_eq!(runs.load(SeqCst), 1, "runs of task {task}");
        }
    }
}

/// Spawns one task for each entry of `runs`, from the calling thread.
fn spawn_all(handle: &Handle, runs: &Arc<Runs>, job: fn()) -> Vec<umcg::JoinHandle<()>> {
    (0..runs.0.len())
        .map(|task| {
            let runs = Arc::clone(runs);
            handle.spawn_blocking(move || {
                job();
                runs.note(task);
            })
        })
        .collect()
}

fn assert_nothing_is_left(runtime: &Runtime) {
    eventually("all that was spawned is done", || {
        let metrics = runtime.metrics();
        metrics.completed_tasks_count() == metrics.spawned_tasks_count()
            && metrics.queue_depth() == 0
    });
}

fn compute_briefly() {
    compute(Duration::from_micros(20));
}

fn block() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Repeats a round until a task was stolen.
fn until_stolen(runtime: &Runtime, round: impl Fn()) {
    let begin = Instant::now();
    loop {
        round();
        if runtime.metrics().steal_count() > 0 {
            return;
        }
        assert!(begin.elapsed() < LIMIT / 2, "{:#?}", runtime.metrics());
    }
}

/// The worker of this task never looks at the queue again. It does not block either, so that no
/// other worker of this server looks at it. Each of the tasks is stolen, the one in the LIFO slot
/// as well.
#[test]
fn tasks_spawned_by_a_computing_task_are_stolen() {
    isolated(60, || {
        for servers in MANY {
            let runtime = runtime_with(servers);
            let runs = Runs::of(200);
            let root = {
                let (handle, runs) = (runtime.handle().clone(), Arc::clone(&runs));
                runtime.spawn_blocking(move || {
                    let tasks = spawn_all(&handle, &runs, || ());
                    let begin = Instant::now();
                    while !runs.all_ran() && begin.elapsed() < LIMIT / 2 {
                        std::hint::spin_loop();
                    }
                    tasks
                })
            };
            for task in root.join().unwrap() {
                task.join().unwrap();
            }
            runs.assert_once_each();
            let metrics = runtime.metrics();
            // A worker that was preempted after a time slice, because the other servers were slow,
            // or was judged wrongly, leaves the slot to another worker, which finds the tasks.
            let counts = metrics.provider();
            let lost_slot = counts.preempted + counts.blocks_sentinel + counts.blocks_monitor > 0;
            assert!(metrics.steal_count() > 0 || lost_slot, "{metrics:#?}");
            assert_nothing_is_left(&runtime);
        }
    });
}

#[test]
fn tasks_of_one_task_run_once_each() {
    isolated(60, || {
        for servers in MANY {
            let runtime = runtime_with(servers);
            until_stolen(&runtime, || {
                let runs = Runs::of(500);
                let root = {
                    let (handle, runs) = (runtime.handle().clone(), Arc::clone(&runs));
                    runtime.spawn_blocking(move || {
                        for task in spawn_all(&handle, &runs, compute_briefly) {
                            task.join().unwrap();
                        }
                    })
                };
                root.join().unwrap();
                runs.assert_once_each();
            });
            assert_nothing_is_left(&runtime);
        }
    });
}

#[test]
fn tasks_from_outside_run_once_each() {
    isolated(60, || {
        for servers in MANY {
            let runtime = runtime_with(servers);
            let runs: Vec<_> = (0..4).map(|_| Runs::of(250)).collect();
            std::thread::scope(|scope| {
                for runs in &runs {
                    scope.spawn(|| {
                        for task in spawn_all(runtime.handle(), runs, compute_briefly) {
                            task.join().unwrap();
                        }
                    });
                }
            });
            for runs in runs {
                runs.assert_once_each();
            }
            assert_nothing_is_left(&runtime);
        }
    });
}

/// The blocked workers of a server come back to one that has moved on, or to another one.
#[test]
fn tasks_that_block_run_once_each() {
    isolated(60, || {
        for servers in MANY {
            let runtime = runtime_with(servers);
            until_stolen(&runtime, || {
                let outside = Runs::of(200);
                let tasks = spawn_all(runtime.handle(), &outside, block);
                let inside = Runs::of(200);
                let root = {
                    let (handle, runs) = (runtime.handle().clone(), Arc::clone(&inside));
                    runtime.spawn_blocking(move || {
                        for task in spawn_all(&handle, &runs, block) {
                            task.join().unwrap();
                        }
                    })
                };
                root.join().unwrap();
                for task in tasks {
                    task.join().unwrap();
                }
                outside.assert_once_each();
                inside.assert_once_each();
            });
            assert_nothing_is_left(&runtime);
        }
    });
}

/// Tasks that spawn tasks, on any server: the tree has the right size.
#[test]
fn a_tree_of_tasks_is_complete() {
    fn node(handle: &Handle, count: &Arc<AtomicU32>, depth: u32) {
        count.fetch_add(1, Relaxed);
        if depth == 0 {
            if count.load(Relaxed) % 8 == 0 {
                block();
            }
            return;
        }
        let children: Vec<_> = (0..3)
            .map(|_| {
                let (next, count) = (handle.clone(), Arc::clone(count));
                handle.spawn_blocking(move || node(&next, &count, depth - 1))
            })
            .collect();
        for child in children {
            child.join().unwrap();
        }
    }
    isolated(60, || {
        for servers in MANY {
            let runtime = runtime_with(servers);
            until_stolen(&runtime, || {
                let count = Arc::new(AtomicU32::new(0));
                let root = {
                    let (handle, count) = (runtime.handle().clone(), Arc::clone(&count));
                    runtime.spawn_blocking(move || node(&handle, &count, 5))
                };
                root.join().unwrap();
                // 1 + 3 + ... + 3^5.
                assert_eq!(count.load(SeqCst), 364);
            });
            assert_nothing_is_left(&runtime);
        }
    });
}
