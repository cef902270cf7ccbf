//! User code may panic anywhere; the runtime goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg::Builder;

use crate::common::{SERVERS, within};

const LIMIT: Duration = Duration::from_secs(60);

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a destructor, on purpose");
        }
    }
}

#[test]
fn panics_in_tasks_and_destructors_end_the_task_alone() {
    for servers in SERVERS {
        within(LIMIT, "panicking tasks", move || {
            let runtime = Builder::new().servers(servers).build().unwrap();
            let tasks: Vec<_> = (0..60)
                .map(|number| match number % 4 {
                    0 => runtime.spawn_blocking(|| panic!("a closure, on purpose")),
                    1 => runtime.spawn(async { panic!("a future, on purpose") }),
                    2 => runtime.spawn(async {
                        let _bomb = PanicsOnDrop;
                        umcg::task::yield_now().await;
                    }),
                    _ => runtime.spawn_blocking(|| {
                        std::thread::sleep(Duration::from_millis(1));
                        panic!("after a block, on purpose")
                    }),
                })
                .collect();
            for task in tasks {
                assert!(task.join().unwrap_err().is_panic());
            }
            for _ in 0..10 {
                // Nobody takes the output, whose destructor panics.
                drop(runtime.spawn(async { PanicsOnDrop }));
            }
            assert_eq!(runtime.spawn_blocking(|| 7).join().unwrap(), 7);
        });
    }
}

#[test]
fn hooks_see_each_worker_and_may_panic() {
    within(LIMIT, "panicking hooks", || {
        let started = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::new(AtomicUsize::new(0));
        let (count_start, count_stop) = (Arc::clone(&started), Arc::clone(&stopped));
        let runtime = Builder::new()
            .servers(2)
            .on_worker_start(move |id| {
                assert!(umcg::Handle::try_current().is_some());
                count_start.fetch_add(1, SeqCst);
                assert!(id % 2 == 0, "on purpose");
            })
            .on_worker_stop(move |id| {
                // May block like any task.
                std::thread::sleep(Duration::from_millis(1));
                count_stop.fetch_add(1, SeqCst);
                assert!(id % 2 == 1, "on purpose");
            })
            .build()
            .unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|_| runtime.spawn_blocking(|| std::thread::sleep(Duration::from_millis(20))))
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        let peak = runtime.metrics().workers_peak;
        drop(runtime);
        assert!(started.load(SeqCst) >= peak && peak > 2);
        assert_eq!(started.load(SeqCst), stopped.load(SeqCst));
    });
}

#[test]
fn destructors_that_panic_at_shutdown_are_contained() {
    within(LIMIT, "panics at shutdown", || {
        let runtime = Builder::new().servers(2).build().unwrap();
        for _ in 0..10 {
            drop(runtime.spawn(async {
                let _bomb = PanicsOnDrop;
                std::future::pending::<()>().await;
            }));
        }
        let handle = runtime.handle().clone();
        crate::common::eventually("all are suspended", || handle.metrics().suspended == 10);
        drop(runtime);
    });
}
