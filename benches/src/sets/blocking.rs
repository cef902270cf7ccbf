//! Tasks and closures that sleep (targets P2 and P3).

use std::{thread, time::Duration};

use super::work::compute;
use crate::{
    clock::Clock,
    report::Row,
    runner::{Effort, Group},
    system::{BareUmcg, Countdown, System, Systems, THREADPOOL_THREADS, Tokio, Umcg},
};

const MILLI: Duration = Duration::from_millis(1);

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    groups(systems, effort)
        .into_iter()
        .flat_map(|group| group.run(effort))
        .collect()
}

/// The groups of P2 and P3, which P9 runs too.
pub(super) fn groups(systems: &Systems, effort: &Effort) -> Vec<Group<'static>> {
    let mut groups = sleepers(&systems.with_fresh_umcg(), effort);
    groups.push(block_1_ms(systems));
    groups
}

/// The number of tasks in P2.
const TASKS: u64 = 2000;

fn futures_that_block<S: System>(system: &'static S) {
    system.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| system.spawn(async { thread::sleep(MILLI) }))
            .collect();
        for task in tasks {
            task.await;
        }
    });
}

fn closures_that_block<S: System>(system: &'static S) {
    system.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| system.spawn_blocking(|| thread::sleep(MILLI)))
            .collect();
        for task in tasks {
            task.await;
        }
    });
}

/// P2: 2000 tasks that each block for 1 ms.
fn block_1_ms(systems: &Systems) -> Group<'static> {
    let mut group = Group::new(
        "block_1ms",
        "2000 tasks that each block for 1 ms",
        "task",
        TASKS,
    );
    let workers = systems.workers;
    let umcg = systems.umcg;
    group.cell("umcg", Umcg::THREADS, move |clock| {
        clock.time(|| futures_that_block(umcg));
    });
    group.cell("umcg, cold", "cold-umcg", move |clock| {
        let system = Umcg::build(workers, umcg::Builder::new().thread_name("cold-umcg"));
        let system: &'static Umcg = Box::leak(Box::new(system));
        clock.time(|| futures_that_block(system));
        // SAFETY: the reference was made from a box above, and no copy of it is left, because all
        // tasks have ended.
        let system = unsafe { Box::from_raw(std::ptr::from_ref(system).cast_mut()) };
        system.shutdown();
    });
    let tokio = systems.tokio;
    group.cell("tokio spawn_blocking", Tokio::THREADS, move |clock| {
        clock.time(|| closures_that_block(tokio));
    });
    group.cell("tokio spawn_blocking, cold", "cold-tokio", move |clock| {
        let system: &'static Tokio = Box::leak(Box::new(Tokio::new(workers)));
        clock.time(|| closures_that_block(system));
        // SAFETY: as above.
        let system = unsafe { Box::from_raw(std::ptr::from_ref(system).cast_mut()) };
        system.shutdown();
    });
    group.cell("tokio", Tokio::THREADS, move |clock| {
        clock.time(|| futures_that_block(tokio));
    });
    macro_rules! closures {
        ($($s:expr => $name:expr),*) => {$({
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                clock.time(|| closures_that_block(s));
            });
        })*};
    }
    closures!(
        systems.async_executor => "async-executor unblock",
        systems.threadpool => format!("threadpool({THREADPOOL_THREADS})"),
        systems.std_threads => "std threads",
        systems.rayon => "rayon",
        systems.may => "may"
    );
    macro_rules! futures {
        ($($s:expr => $name:expr),*) => {$({
            let s = $s;
            group.cell($name, threads(s), move |clock: &mut Clock| {
                clock.time(|| futures_that_block(s));
            });
        })*};
    }
    futures!(
        systems.bare_umcg => BareUmcg::NAME,
        systems.async_executor => "async-executor",
        systems.futures_pool => "futures"
    );
    group
}

fn threads<S: System>(_: &'static S) -> &'static str {
    S::THREADS
}

/// P3: closures that sleep for 100 us, without and with 10 us of computing before and after.
fn sleepers(systems: &Systems, effort: &Effort) -> Vec<Group<'static>> {
    let count = effort.pick(100_000, 20_000);
    [
        (
            "sleep_100us",
            Duration::ZERO,
            "closures that sleep for 100 us",
        ),
        (
            "compute_sleep_100us",
            Duration::from_micros(10),
            "closures: 10 us of computing, 100 us of sleep, 10 us of computing",
        ),
    ]
    .into_iter()
    .map(|(id, computing, what)| {
        let mut group = Group::new(id, format!("{count} {what}"), "closure", count as u64);
        crate::for_blocking!(systems, s => {
            group.cell(blocking_name(s), threads(s), move |clock: &mut Clock| {
                clock.time(|| sleep_all(s, count, computing));
            });
        });
        let bare = systems.bare_umcg;
        group.cell(
            blocking_name(bare),
            threads(bare),
            move |clock: &mut Clock| {
                clock.time(|| sleep_all(bare, count, computing));
            },
        );
        group
    })
    .collect()
}

fn blocking_name<S: System>(_: &'static S) -> String {
    match S::NAME {
        "threadpool" => format!("threadpool({THREADPOOL_THREADS})"),
        "tokio" => "tokio spawn_blocking".into(),
        "async-executor" => "async-executor unblock".into(),
        name => name.into(),
    }
}

fn sleep_all<S: System>(system: &'static S, count: usize, computing: Duration) {
    let countdown = Countdown::new(count);
    for _ in 0..count {
        let countdown = countdown.clone();
        system.execute(move || {
            compute(computing);
            thread::sleep(Duration::from_micros(100));
            compute(computing);
            countdown.done();
        });
    }
    countdown.wait();
}
