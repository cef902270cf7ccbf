//! `umcg::ThreadPool`, which has the methods of the crate `threadpool` and of rayon's pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use umcg::ThreadPool;
use umcg_tests::{BlockerGate, eventually, isolated};

#[test]
fn a_pool_has_the_methods_of_the_crate_threadpool() {
    isolated(60, || {
        let pool = ThreadPool::with_name("pool".to_owned(), 4);
        assert_eq!(pool.max_count(), 4);
        let (sum, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(BlockerGate::new()));
        for i in 0..40 {
            let (sum, gate) = (Arc::clone(&sum), Arc::clone(&gate));
            pool.execute(move || {
                gate.wait();
                sum.fetch_add(i, SeqCst);
            });
        }
        // As many jobs run at a time as the pool has threads, although they block.
        eventually("four run", || gate.waiting() == 4);
        eventually("they are counted", || pool.active_count() == 4);
        assert_eq!(pool.queued_count(), 36);
        gate.open();
        pool.join();
        assert_eq!(sum.load(SeqCst), 780);
        assert_eq!((pool.active_count(), pool.queued_count()), (0, 0));
        for _ in 0..3 {
            pool.execute(|| panic!("in a job"));
        }
        pool.join();
        assert_eq!(pool.panic_count(), 3);
    });
}

#[test]
fn a_pool_has_the_methods_of_rayon() {
    isolated(60, || {
        let pool = ThreadPool::new(3);
        fn fibonacci(n: u64) -> u64 {
            if n < 10 {
                return (1..=n).fold((0, 1), |(a, b), _| (b, a + b)).0;
            }
            let (a, b) = umcg::join(|| fibonacci(n - 1), || fibonacci(n - 2));
            a + b
        }
        assert_eq!(pool.install(|| fibonacci(20)), 6_765);
        let mut values = vec![0_usize; 100];
        pool.scope(|scope| {
            for (i, value) in values.iter_mut().enumerate() {
                scope.spawn(move |_| *value = i);
            }
        });
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    });
}

/// A job of one pool waits for another pool, whose job waits for the first one.
#[test]
fn pools_may_wait_for_each_other() {
    isolated(60, || {
        let (a, b) = (ThreadPool::new(1), ThreadPool::new(1));
        let (first, second) = (a.clone(), b.clone());
        let sum = a.install(move || 1 + second.install(|| 2 + first.install(|| 4)));
        assert_eq!(sum, 7);
        // The limits are what they were before.
        for pool in [&a, &b] {
            let most = AtomicUsize::new(0);
            let now = AtomicUsize::new(0);
            pool.scope(|s| {
                for _ in 0..20 {
                    s.spawn(|_| {
                        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                        thread::sleep(Duration::from_millis(1));
                        now.fetch_sub(1, SeqCst);
                    });
                }
            });
            assert_eq!(most.into_inner(), 1);
        }
    });
}
