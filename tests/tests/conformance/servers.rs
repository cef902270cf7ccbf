//! Several servers, and how servers and workers come to an end.

use std::{
    ptr::NonNull,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{List, Register, state};
use umcg_tests::{
    Harness, Me, NO_SUCH_TID, Server, ServerGroup, Worker, assert_errno, blockers::Futex, cpu,
    for_each_provider, in_ms, proc,
};

#[test]
fn two_servers_pick_one_worker_and_one_wins() {
    for_each_provider(|harness| {
        // The worker belongs to one of the two servers, and both name it at the same moment.
        const ROUNDS: usize = 60;
        let barrier = Arc::new(Barrier::new(2));
        let homes: Arc<[AtomicU32; 2]> = Arc::default();
        let picked = Arc::new(Mutex::new(None::<Worker>));
        let wins: Arc<[AtomicU32; 2]> = Arc::default();
        for own in 0..2 {
            let (harness, barrier) = (Arc::clone(harness), Arc::clone(&barrier));
            let (homes, picked) = (Arc::clone(&homes), Arc::clone(&picked));
            let wins = Arc::clone(&wins);
            Arc::clone(&harness).thread("server", move || {
                harness.guarded("server", || {
                    let mut server = Server::named(&harness, &format!("server {own}"));
                    homes[own].store(server.tid(), SeqCst);
                    barrier.wait();
                    let worker = if own == 0 {
                        let worker = harness.worker("worker", server.tid(), move |me| {
                            for _ in 0..=ROUNDS {
                                me.park();
                            }
                        });
                        server.run_until_parked(&worker);
                        *picked.lock().expect("the worker") = Some(worker.clone());
                        barrier.wait();
                        worker
                    } else {
                        barrier.wait();
                        picked
                            .lock()
                            .expect("the worker")
                            .clone()
                            .expect("the worker")
                    };
                    for round in 0..ROUNDS {
                        let home = round % 2;
                        if own == home {
                            worker.task().set_server_tid(server.tid());
                        }
                        server.drain();
                        barrier.wait();
                        let (result, switched) = loop {
                            let result = server.wait(worker.tid(), in_ms(20_000));
                            let switched = server.task().next_tid() == 0;
                            if switched || result.is_err() {
                                break (result, switched);
                            }
                            // A wake-up of the last round came late: try again.
                            server.drain();
                        };
                        if switched {
                            wins[own].fetch_add(1, SeqCst);
                            assert_eq!(own, home, "the winner is the worker's own server");
                        } else {
                            assert_errno(result, libc::EBUSY, "the other one");
                        }
                        // The worker is back in the pool before the next round begins, whichever
                        // way it went.
                        if own == home {
                            server.run_until_parked(&worker);
                            if round + 1 == ROUNDS {
                                server.ready.push_back(worker.tid());
                            }
                        }
                        barrier.wait();
                    }
                    server.run_until("the worker's exit", |_| worker.exited());
                    server.finish();
                });
            });
        }
        harness.until("both servers are done", || {
            let all = harness.records();
            all.len() == 3 && all.iter().all(|record| record.exited.load(SeqCst))
        });
        let wins: Vec<_> = wins.iter().map(|count| count.load(SeqCst)).collect();
        assert_eq!(wins.iter().sum::<u32>() as usize, ROUNDS, "one winner each");
    });
}

/// Trace A6.
#[test]
fn a_worker_may_be_stolen_before_it_comes_to_wait() {
    for_each_provider(|harness| {
        let mut first = Server::named(harness, "first");
        let (left, stolen) = (Futex::default(), Arc::new(AtomicBool::new(false)));
        let worker = harness.worker("worker", first.tid(), {
            let (left, stolen) = (left.clone(), Arc::clone(&stolen));
            move |me| {
                let first = me.task().server_tid();
                // It has left RUNNING and can be found, but has not come to `wait`: it still holds
                // its slot.
                me.leave();
                left.set();
                while !stolen.load(SeqCst) {
                    std::hint::spin_loop();
                }
                me.wait();
                assert_ne!(me.task().server_tid(), first, "it runs on the thief's slot");
                me.step(1);
            }
        });
        first.collect(&worker);
        let tid = first.remove(&worker);
        harness.thread("thief", {
            let (harness, worker, stolen) =
                (Arc::clone(harness), worker.clone(), Arc::clone(&stolen));
            let left = left.clone();
            move || {
                harness.guarded("thief", || {
                    let mut thief = Server::named(&harness, "thief");
                    left.wait();
                    worker.task().set_server_tid(thief.tid());
                    thief.drain();
                    // The thief's wait returns when the worker is done or blocks. The worker leaves
                    // its loop as soon as it sees that it was claimed.
                    let looker = worker.clone();
                    let harness_of_looker = Arc::clone(&harness);
                    harness.thread("looker", move || {
                        harness_of_looker.until("the theft", || looker.state() == state::RUNNING);
                        stolen.store(true, SeqCst);
                    });
                    thief.ready.push_back(worker.tid());
                    thief.run_to_exit(&[&worker]);
                    thief.finish();
                });
            }
        });
        // There is no deadline: the old server must be told that its slot is free.
        first.dispatch(tid, 0).expect("the slot is free again");
        first.sleep_until_slot_is_free();
        harness.until("the worker's exit", || worker.exited());
        assert!(worker.reached(1));
        // And it can run other workers.
        let next = harness.worker("next", first.tid(), |_| {});
        first.run_to_exit(&[&next]);
        first.finish();
    });
}

/// A worker that brings itself into some state and then makes a call which must report the end of
/// its server. After that it is an ordinary thread, which can register again.
fn detached_worker(
    harness: &Arc<Harness>,
    name: &str,
    server: u32,
    call: impl FnOnce(&Me) -> Result<(), umcg_sys::Error> + Send + 'static,
) -> Worker {
    harness.worker_that_just_ends(name, server, move |me| {
        let error = call(me).expect_err("the server is gone");
        assert!(error.is_gone(), "{error}");
        let again = me.provider().checkpoint().expect_err("no task any more");
        assert!(
            again.is_gone() || again.errno() == libc::EINVAL,
            "after that: {again}"
        );
        // It may tell the provider to forget the task. Then nothing is left of it.
        let _ = me.provider().unregister(NonNull::from(me.task()));
        assert_eq!(me.task().state(), state::NONE);
        me.step(1);
    })
}

#[test]
fn a_server_ends_with_workers_in_every_state() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (data, stop) = (Futex::default(), Arc::new(AtomicBool::new(false)));
        // BLOCKED in a system call: it learns of the end at its checkpoint, much later.
        let asleep = detached_worker(harness, "asleep", server.tid(), {
            let data = data.clone();
            move |me| {
                data.wait();
                me.provider().checkpoint()
            }
        });
        server.run_until_blocked(&asleep);
        // In an explicit wait.
        let waiting = detached_worker(harness, "waiting", server.tid(), |me| {
            me.leave();
            me.record().parked.store(true, SeqCst);
            me.provider().wait(0, 0)
        });
        server.run_until_parked(&waiting);
        // Unblocked and at its checkpoint, but not picked.
        let gate = Futex::default();
        let stopped = detached_worker(harness, "stopped", server.tid(), {
            let gate = gate.clone();
            move |me| {
                gate.wait();
                loop {
                    me.provider().checkpoint()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        server.run_until_blocked(&stopped);
        gate.set();
        server.collect(&stopped);
        let _ = server.remove(&stopped);
        // RUNNING, in the slot.
        let running = detached_worker(harness, "running", server.tid(), {
            let stop = Arc::clone(&stop);
            move |me| {
                while !stop.load(SeqCst) {
                    me.provider().checkpoint()?;
                    std::thread::yield_now();
                }
                unreachable!("the server ends first");
            }
        });
        server.hold(&running);
        // Asleep in `register`, with its event on the list, and never run.
        let admitted = harness.worker("admitted", server.tid(), |_| unreachable!("nobody runs it"));
        harness.until("admitted is queued", || {
            admitted.state() == state::RUNNABLE && admitted.task().is_linked(List::Runnable)
        });

        server.finish();
        harness.until("register returns", || admitted.exited());
        assert_eq!(admitted.admission(), Some(libc::ESRCH));
        for worker in [&waiting, &stopped, &running] {
            let what = format!("{} is told", worker.name());
            harness.until(&what, || worker.reached(1));
        }
        assert!(!asleep.reached(1), "the system call was interrupted");
        data.set();
        harness.until("the blocked worker is told", || asleep.reached(1));
        stop.store(true, SeqCst);
    });
}

#[test]
fn workers_of_a_gone_server_can_join_another() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let next = Arc::new(AtomicU32::new(0));
        let worker = harness.worker("worker", server.tid(), {
            let next = Arc::clone(&next);
            move |me| {
                me.leave();
                me.record().parked.store(true, SeqCst);
                let error = me.provider().wait(0, 0).expect_err("the server goes");
                assert!(error.is_gone());
                let _ = me.provider().unregister(NonNull::from(me.task()));
                while next.load(SeqCst) == 0 {
                    std::thread::yield_now();
                }
                me.task().prepare(next.load(SeqCst));
                let task = NonNull::from(me.task());
                // SAFETY: the harness keeps the task.
                unsafe { me.provider().register(task, &Register::worker()) }.expect("register");
                me.step(1);
            }
        });
        server.run_until_parked(&worker);
        server.finish();
        let mut second = Server::named(harness, "second");
        next.store(second.tid(), SeqCst);
        second.run_to_exit(&[&worker]);
        assert!(worker.reached(1));
        second.finish();
    });
}

#[test]
fn a_server_thread_ends_without_unregister() {
    for_each_provider(|harness| {
        let tid = Arc::new(AtomicU32::new(0));
        let go = Futex::default();
        harness.thread("server", {
            let (harness, tid, go) = (Arc::clone(harness), Arc::clone(&tid), go.clone());
            move || {
                let server = Server::named(&harness, "server");
                tid.store(server.tid(), SeqCst);
                go.wait();
                server.forget();
            }
        });
        harness.until("a server", || tid.load(SeqCst) != 0);
        let worker = harness.worker("worker", tid.load(SeqCst), |_| {
            unreachable!("nobody runs it")
        });
        harness.until("queued", || worker.state() == state::RUNNABLE);
        go.set();
        harness.until("register returns", || worker.exited());
        assert_eq!(worker.admission(), Some(libc::ESRCH));
        assert_errno(
            harness.provider().preempt(tid.load(SeqCst)),
            libc::ESRCH,
            "the server",
        );
    });
}

/// The worker left RUNNING, offered itself and was picked. Its thread ends without having come to
/// `wait`.
#[test]
fn a_worker_thread_ends_after_it_was_picked() {
    for_each_provider(|harness| {
        if harness.provider().facts().exact_stop {
            // With an exact stop, only another server can take a worker out of its slot before its
            // `wait`.
            return;
        }
        let mut server = Server::start(harness);
        for _ in 0..10 {
            let worker = harness.worker_that_just_ends("worker", server.tid(), {
                let server = server.tid();
                move |me| {
                    me.leave();
                    me.record().offered.store(server, SeqCst);
                    while me.task().state() != state::RUNNING {
                        std::thread::yield_now();
                    }
                }
            });
            // The server preempts the worker and then picks it. If the slot were lost, no later
            // worker would be picked.
            server.run_to_exit(&[&worker]);
        }
        server.finish();
    });
}

#[test]
fn a_worker_thread_ends_without_unregister() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        // The thread of the holder ends: the server must get its slot back, and wake up.
        let holder = harness.worker_that_just_ends("holder", server.tid(), |_| {});
        server.collect(&holder);
        let next = server.remove(&holder);
        server.dispatch(next, 0).expect("the slot is free again");
        server.run_to_exit(&[&holder]);
        // A thread ends after a block and without a checkpoint, so it may have no slot.
        let data = Futex::default();
        let late = harness.worker_that_just_ends("late", server.tid(), {
            let data = data.clone();
            move |_| data.wait()
        });
        server.run_until_blocked(&late);
        data.set();
        let tid = late.tid();
        server.run_until("the thread is gone", |_| proc::state(tid).is_none());
        for gone in [&holder, &late] {
            assert_eq!(gone.state(), state::NONE);
            assert!(!gone.task().is_linked(List::Blocked));
            assert!(!gone.task().is_linked(List::Runnable));
            assert_errno(
                harness.provider().preempt(gone.tid()),
                libc::ESRCH,
                gone.name(),
            );
        }
        // The other tasks go on.
        let worker = harness.worker("worker", server.tid(), |me| me.yield_now());
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn a_worker_that_unregisters_wakes_its_server() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |_| {});
        server.collect(&worker);
        let next = server.remove(&worker);
        server.dispatch(next, 0).expect("woken by the unregister");
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Trace A11.
#[test]
fn unregister_waits_until_the_worker_is_on_no_list() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = harness.spinner("worker", server.tid(), &stop);
        server.hold(&worker);
        // The worker is out of its slot, so that both events are pushed.
        server.preempt(&worker);
        harness.until("both events", || worker.task().is_linked(List::Runnable));
        let linked = worker.task().is_linked(List::Blocked);
        // The server takes only the token, and runs the worker while it is on the other list.
        server.task().begin_drain();
        assert_eq!(server.task().take(List::Runnable).count(), 1);
        stop.store(true, SeqCst);
        let _ = server.wait(worker.tid(), in_ms(50));
        if server.task().next_tid() != 0 {
            server.ready.push_back(worker.tid());
        } else if linked {
            assert!(
                !worker.exited() || !worker.task().is_linked(List::Blocked),
                "unregister returned with the worker on a list"
            );
        }
        server.run_to_exit(&[&worker]);
        assert!(!worker.task().is_linked(List::Blocked));
        server.finish();
    });
}

#[test]
fn workers_come_and_go() {
    for_each_provider(|harness| {
        let group = ServerGroup::start(harness, 2);
        for round in 0..10 {
            let workers: Vec<_> = (0..6)
                .map(|index| {
                    let body = move |me: &Me| {
                        if index % 2 == 0 {
                            me.sleep(Duration::from_micros(100 * index));
                        }
                        me.yield_now();
                    };
                    let home = group.tid(round + index as usize);
                    if index % 3 == 0 {
                        harness.worker_that_just_ends("ends", home, body)
                    } else {
                        harness.worker("leaves", home, body)
                    }
                })
                .collect();
            harness.until("all exit", || workers.iter().all(Worker::exited));
        }
        group.finish();
    });
}

#[test]
fn servers_come_and_go_beside_each_other() {
    for_each_provider(|harness| {
        for _ in 0..5 {
            let group = ServerGroup::start(harness, 3);
            let worker = harness.worker("worker", group.tid(1), |me| me.yield_now());
            harness.until("it exits", || worker.exited());
            group.finish();
        }
        assert_errno(
            harness.provider().preempt(NO_SUCH_TID),
            libc::ESRCH,
            "nobody",
        );
    });
}

#[test]
fn a_thread_is_ordinary_again_after_unregister() {
    for_each_provider(|harness| {
        // Affinity, policy and time slice are what they were, for a server and for a worker.
        let everywhere = cpu::affinity();
        let own = *everywhere.last().expect("a CPU");
        let check = move |slice: u64| {
            assert_eq!(cpu::affinity(), [own], "the thread's own affinity");
            assert_eq!(cpu::policy(0), libc::SCHED_OTHER, "the thread's own policy");
            assert_eq!(cpu::slice(), slice, "the thread's own time slice");
        };
        harness.thread("server", {
            let harness = Arc::clone(harness);
            move || {
                harness.guarded("server", || {
                    cpu::set_affinity(0, &[own]).expect("a CPU of the own mask");
                    let slice = cpu::slice();
                    let mut server = Server::named(&harness, "server");
                    // The thread of the worker inherits this slice.
                    let inherited = cpu::slice();
                    let worker = harness.worker_that_just_ends("worker", server.tid(), {
                        move |me| {
                            me.yield_now();
                            me.unregister();
                            check(inherited);
                        }
                    });
                    server.run_to_exit(&[&worker]);
                    server.finish();
                    check(slice);
                });
            }
        });
    });
}

/// A thread that a worker starts has the policy and the time slice of the worker, until it gives
/// them up.
#[test]
fn a_thread_of_a_worker_may_become_ordinary() {
    for_each_provider(|harness| {
        let everybodys = cpu::slice();
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), move |_| {
            let inherited = cpu::slice();
            let other = std::thread::spawn(move || {
                assert_eq!(cpu::slice(), inherited, "a thread inherits the slice");
                umcg_sys::unmanage_current_thread();
                (cpu::policy(0), cpu::slice())
            });
            assert_eq!(
                other.join().expect("the thread"),
                (libc::SCHED_OTHER, everybodys)
            );
        });
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}
