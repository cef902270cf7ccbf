//! The combinators, channels and traits of the crate `futures`, which know no runtime, work on this
//! one, also together with its own handles.

use std::{collections::BTreeSet, sync::mpsc as std_mpsc, time::Duration};

use futures::{
    FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
    executor,
    future::{self, RemoteHandle},
    select_biased,
    stream::FuturesUnordered,
    task::{FutureObj, Spawn, SpawnError, SpawnExt},
};
use umcg::{Handle, JoinSet, task, time::sleep};
use umcg_tests::{
    isolated,
    runtime::{SERVERS, runtime_with},
};

#[test]
fn a_stream_of_join_handles_yields_each_task_as_it_ends() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let collector = runtime.spawn(async {
                let (ends, mut tasks): (Vec<_>, FuturesUnordered<_>) = (0..20)
                    .map(|i| {
                        let (end, ended) = oneshot::channel();
                        (end, umcg::spawn(async move { ended.await.map(|()| i) }))
                    })
                    .unzip();
                // The stream polls only those handles that were woken, so a handle that wakes
                // another one's waker, or none, is never seen to end.
                assert!(tasks.next().now_or_never().is_none());
                for (i, end) in ends.into_iter().enumerate().rev() {
                    end.send(()).unwrap();
                    assert_eq!(tasks.next().await.unwrap().unwrap(), Ok(i));
                }
                assert!(tasks.next().await.is_none());
            });
            collector.join().unwrap();
        }
    });
}

#[test]
fn a_wait_that_loses_a_select_loses_no_output() {
    isolated(60, || {
        for servers in SERVERS {
            let runtime = runtime_with(servers);
            let selector = runtime.spawn(async {
                // A handle that is polled in one `select!` after another, and loses each of them
                // until its task may end.
                let (end, ended) = oneshot::channel();
                let mut handle = umcg::spawn(async { ended.await.unwrap() });
                for _ in 0..100 {
                    select_biased! {
                        _ = (&mut handle).fuse() => panic!("the task has not ended"),
                        () = task::yield_now().fuse() => {}
                    }
                }
                end.send("output").unwrap();
                assert_eq!(handle.await.unwrap(), "output");

                // A wait for the next of a set, which is dropped whenever it is not ready at once.
                let mut set = JoinSet::new();
                for i in 0..200 {
                    set.spawn(async move {
                        for _ in 0..i % 7 {
                            task::yield_now().await;
                        }
                        i
                    });
                }
                // One task ends only when ten waits have been dropped.
                let (end, ended) = oneshot::channel();
                let mut end = Some(end);
                set.spawn(async { ended.await.unwrap() });
                let mut outputs = BTreeSet::new();
                let mut dropped = 0;
                loop {
                    select_biased! {
                        next = set.join_next().fuse() => match next {
                            Some(output) => assert!(outputs.insert(output.unwrap())),
                            None => break,
                        },
                        () = sleep(Duration::from_micros(1)).fuse() => {
                            dropped += 1;
                            if dropped == 10 {
                                end.take().unwrap().send(200).unwrap();
                            }
                        }
                    }
                }
                assert!(outputs.into_iter().eq(0..=200));
            });
            selector.join().unwrap();
        }
    });
}

#[test]
fn blocking_senders_and_a_stream_share_one_slot() {
    isolated(60, || {
        // One server: the consumer runs only while each sender that waits for room is off the slot.
        let runtime = runtime_with(1);
        let (sender, receiver) = mpsc::channel(0);
        let senders: Vec<_> = (0..4_u64)
            .map(|producer| {
                let mut sender = sender.clone();
                runtime.spawn_blocking(move || {
                    // Blocks the worker with the executor of `futures`, which parks the thread.
                    for i in 0..50 {
                        executor::block_on(sender.send(producer * 1_000 + i)).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let consumer = runtime.spawn(receiver.collect::<Vec<_>>());
        let seen = consumer.join().unwrap();
        for sender in runtime.block_on(future::join_all(senders)) {
            sender.unwrap();
        }
        // Each sender's items come in its order, and all of them come.
        for producer in 0..4 {
            let of_this = seen.iter().filter(|&&item| item / 1_000 == producer);
            assert!(of_this.copied().eq((0..50).map(|i| producer * 1_000 + i)));
        }
        assert_eq!(seen.len(), 200);
    });
}

#[test]
fn a_foreign_block_on_inside_a_task_stalls_no_other_task() {
    isolated(60, || {
        let runtime = runtime_with(1);
        let (answer, answered) = oneshot::channel();
        let (tell, told) = std_mpsc::channel();
        let waiter = runtime.spawn(async move {
            tell.send(()).unwrap();
            executor::block_on(answered).unwrap()
        });
        told.recv().unwrap();
        // The only slot is the waiter's until it is seen to block. Then these run, one of which
        // ends its wait.
        let others: Vec<_> = (0..10).map(|i| runtime.spawn(async move { i })).collect();
        for (i, other) in others.into_iter().enumerate() {
            assert_eq!(other.join().unwrap(), i);
        }
        assert!(!waiter.is_finished());
        drop(runtime.spawn(async { answer.send(7).unwrap() }));
        assert_eq!(waiter.join().unwrap(), 7);
    });
}

/// What docs/faq.md says of `futures::task::Spawn`.
struct Spawner(Handle);

impl Spawn for Spawner {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> Result<(), SpawnError> {
        drop(self.0.spawn(future));
        Ok(())
    }
}

/// A library that knows only `Spawn`: squares on several tasks, and the ids of these tasks.
fn squares(spawner: &impl Spawn) -> Vec<RemoteHandle<(u64, Option<task::Id>)>> {
    (0..10)
        .map(|i| async move { (i * i, task::try_id()) })
        .map(|square| spawner.spawn_with_handle(square).unwrap())
        .collect()
}

#[test]
fn a_library_spawns_through_a_wrapped_handle() {
    isolated(60, || {
        let runtime = runtime_with(2);
        let spawner = Spawner(runtime.handle().clone());
        let results = runtime.block_on(future::join_all(squares(&spawner)));
        let (numbers, ids): (Vec<_>, BTreeSet<_>) = results.into_iter().unzip();
        assert!(numbers.into_iter().eq((0..10).map(|i| i * i)));
        assert_eq!(ids.len(), 10, "each is a task of its own");
        assert!(!ids.contains(&None), "none ran outside of the runtime");

        // The handle of `futures` cancels what it is dropped for, also in the middle of a wait.
        let (held, dropped) = oneshot::channel::<()>();
        let (begin, begun) = std_mpsc::channel();
        let remote = spawner
            .spawn_with_handle(async move {
                let _held = held;
                begin.send(()).unwrap();
                future::pending::<()>().await;
            })
            .unwrap();
        begun.recv().unwrap();
        drop(remote);
        assert_eq!(runtime.block_on(dropped), Err(oneshot::Canceled));
    });
}
