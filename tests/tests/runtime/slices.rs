//! Time slices: a queued task gets its turn although every server has a worker that computes, and
//! the threads that this takes are bounded.

use std::{
    hint,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg::{Builder, JoinHandle, Runtime};
use umcg_tests::{
    Unsliced, eventually, isolated,
    runtime::{SERVERS, compute, runtime_with},
    watchdog, wrong_verdicts,
};

/// These tests run one after the other: the threads of one keep the tasks of another from the CPU.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For each server at most 32 workers that were preempted compute beside the one in the slot
/// (`MAX_LEFTOVERS` of the scheduler). As many may have just ended their tasks, and be idle, before
/// their server looks; and one may be in the making.
const WORKERS_A_SERVER: usize = 32 + 1 + 32 + 1;

/// On the device nobody tells a server that sleeps behind a computing worker of a task that is
/// queued later: the task waits until the worker gives the slot up. See the scheduler's README,
/// section 5.
fn nobody_watches() -> bool {
    runtime_with(1).metrics().provider_kind() == umcg::ProviderKind::Device
}

fn join(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.join().unwrap();
    }
}

/// Spawns tasks that spin until `stop` is set, and waits until `running` of them have begun.
fn spinners(
    runtime: &Runtime,
    tasks: usize,
    running: usize,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let tasks = (0..tasks)
        .map(|_| {
            let (begun, stop) = (Arc::clone(&begun), Arc::clone(stop));
            runtime.spawn_blocking(move || {
                begun.fetch_add(1, SeqCst);
                while !stop.load(SeqCst) {
                    hint::spin_loop();
                }
            })
        })
        .collect();
    eventually("the spinners run", || begun.load(SeqCst) >= running);
    tasks
}

/// The task is in the injector, and ends the spin of those that have the servers.
#[test]
fn a_task_from_outside_runs_although_every_server_computes() {
    let _alone = alone();
    isolated(60, || {
        if nobody_watches() {
            return;
        }
        for servers in SERVERS {
            let attempt = (0..12).find(|_| task_from_outside_runs(servers));
            println!("{servers} servers: attempt {attempt:?}");
            assert!(attempt.is_some(), "a server always had a deadline");
        }
    });
}

/// Spawns the task while each server sleeps behind a spinner, and waits until it has run. False: a
/// server has a deadline, at which it would find the task by itself.
fn task_from_outside_runs(servers: usize) -> bool {
    // Without slices each server gets one of the spinners, however late it comes.
    let provider = Unsliced::new();
    let runtime = Builder::new()
        .servers(servers)
        .keep_alive(Duration::from_secs(3600))
        .with_provider(provider.clone())
        .build()
        .expect("a runtime");
    let stop = Arc::new(AtomicBool::new(false));
    let spinners = spinners(&runtime, servers, servers, &stop);
    // Workers that were made for the tasks may have come too late for them. They wait behind a
    // spinner to be dispatched for the first time, and their server wants to look again all the
    // time. Then there is another attempt.
    let at_rest = || {
        provider.wake_servers();
        provider.servers_want_no_deadline().then_some(())
    };
    let at_rest = watchdog::poll(Duration::from_secs(1), at_rest).is_some();
    provider.begin_slices();
    // Where wrong verdicts are made, servers nearly always have a deadline.
    let counts = at_rest || wrong_verdicts();
    if counts {
        let stops = Arc::clone(&stop);
        let task = runtime.spawn(async move { stops.store(true, SeqCst) });
        task.join().unwrap();
    }
    stop.store(true, SeqCst);
    join(spinners);
    counts
}

/// The task is in the LIFO slot or the run queue of the server on which its spawner spins.
#[test]
fn tasks_of_a_spinner_run_although_every_server_computes() {
    let _alone = alone();
    isolated(60, || {
        if nobody_watches() {
            return;
        }
        for servers in SERVERS {
            for children in [1, 3] {
                let runtime = runtime_with(servers);
                let stop = Arc::new(AtomicBool::new(false));
                let others = spinners(&runtime, servers - 1, servers - 1, &stop);
                let parent = runtime.spawn_blocking(move || {
                    let ran = Arc::new(AtomicUsize::new(0));
                    for _ in 0..children {
                        let ran = Arc::clone(&ran);
                        drop(umcg::spawn(async move { ran.fetch_add(1, SeqCst) }));
                    }
                    while ran.load(SeqCst) < children {
                        hint::spin_loop();
                    }
                });
                parent.join().unwrap();
                stop.store(true, SeqCst);
                join(others);
            }
        }
    });
}

/// More tasks compute than there are servers. All of them begin, and so does each task that comes
/// later.
#[test]
fn tasks_run_beside_more_spinners_than_servers() {
    let _alone = alone();
    isolated(60, || {
        if nobody_watches() {
            return;
        }
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let stop = Arc::new(AtomicBool::new(false));
            let spinners = spinners(&runtime, 6 * servers, 6 * servers, &stop);
            for _ in 0..10 {
                let begun = Instant::now();
                runtime.spawn(async {}).join().unwrap();
                assert!(begun.elapsed() < Duration::from_secs(5), "{begun:?}");
            }
            stop.store(true, SeqCst);
            join(spinners);
        }
    });
}

/// Needs the same CPU time wherever it runs.
fn work(steps: u64) {
    let mut value = hint::black_box(steps);
    for step in 0..steps {
        value = hint::black_box(
            value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(step),
        );
    }
}

/// The threads that compute at a time are bounded, however many tasks are queued.
#[test]
fn ten_thousand_tasks_that_compute_do_not_get_a_thread_each() {
    let _alone = alone();
    isolated(120, || {
        // As many as take about 20 ms, four slices: an emulated CPU is much slower.
        let begun = Instant::now();
        work(100_000);
        let steps = 20_000_000 * 100_000 / begun.elapsed().as_nanos().max(1) as u64;
        let runtime = runtime_with(2);
        // Each of the first ones computes for many slices, so all leftovers that may be are there.
        let tasks: Vec<_> = (0..10_000)
            .map(|i| {
                let steps = if i < 150 { steps } else { steps / 1000 };
                runtime.spawn_blocking(move || work(steps))
            })
            .collect();
        join(tasks);
        let metrics = runtime.metrics();
        let preempted = metrics.provider().preempted;
        assert!(preempted > 0 || nobody_watches(), "{metrics:#?}");
        assert!(
            // A wrong verdict gives the slot on as well, without a leftover being noted.
            wrong_verdicts() || metrics.workers_peak() <= 2 * WORKERS_A_SERVER,
            "{metrics:#?}"
        );
    });
}

/// A worker that runs short tasks takes the queued ones itself.
#[test]
fn a_worker_that_runs_short_tasks_is_not_preempted() {
    let _alone = alone();
    isolated(60, || {
        for servers in [1, 2] {
            let runtime = runtime_with(servers);
            let tasks: Vec<_> = (0..5_000)
                .map(|_| runtime.spawn(async { compute(Duration::from_micros(50)) }))
                .collect();
            join(tasks);
            // Another process may have kept a task from its CPU for a whole slice.
            let preempted = runtime.metrics().provider().preempted;
            assert!(preempted < 20, "{preempted} preemptions");
        }
    });
}

/// Nobody waits: a task may compute for as long as it likes.
#[test]
fn a_lone_task_that_computes_is_not_preempted() {
    let _alone = alone();
    isolated(60, || {
        let runtime = runtime_with(2);
        runtime
            .spawn_blocking(|| compute(Duration::from_millis(200)))
            .join()
            .unwrap();
        assert_eq!(runtime.metrics().provider().preempted, 0);
    });
}
