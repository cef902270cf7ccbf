//! The runtime as a whole, one property a test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg::{Builder, Runtime};

#[test]
fn a_future_runs_and_its_value_comes_back() {
    let runtime = Runtime::new().unwrap();
    assert_eq!(
        runtime.block_on(async { umcg::spawn(async { 7 }).await.unwrap() }),
        7
    );
}

#[test]
fn sleeping_closures_overlap_on_one_server() {
    let runtime = Builder::new().servers(1).build().unwrap();
    let start = Instant::now();
    let tasks: Vec<_> = (0..200)
        .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(50))))
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    let elapsed = start.elapsed();
    eprintln!("{elapsed:?} {:#?}", runtime.metrics());
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn many_tasks_on_many_servers_all_run() {
    for servers in [1, 2, 5] {
        let runtime = Builder::new().servers(servers).build().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..10_000)
            .map(|_| {
                let count = Arc::clone(&count);
                runtime.spawn(async move {
                    count.fetch_add(1, SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(count.load(SeqCst), 10_000);
    }
}
