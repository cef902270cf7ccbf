//! What a program meets that was written for another runtime, or for std's threads.

use std::{
    future::{poll_fn, ready},
    task::Poll,
    time::Duration,
};

use umcg::{
    JoinSet, Runtime,
    task::{consume_budget, coop::cooperative, unconstrained},
    time::timeout,
};

const MS: Duration = Duration::from_millis(1);

/// One server: nobody else comes to help.
fn runtime() -> Runtime {
    umcg::Builder::new().servers(1).build().unwrap()
}

#[test]
fn a_timeout_ends_loops_that_are_always_ready() {
    let runtime = runtime();
    runtime.block_on(async {
        let endless = async {
            loop {
                consume_budget().await;
            }
        };
        timeout(MS, endless).await.unwrap_err();
        let endless = async {
            loop {
                cooperative(ready(())).await;
            }
        };
        timeout(MS, endless).await.unwrap_err();
    });
    // The same in a task, whose poll gives it the budget.
    let task = runtime.spawn(timeout(MS, async {
        loop {
            consume_budget().await;
        }
    }));
    task.join().unwrap().unwrap_err();
}

#[test]
fn a_timeout_ends_a_loop_over_tasks_that_are_done() {
    let runtime = runtime();
    let task = runtime.spawn(async {
        let endless = async {
            loop {
                let task = umcg::spawn_blocking(|| ());
                while !task.is_finished() {
                    umcg::thread::yield_now();
                }
                task.await.unwrap();
            }
        };
        timeout(MS, endless).await.unwrap_err();
        let endless = async {
            let mut set = JoinSet::new();
            loop {
                // Done before it is waited for, or of an empty set.
                set.spawn(async {});
                umcg::thread::yield_now();
                set.join_next().await.unwrap().unwrap();
                assert!(set.join_next().await.is_none());
            }
        };
        timeout(MS, endless).await.unwrap_err();
    });
    task.join().unwrap();
}

#[test]
fn a_set_gives_all_its_results_whatever_the_budget() {
    let runtime = runtime();
    let task = runtime.spawn(async {
        let mut set: JoinSet<usize> = (0..1000).map(|i| async move { i }).collect();
        let mut sum = 0;
        while let Some(result) = set.join_next().await {
            sum += result.unwrap();
        }
        sum
    });
    assert_eq!(task.join().unwrap(), 499_500);
}

#[test]
fn unconstrained_futures_are_not_made_to_suspend() {
    let runtime = runtime();
    let polls = |constrained: bool| {
        let task = runtime.spawn(async move {
            let many = async {
                for _ in 0..1000 {
                    consume_budget().await;
                }
            };
            let mut many: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = if constrained {
                Box::pin(many)
            } else {
                Box::pin(unconstrained(many))
            };
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                many.as_mut().poll(cx)
            })
            .await;
            polls
        });
        task.join().unwrap()
    };
    assert_eq!(polls(true), 8);
    assert_eq!(polls(false), 1);
}

/// An executor that knows nothing of budgets, inside of a future.
#[test]
fn other_executors_inside_of_a_task_get_through() {
    fn foreign_block_on<F: Future>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
            umcg::thread::yield_now();
        }
    }

    let runtime = runtime();
    let many = || async {
        for _ in 0..1000 {
            consume_budget().await;
        }
    };
    runtime
        .spawn(async move { foreign_block_on(many()) })
        .join()
        .unwrap();
    runtime
        .spawn_blocking(move || foreign_block_on(many()))
        .join()
        .unwrap();
}
