use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{pool_runtime::PoolRuntime, *};
use crate::{Handle, testing::runtime};

fn pool_on(runtime: &Handle, max: usize) -> ThreadPool {
    ThreadPool {
        pool: Pool::new(None, PoolRuntime::of(runtime.clone()), max),
    }
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// A gate for jobs: the closure blocks until the sender is dropped.
fn gate() -> (mpsc::Sender<()>, impl Fn() + Clone + Send + 'static) {
    let (open, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    (open, move || {
        let _ = wait.lock().recv();
    })
}

#[test]
fn jobs_run() {
    let pool = ThreadPool::new(4);
    let count = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let count = Arc::clone(&count);
        pool.execute(move || {
            count.fetch_add(1, SeqCst);
        });
    }
    pool.join();
    assert_eq!(count.load(SeqCst), 100);
    assert_eq!((pool.queued_count(), pool.active_count()), (0, 0));
}

#[test]
fn no_more_at_once_than_the_limit_and_as_many() {
    let pool = ThreadPool::new(3);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let full = Arc::new(Barrier::new(3));
    for i in 0..30 {
        let (now, most, full) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&full));
        pool.execute(move || {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            if i < 3 {
                full.wait();
            }
            std::thread::sleep(Duration::from_micros(200));
            now.fetch_sub(1, SeqCst);
        });
    }
    pool.join();
    assert_eq!(most.load(SeqCst), 3);
}

#[test]
fn one_thread_runs_jobs_in_their_order() {
    let pool = ThreadPool::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    for i in 0..100 {
        let order = Arc::clone(&order);
        pool.execute(move || order.lock().push(i));
    }
    pool.join();
    assert_eq!(*order.lock(), (0..100).collect::<Vec<_>>());
}

#[test]
fn counts_say_what_waits_and_what_runs() {
    let pool = ThreadPool::new(2);
    let (open, wait) = gate();
    for _ in 0..5 {
        pool.execute(wait.clone());
    }
    eventually("two jobs run", || pool.active_count() == 2);
    assert_eq!((pool.queued_count(), pool.max_count()), (3, 2));
    drop(open);
    pool.join();
    assert_eq!((pool.queued_count(), pool.active_count()), (0, 0));
}

#[test]
fn panics_are_counted_and_end_one_job() {
    let pool = ThreadPool::new(2);
    for _ in 0..4 {
        pool.execute(|| panic!("in a job"));
    }
    pool.join();
    assert_eq!(pool.panic_count(), 4);
    assert_eq!(pool.install(|| 7), 7);
}

#[test]
fn limit_may_grow() {
    let mut pool = ThreadPool::new(1);
    let (open, wait) = gate();
    for _ in 0..4 {
        pool.execute(wait.clone());
    }
    eventually("one job runs", || pool.active_count() == 1);
    pool.set_num_threads(3);
    eventually("three jobs run", || pool.active_count() == 3);
    assert_eq!(pool.queued_count(), 1);
    drop(open);
    pool.join();
}

#[test]
fn limit_may_shrink() {
    let mut pool = ThreadPool::new(4);
    let (open, wait) = gate();
    for _ in 0..4 {
        pool.execute(wait.clone());
    }
    eventually("four jobs run", || pool.active_count() == 4);
    pool.set_num_threads(1);
    let most = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let (most, pool) = (Arc::clone(&most), pool.clone());
        pool.clone().execute(move || {
            most.fetch_max(pool.active_count(), SeqCst);
        });
    }
    assert_eq!(pool.queued_count(), 10);
    open.send(()).unwrap();
    eventually("one job ends", || pool.active_count() == 3);
    assert_eq!(pool.queued_count(), 10, "still above the new limit");
    drop(open);
    pool.join();
    assert_eq!(pool.max_count(), 1);
}

#[test]
#[should_panic(expected = "at least one thread")]
fn no_threads_are_refused() {
    let _ = ThreadPool::new(0);
}

#[test]
fn join_of_an_empty_pool_returns() {
    ThreadPool::new(1).join();
}

#[test]
fn all_joiners_return() {
    let pool = ThreadPool::new(1);
    let (open, wait) = gate();
    pool.execute(wait);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pool.join());
        }
        drop(open);
    });
}

#[test]
fn join_covers_jobs_that_jobs_add() {
    let pool = ThreadPool::new(2);
    let done = Arc::new(AtomicBool::new(false));
    let (inner, theirs) = (pool.clone(), Arc::clone(&done));
    pool.execute(move || {
        let again = inner.clone();
        inner.execute(move || {
            again.execute(move || theirs.store(true, SeqCst));
        });
    });
    pool.join();
    assert!(done.load(SeqCst));
}

#[test]
fn dropped_pool_finishes_its_jobs() {
    let (send, receive) = mpsc::channel();
    let pool = ThreadPool::new(1);
    for i in 0..10 {
        let send = send.clone();
        pool.execute(move || send.send(i).unwrap());
    }
    drop((pool, send));
    assert_eq!(receive.iter().sum::<i32>(), 45);
}

#[test]
fn clones_are_the_same_pool() {
    let (one, other) = (ThreadPool::new(1), ThreadPool::new(1));
    assert_eq!(one, one.clone());
    assert_ne!(one, other);
}

#[test]
fn jobs_see_the_pools_name() {
    let pool = ThreadPool::with_name("some pool".into(), 1);
    let name = pool.install(|| crate::thread::current().name().map(str::to_owned));
    assert_eq!(name.as_deref(), Some("some pool"));
}

#[test]
fn debug_is_that_of_threadpool() {
    let pool = ThreadPool::new(4);
    assert_eq!(
        format!("{pool:?}"),
        "ThreadPool { name: None, queued_count: 0, active_count: 0, max_count: 4 }"
    );
    let pool = ThreadPool::with_name("hello".into(), 4);
    assert_eq!(
        format!("{pool:?}"),
        "ThreadPool { name: Some(\"hello\"), queued_count: 0, active_count: 0, max_count: 4 }"
    );
}

#[test]
fn large_stack_is_a_runtime_of_its_own_that_goes_with_the_pool() {
    let pool = Builder::new()
        .num_threads(1)
        .thread_stack_size(64 << 20)
        .build();
    let runtime = pool.install(Handle::current);
    assert!(runtime.shared().thread_stack_size() >= 64 << 20);
    let (open, wait) = gate();
    let done = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&done);
    pool.execute(move || {
        wait();
        // Larger than the stacks of other runtimes.
        let large = std::hint::black_box([1_u8; 8 << 20]);
        theirs.store(large[large.len() / 2] == 1, SeqCst);
    });
    drop(pool);
    drop(open);
    eventually("the job of a dropped pool runs", || done.load(SeqCst));
    eventually("its runtime goes", || runtime.shared().refusal().is_some());
}

#[test]
fn as_many_jobs_block_at_once_as_the_pool_has_threads() {
    let pool = ThreadPool::new(300);
    let full = Arc::new(Barrier::new(301));
    for _ in 0..300 {
        let full = Arc::clone(&full);
        pool.execute(move || {
            full.wait();
        });
    }
    full.wait();
    pool.join();
}

#[test]
fn install_borrows_and_returns() {
    let pool = ThreadPool::new(1);
    let text = String::from("borrowed");
    assert_eq!(pool.install(|| &text[..6]), "borrow");
}

#[test]
fn install_inside_the_pool_runs_in_place() {
    let pool = ThreadPool::new(1);
    assert_eq!(pool.install(|| pool.install(|| 7)), 7);
}

#[test]
fn panic_of_install_reaches_the_caller() {
    let pool = ThreadPool::new(1);
    let panic = catch_unwind(AssertUnwindSafe(|| pool.install(|| panic!("inside")))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"inside"));
}

#[test]
fn scope_of_a_pool_of_one_does_not_wait_for_itself() {
    let pool = ThreadPool::new(1);
    let mut numbers = [1, 2, 3];
    pool.scope(|s| {
        for number in &mut numbers {
            s.spawn(move |_| *number *= 2);
        }
    });
    assert_eq!(numbers, [2, 4, 6]);
}

#[test]
fn jobs_of_a_scope_spawn_siblings() {
    let pool = ThreadPool::new(2);
    let count = AtomicUsize::new(0);
    pool.scope(|s| {
        s.spawn(|s| {
            for _ in 0..5 {
                s.spawn(|_| {
                    count.fetch_add(1, SeqCst);
                });
            }
        });
    });
    assert_eq!(count.load(SeqCst), 5);
}

#[test]
fn scopes_nest_in_jobs() {
    let pool = ThreadPool::new(2);
    let count = AtomicUsize::new(0);
    pool.scope(|s| {
        for _ in 0..4 {
            s.spawn(|_| {
                pool.scope(|s| {
                    for _ in 0..4 {
                        s.spawn(|_| {
                            count.fetch_add(1, SeqCst);
                        });
                    }
                });
            });
        }
    });
    assert_eq!(count.load(SeqCst), 16);
    pool.join();
}

#[test]
fn first_panic_of_a_scopes_jobs_reaches_the_caller() {
    let pool = ThreadPool::new(1);
    let ran = AtomicUsize::new(0);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|s| {
            s.spawn(|_| panic!("first"));
            s.spawn(|_| panic!("second"));
            s.spawn(|_| {
                ran.fetch_add(1, SeqCst);
            });
        });
    }))
    .unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"first"));
    assert_eq!(ran.load(SeqCst), 1);
}

#[test]
fn both_of_a_pool_of_one() {
    let pool = ThreadPool::new(1);
    let text = String::from("text");
    assert_eq!(pool.join_both(|| text.len(), || &text[1..]), (4, "ext"));
}

fn quicksort(pool: &ThreadPool, numbers: &mut [u32]) {
    if numbers.len() < 2 {
        return;
    }
    let last = numbers.len() - 1;
    let mut middle = 0;
    for i in 0..last {
        if numbers[i] < numbers[last] {
            numbers.swap(i, middle);
            middle += 1;
        }
    }
    numbers.swap(middle, last);
    let (low, high) = numbers.split_at_mut(middle);
    pool.join_both(|| quicksort(pool, low), || quicksort(pool, &mut high[1..]));
}

#[test]
fn recursive_joins_need_no_threads_of_their_own() {
    for threads in [1, 2, 16] {
        let runtime = runtime();
        let pool = pool_on(&runtime, threads);
        let mut numbers: Vec<u32> = (0..6144_u32)
            .map(|i| i.wrapping_mul(2_654_435_761) >> 8)
            .collect();
        quicksort(&pool, &mut numbers);
        assert!(numbers.is_sorted());
        pool.join();
        let peak = runtime.metrics().workers_peak;
        assert!(peak <= 32, "{peak} workers for {threads} threads");
    }
}

#[test]
fn nested_scopes_of_a_pool_of_one_run_one_job_at_a_time() {
    let pool = ThreadPool::new(1);
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::sleep(Duration::from_micros(200));
        now.fetch_sub(1, SeqCst);
    };
    pool.scope(|s| {
        for _ in 0..8 {
            s.spawn(|_| {
                work();
                pool.scope(|s| {
                    for _ in 0..4 {
                        s.spawn(|_| work());
                    }
                    work();
                });
                work();
            });
        }
        work();
    });
    assert_eq!(most.load(SeqCst), 1);
}

#[test]
fn jobs_of_a_scope_run_in_their_order_and_before_others_of_a_pool_of_one() {
    let pool = ThreadPool::new(1);
    let order = Mutex::new(Vec::new());
    let (open, wait) = gate();
    let others = Arc::new(AtomicUsize::new(0));
    pool.execute(wait);
    pool.in_place_scope(|s| {
        s.spawn(|_| {
            pool.scope(|s| {
                for i in 0..5 {
                    let (order, others) = (&order, &others);
                    s.spawn(move |_| order.lock().push((i, others.load(SeqCst))));
                }
            });
        });
        let others = Arc::clone(&others);
        pool.execute(move || {
            others.fetch_add(1, SeqCst);
        });
        drop(open);
    });
    pool.join();
    assert_eq!(*order.lock(), [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    assert_eq!(others.load(SeqCst), 1);
}

#[test]
fn jobs_that_were_taken_back_do_not_count_as_queued() {
    let pool = ThreadPool::new(1);
    pool.install(|| {
        let more = pool.clone();
        let (scope_queued, seen) = mpsc::channel();
        pool.scope(|s| {
            for _ in 0..3 {
                s.spawn(|_| ());
            }
            // Behind the tickets of the scope, so that they stay in the queue.
            more.execute(|| ());
            scope_queued.send(pool.queued_count()).unwrap();
        });
        assert_eq!(seen.recv(), Ok(4));
        assert_eq!((pool.queued_count(), pool.active_count()), (1, 1));
    });
    pool.join();
    assert_eq!((pool.queued_count(), pool.active_count()), (0, 0));
}

#[test]
fn in_place_scope_runs_its_body_here_and_its_jobs_in_the_pool() {
    let pool = ThreadPool::with_name("a pool".into(), 1);
    let here = std::thread::current().id();
    let names = Mutex::new(Vec::new());
    pool.in_place_scope(|s| {
        assert_eq!(std::thread::current().id(), here);
        for _ in 0..3 {
            s.spawn(|_| {
                let name = crate::thread::current().name().map(str::to_owned);
                names.lock().push(name);
            });
        }
    });
    assert_eq!(*names.lock(), vec![Some("a pool".to_owned()); 3]);
}

#[test]
fn job_that_waits_for_another_pool_lets_the_next_one_begin() {
    let (one, other) = (ThreadPool::new(1), ThreadPool::new(1));
    let (told, tell) = (Barrier::new(2), Arc::new(AtomicBool::new(false)));
    one.in_place_scope(|s| {
        s.spawn(|_| {
            other.install(|| {
                told.wait();
            });
        });
        // Begins only if the first one gives up its place.
        s.spawn(|_| {
            told.wait();
            tell.store(true, SeqCst);
        });
    });
    assert!(tell.load(SeqCst));
}

#[test]
fn end_of_the_runtime_drops_the_jobs_of_a_scope() {
    let runtime = runtime();
    let pool = pool_on(&runtime, 1);
    let (open, wait) = gate();
    pool.execute(wait);
    eventually("the job runs", || pool.active_count() == 1);
    let token = Arc::new(());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        pool.in_place_scope(|s| {
            for _ in 0..10 {
                let token = Arc::clone(&token);
                s.spawn(move |_| drop(token));
            }
            runtime.shared().stop();
            drop(open);
        });
    }))
    .unwrap_err();
    let message = crate::testing::panic_message(&*panic);
    assert!(message.contains("shut down"), "{message}");
    assert_eq!(Arc::strong_count(&token), 1);
    pool.join();
}

#[test]
fn name_with_a_nul_byte_is_refused() {
    let builder = Builder::new().thread_name("a\0b".into());
    let error = builder.clone().try_build().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(catch_unwind(AssertUnwindSafe(|| builder.build())).is_err());
}

#[test]
fn pool_crosses_catch_unwind() {
    let pool = ThreadPool::new(1);
    assert_eq!(catch_unwind(|| pool.install(|| 7)).unwrap(), 7);
}

#[test]
fn end_of_the_runtime_drops_the_jobs_and_ends_the_waits() {
    let runtime = runtime();
    let pool = pool_on(&runtime, 1);
    let (open, wait) = gate();
    let dropped = Arc::new(AtomicUsize::new(0));
    pool.execute(wait);
    eventually("the job runs", || pool.active_count() == 1);
    for _ in 0..100_000 {
        let token = Arc::clone(&dropped);
        pool.execute(move || drop(token));
    }
    runtime.shared().stop();
    drop(open);
    pool.join();
    assert_eq!(Arc::strong_count(&dropped), 1);
    assert!(catch_unwind(AssertUnwindSafe(|| pool.install(|| ()))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| pool.scope(|_| ()))).is_err());
    pool.join();
}

#[test]
fn join_waits_for_the_destructors_of_jobs_that_are_dropped() {
    struct Slow(mpsc::Sender<()>, Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            // Time for a `join` that does not wait to return.
            std::thread::sleep(Duration::from_millis(50));
            self.1.store(true, SeqCst);
        }
    }
    let runtime = runtime();
    let pool = pool_on(&runtime, 1);
    let (open, wait) = gate();
    pool.execute(wait);
    eventually("the job runs", || pool.active_count() == 1);
    let (begun, seen) = mpsc::channel();
    let dropped = Arc::new(AtomicBool::new(false));
    let slow = Slow(begun, Arc::clone(&dropped));
    pool.execute(move || drop(slow));
    std::thread::scope(|scope| {
        scope.spawn(|| runtime.shared().stop());
        // Its destructor runs, and then the job that has the place ends.
        seen.recv().unwrap();
        drop(open);
        eventually("the job ends", || pool.active_count() == 0);
        pool.join();
        assert!(dropped.load(SeqCst));
    });
}
