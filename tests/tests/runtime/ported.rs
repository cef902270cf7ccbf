//! What a program may rely on that was written for another runtime, or for the threads of std.
//! Every runtime here has one server, so that no other server can help.

use std::{
    cell::Cell,
    future::{pending, poll_fn, ready},
    panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind},
    sync::{Once, mpsc},
    task::Poll,
    time::Duration,
};

use umcg::{
    AbortHandle, Handle, JoinHandle, JoinSet, Runtime, ThreadPool,
    task::{self, consume_budget, coop::cooperative, unconstrained},
    thread,
    time::timeout,
};
use umcg_tests::{isolated, runtime::runtime_with};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_timeout_ends_loops_that_are_always_ready() {
    isolated(60, || {
        let runtime = runtime_with(1);
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
        // The same in a task: each poll of it begins with a new budget.
        let task = runtime.spawn(timeout(MS, async {
            loop {
                consume_budget().await;
            }
        }));
        task.join().unwrap().unwrap_err();
    });
}

#[test]
fn a_timeout_ends_a_loop_over_tasks_that_are_done() {
    isolated(60, || {
        let runtime = runtime_with(1);
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
                    // The task is done before it is waited for, and then the set is empty.
                    set.spawn(async {});
                    umcg::thread::yield_now();
                    set.join_next().await.unwrap().unwrap();
                    assert!(set.join_next().await.is_none());
                }
            };
            timeout(MS, endless).await.unwrap_err();
        });
        task.join().unwrap();
    });
}

#[test]
fn a_set_gives_all_its_results_whatever_the_budget() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let task = runtime.spawn(async {
            let mut set: JoinSet<usize> = (0..1000).map(|i| async move { i }).collect();
            let mut sum = 0;
            while let Some(result) = set.join_next().await {
                sum += result.unwrap();
            }
            sum
        });
        assert_eq!(task.join().unwrap(), 499_500);
    });
}

#[test]
fn unconstrained_futures_are_not_made_to_suspend() {
    isolated(60, || {
        let runtime = runtime_with(1);
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
    });
}

/// An executor that does not know the budget runs inside of a task, and its future still ends.
#[test]
fn other_executors_inside_of_a_task_get_through() {
    isolated(60, || {
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

        let runtime = runtime_with(1);
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
    });
}

thread_local! {
    /// The file and the line of the last panic of this thread.
    static PANIC_AT: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// The file and the line that the panic of `f` reports.
fn panic_of(f: impl FnOnce()) -> (String, u32) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let at = info
                .location()
                .map(|at| (at.file().to_owned().leak() as &str, at.line()));
            PANIC_AT.set(at);
            default(info);
        }));
    });
    PANIC_AT.set(None);
    catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    let (file, line) = PANIC_AT.get().expect("a panic was seen");
    (file.to_owned(), line)
}

// A call and its `line!()` stay on one line.
#[rustfmt::skip]
#[test]
fn panics_outside_of_a_runtime_name_the_line_of_the_caller() {
    isolated(60, || {
        fn check(call: &str, f: impl FnOnce(), line: u32) {
            assert_eq!(panic_of(f), (file!().to_owned(), line), "{call}");
        }
        check("spawn", || drop(umcg::spawn(async {})), line!());
        check("spawn_blocking", || drop(umcg::spawn_blocking(|| ())), line!());
        check("Handle::current", || drop(Handle::current()), line!());
        check("thread::spawn", || drop(thread::spawn(|| ())), line!());
        check("scope", || umcg::scope(|_| ()), line!());
        check("join", || { umcg::join(|| (), || ()); }, line!());
        let mut set = JoinSet::<()>::new();
        check("JoinSet::spawn", || drop(set.spawn(async {})), line!());
        check("JoinSet::spawn_blocking", || drop(set.spawn_blocking(|| ())), line!());
        check("JoinSet::extend", || set.extend([ready(())]), line!());
        check("task::id", || { let _ = task::id(); }, line!());
    });
}

/// Its destructor sends what it finds.
struct Tells(mpsc::Sender<Found>);

/// Whether a runtime is entered, the current task, and whether the thread unwinds.
#[derive(Debug, PartialEq)]
struct Found {
    in_runtime: bool,
    task: Option<task::Id>,
    panicking: bool,
}

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(Found {
            in_runtime: Handle::try_current().is_ok(),
            task: task::try_id(),
            panicking: std::thread::panicking(),
        });
    }
}

fn found(of: &mpsc::Receiver<Found>, task: task::Id, panicking: bool) {
    assert_eq!(
        of.recv_timeout(Duration::from_secs(60)).unwrap(),
        Found {
            in_runtime: true,
            task: Some(task),
            panicking,
        }
    );
}

#[test]
fn outputs_of_detached_tasks_are_dropped_in_the_context_of_the_task() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let (tell, told) = mpsc::channel();
        // A task that is detached before it is done.
        let (go, wait) = mpsc::channel::<()>();
        let task = runtime.spawn({
            let tell = tell.clone();
            async move {
                let _ = wait.recv();
                Tells(tell)
            }
        });
        let id = task.id();
        drop(task);
        drop(go);
        found(&told, id, false);
        // A task that is done before it is detached.
        runtime.block_on(async {
            let task = umcg::spawn_blocking(move || Tells(tell));
            while !task.is_finished() {
                task::yield_now().await;
            }
            let id = task.id();
            drop(task);
            found(&told, id, false);
        });
    });
}

#[test]
fn a_future_that_panicked_is_dropped_while_the_thread_unwinds() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let (tell, told) = mpsc::channel();
        let future = {
            let tells = Tells(tell.clone());
            // The future keeps it, and not the stack frame of its poll.
            poll_fn(move |_| -> Poll<()> {
                let _kept = &tells;
                panic!("in the poll")
            })
        };
        let task = runtime.spawn(future);
        let id = task.id();
        assert!(task.join().unwrap_err().is_panic());
        found(&told, id, true);
        // If the destructor panics as well, the task ends with the first panic, and nothing else
        // ends.
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("in the destructor");
            }
        }
        let bad = Bad;
        let task = runtime.spawn(poll_fn(move |_| -> Poll<()> {
            let _kept = &bad;
            panic!("in the poll")
        }));
        let payload = task.join().unwrap_err().into_panic();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"in the poll"));
        assert_eq!(runtime.spawn(async { 7 }).join().unwrap(), 7);
    });
}

#[test]
fn suspended_futures_are_dropped_in_their_context_at_shutdown() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let (tell, told) = mpsc::channel();
        let (begun, seen) = mpsc::channel();
        let task = runtime.spawn(async move {
            let _tells = Tells(tell);
            begun.send(()).unwrap();
            pending::<()>().await;
        });
        let id = task.id();
        seen.recv().unwrap();
        drop(runtime);
        found(&told, id, false);
    });
}

#[test]
fn a_runtime_that_was_entered_can_be_shut_down_by_value() {
    isolated(60, || {
        let entered = runtime_with(1);
        let _guard = entered.enter();
        assert_eq!(umcg::spawn(async { 7 }).join().unwrap(), 7);
        entered.shutdown_timeout(Duration::from_secs(60));
        let entered = runtime_with(1);
        let _guard = entered.enter();
        entered.shutdown_background();
    });
}

#[test]
fn handles_may_cross_catch_unwind() {
    isolated(60, || {
        fn check<T: UnwindSafe + RefUnwindSafe>() {}
        check::<Runtime>();
        check::<Handle>();
        check::<ThreadPool>();
        check::<AbortHandle>();
        check::<JoinHandle<Cell<u32>>>();
        check::<thread::Thread>();
        check::<thread::JoinHandle<Cell<u32>>>();
    });
}
