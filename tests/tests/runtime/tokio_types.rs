//! The channels and locks of tokio, which work on any runtime, work on this one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::sync::{Barrier, Mutex, Notify, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use umcg::JoinSet;
use umcg_tests::{isolated, runtime::default_runtime};

#[test]
fn channels_of_tokio_carry_everything() {
    isolated(60, || {
        let runtime = default_runtime();
        runtime.block_on(async {
            let (sender, mut receiver) = mpsc::channel(4);
            for producer in 0..8_u64 {
                let sender = sender.clone();
                if producer % 2 == 0 {
                    drop(umcg::spawn(async move {
                        for i in 0..200 {
                            sender.send(producer * 1_000 + i).await.unwrap();
                        }
                    }));
                } else {
                    // The blocking half of the API blocks a worker like any other call.
                    drop(umcg::spawn_blocking(move || {
                        for i in 0..200 {
                            sender.blocking_send(producer * 1_000 + i).unwrap();
                        }
                    }));
                }
            }
            drop(sender);
            let mut seen = Vec::new();
            while let Some(value) = receiver.recv().await {
                seen.push(value);
            }
            seen.sort_unstable();
            let want: Vec<_> = (0..8)
                .flat_map(|p| (0..200).map(move |i| p * 1_000 + i))
                .collect();
            assert_eq!(seen, want);

            let (ask, mut asked) = mpsc::unbounded_channel::<(u64, oneshot::Sender<u64>)>();
            let server = umcg::spawn(async move {
                while let Some((number, answer)) = asked.recv().await {
                    answer.send(number * number).unwrap();
                }
            });
            for i in 0..200 {
                let (answer, answered) = oneshot::channel();
                ask.send((i, answer)).unwrap();
                assert_eq!(answered.await.unwrap(), i * i);
            }
            drop(ask);
            server.await.unwrap();
        });
    });
}

#[test]
fn locks_of_tokio_exclude_and_wake() {
    isolated(60, || {
        let runtime = default_runtime();
        runtime.block_on(async {
            let (mutex, reads) = (Arc::new(Mutex::new(0_u64)), Arc::new(RwLock::new(0_u64)));
            let (semaphore, barrier) = (Arc::new(Semaphore::new(3)), Arc::new(Barrier::new(40)));
            let inside = Arc::new(AtomicUsize::new(0));
            let mut set = JoinSet::new();
            for i in 0..40 {
                let (mutex, reads) = (Arc::clone(&mutex), Arc::clone(&reads));
                let (semaphore, barrier) = (Arc::clone(&semaphore), Arc::clone(&barrier));
                let inside = Arc::clone(&inside);
                set.spawn(async move {
                    barrier.wait().await;
                    for _ in 0..10 {
                        let permit = semaphore.acquire().await.unwrap();
                        assert!(inside.fetch_add(1, SeqCst) < 3);
                        if i % 4 == 0 {
                            thread::sleep(Duration::from_micros(100));
                        }
                        inside.fetch_sub(1, SeqCst);
                        drop(permit);
                        let mut held = mutex.lock().await;
                        umcg::yield_now().await;
                        *held += 1;
                        drop(held);
                        if i % 2 == 0 {
                            *reads.write().await += 1;
                        } else {
                            assert!(*reads.read().await <= 200);
                        }
                    }
                });
            }
            while let Some(result) = set.join_next().await {
                result.unwrap();
            }
            assert_eq!((*mutex.lock().await, *reads.read().await), (400, 200));
        });
    });
}

#[test]
fn watch_broadcast_and_notify_of_tokio() {
    isolated(60, || {
        let runtime = default_runtime();
        runtime.block_on(async {
            let (shows, mut seen) = watch::channel(0);
            let (casts, mut hears) = broadcast::channel(200);
            let notify = Arc::new(Notify::new());
            let notified = Arc::clone(&notify);
            let watcher = umcg::spawn(async move {
                while *seen.borrow_and_update() < 100 {
                    seen.changed().await.unwrap();
                }
            });
            let listener = umcg::spawn(async move {
                let mut sum = 0;
                while let Ok(value) = hears.recv().await {
                    sum += value;
                }
                sum
            });
            let waiter = umcg::spawn(async move { notified.notified().await });
            for i in 1..=100 {
                shows.send(i).unwrap();
                casts.send(i).unwrap();
                umcg::yield_now().await;
            }
            drop(casts);
            notify.notify_one();
            watcher.await.unwrap();
            assert_eq!(listener.await.unwrap(), 5_050);
            waiter.await.unwrap();
        });
    });
}

tokio::task_local! {
    static NUMBER: u32;
}

#[test]
fn task_locals_of_tokio_follow_their_task() {
    isolated(60, || {
        let runtime = default_runtime();
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                runtime.spawn(NUMBER.scope(number, async move {
                    for _ in 0..10 {
                        assert_eq!(NUMBER.get(), number);
                        umcg::yield_now().await;
                    }
                }))
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert!(NUMBER.try_with(|_| ()).is_err());
    });
}
