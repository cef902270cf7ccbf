//! Traps of the mailing-list history that no other module covers. `TRAPS.md` names the tests for
//! every trap, or says why there is none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{List, UmcgTask, state};
use umcg_tests::{
    Server, ServerGroup, Worker, assert_errno, blockers::Futex, for_each_provider, in_ms, now_ns,
};

/// Trap 5.
#[test]
fn a_worker_is_stolen_while_it_switches_to_another() {
    for_each_provider(|harness| {
        let mut first = Server::named(harness, "first");
        let other = harness.worker("other", first.tid(), |me| {
            me.park();
            me.step(1);
        });
        first.run_until_parked(&other);
        let (left, stolen) = (Futex::default(), Arc::new(AtomicBool::new(false)));
        let worker = harness.worker("worker", first.tid(), {
            let (left, stolen) = (left.clone(), Arc::clone(&stolen));
            let other = other.clone();
            move |me| {
                let home = me.task().server_tid();
                me.leave();
                left.set();
                while !stolen.load(SeqCst) {
                    std::hint::spin_loop();
                }
                // The owner of this choice sets it, after the worker was stolen, so that no server
                // takes it for an armed worker.
                me.task().set_next_tid(other.tid());
                me.wait();
                // Either way the choice is in one place only: here, or at its server.
                if me.task().clear_next_tid(other.tid()) {
                    other.record().offered.store(home, SeqCst);
                    me.provider().wake(home).expect("tell its server");
                }
            }
        });
        first.collect(&worker);
        let tid = first.remove(&worker);
        harness.thread("thief", {
            let (harness, worker) = (Arc::clone(harness), worker.clone());
            move || {
                harness.guarded("thief", || {
                    let mut thief = Server::named(&harness, "thief");
                    left.wait();
                    worker.task().set_server_tid(thief.tid());
                    let looker = worker.clone();
                    let of_looker = Arc::clone(&harness);
                    harness.thread("looker", move || {
                        of_looker.until("the theft", || looker.state() == state::RUNNING);
                        stolen.store(true, SeqCst);
                    });
                    thief.ready.push_back(worker.tid());
                    thief.run_to_exit(&[&worker]);
                    thief.finish();
                });
            }
        });
        first.dispatch(tid, 0).expect("the slot is free again");
        first.run_to_exit(&[&worker, &other]);
        assert!(
            other.reached(1),
            "the choice of the stolen worker is not lost"
        );
        first.finish();
    });
}

/// Trap 6.
#[test]
fn a_block_between_leave_and_a_switch_loses_nobody() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let other = harness.worker("other", server.tid(), |me| {
            me.park();
            me.step(1);
        });
        server.run_until_parked(&other);
        let data = Futex::default();
        let worker = harness.worker("worker", server.tid(), {
            let (data, other) = (data.clone(), other.tid());
            move |me| {
                me.leave();
                // A worker should not block here (trace B10). If it does, it loses its slot, and
                // neither the worker nor its choice is lost.
                data.wait();
                me.task().set_next_tid(other);
                me.record().offered.store(me.task().server_tid(), SeqCst);
                me.wait();
                if me.task().clear_next_tid(other) {
                    let other = me.harness().by_tid(other).expect("the other worker");
                    other.offered.store(me.task().server_tid(), SeqCst);
                }
            }
        });
        server.collect(&worker);
        let next = server.remove(&worker);
        server.dispatch(next, 0).expect("the slot is free again");
        data.set();
        server.run_to_exit(&[&worker, &other]);
        assert!(other.reached(1));
        server.finish();
    });
}

/// Trap 7. Each takes a worker out of the pool and switches to it, and offers itself.
#[test]
fn three_workers_switch_in_a_ring_and_block() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..3)
            .map(|index| {
                harness.worker(&format!("worker {index}"), server.tid(), move |me| {
                    for round in 0..60_u64 {
                        let all = me.harness().records();
                        let waits = all
                            .iter()
                            .find(|record| record.parked.swap(false, SeqCst))
                            .map(|record| record.task.tid());
                        match waits {
                            Some(tid) => me.switch_to(tid),
                            None => me.park(),
                        }
                        if (round + index) % 7 == 0 {
                            me.sleep(Duration::from_micros(80));
                        }
                    }
                })
            })
            .collect();
        server.run_until("all exit", |server| {
            // A worker that waits while nobody is left who could switch to it.
            for worker in &workers {
                if server.ready.is_empty() && worker.unpark() {
                    server.ready.push_back(worker.tid());
                }
            }
            workers.iter().all(Worker::exited)
        });
        stop.store(true, SeqCst);
        server.finish();
    });
}

/// Trap 40.
#[test]
fn late_and_lost_preemptions_are_harmless() {
    for_each_provider(|harness| {
        let group = ServerGroup::start(harness, 2);
        let workers: Vec<_> = (0..4)
            .map(|index| {
                harness.worker(&format!("worker {index}"), group.tid(index), |me| {
                    for round in 0..60 {
                        me.yield_now();
                        me.sleep(Duration::from_micros(1 + round % 50));
                        me.checkpoint();
                    }
                })
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        harness.thread("preempter", {
            let (stop, provider) = (Arc::clone(&stop), Arc::clone(harness.provider()));
            let tids: Vec<_> = workers.iter().map(Worker::tid).collect();
            move || {
                while !stop.load(SeqCst) {
                    for &tid in &tids {
                        // ESRCH: the worker has ended.
                        let _ = provider.preempt(tid);
                    }
                    std::thread::sleep(Duration::from_micros(30));
                }
            }
        });
        harness.until("all exit", || workers.iter().all(Worker::exited));
        stop.store(true, SeqCst);
        group.finish();
    });
}

/// Trap 42. The deadlines are about as long as the sleeps of the worker, or already past.
#[test]
fn a_deadline_that_races_an_event_loses_nothing() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            for round in 0..300 {
                me.sleep(Duration::from_micros(20 + round % 60));
            }
        });
        let mut turn = 0;
        while !worker.exited() {
            harness.check();
            turn += 1;
            let now = now_ns();
            let length = [0, 30_000, 60_000, 90_000][turn % 4];
            server.turn(now + length);
        }
        server.finish();
    });
}

/// Trap 43. For this there is no call of the provider: it is a queue in user space.
#[test]
fn a_worker_wakes_a_worker_through_its_server() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let waiter = harness.worker("waiter", server.tid(), |me| {
            me.park();
            me.step(1);
        });
        server.run_until("waiter waits", |_| waiter.record().parked.load(SeqCst));
        let waker = harness.worker("waker", server.tid(), {
            let waiter = waiter.clone();
            move |me| {
                assert!(waiter.unpark());
                let server = me.task().server_tid();
                waiter.record().offered.store(server, SeqCst);
            }
        });
        server.run_to_exit(&[&waker, &waiter]);
        server.finish();
    });
}

/// Traps 44 and k.
#[test]
fn after_a_direct_switch_the_new_worker_holds_the_slot() {
    for_each_provider(|harness| {
        harness.attempt("a direct switch", || {
            let mut server = Server::start(harness);
            let stop = Arc::new(AtomicBool::new(false));
            let holds = Arc::new(AtomicU32::new(0));
            let second = harness.worker("second", server.tid(), {
                let (stop, holds) = (Arc::clone(&stop), Arc::clone(&holds));
                move |me| {
                    me.park();
                    let server = me.task().server_tid();
                    let current = me.provider().current(server);
                    holds.store(current.unwrap_or(0), SeqCst);
                    me.spin_until(|| stop.load(SeqCst));
                }
            });
            server.run_until_parked(&second);
            let first = harness.worker("first", server.tid(), {
                let second = second.tid();
                move |me| me.switch_to(second)
            });
            server.collect(&first);
            let before = harness.disturbances(server.tid());
            let next = server.remove(&first);
            let result = server.dispatch(next, in_ms(5));
            let named = server.task().next_tid();
            let current = server.current();
            let quiet = harness.disturbances(server.tid()) == before
                && result.is_err_and(|error| error.is_timeout())
                && holds.load(SeqCst) != 0;
            stop.store(true, SeqCst);
            server.run_to_exit(&[&first, &second]);
            server.finish();
            if quiet {
                assert_eq!(named, 0, "the server's next_tid names nobody");
                assert_eq!(current, Some(second.tid()));
                assert_eq!(holds.load(SeqCst), second.tid());
            }
            quiet
        });
    });
}

/// Trap 47, checklist 46. The lists alone, without a provider: several threads push single
/// tasks, and one takes all of them.
#[test]
fn every_push_is_taken_once_under_concurrency() {
    const PUSHERS: usize = 3;
    const ROUNDS: u32 = 3000;
    let server = UmcgTask::new();
    let workers: [UmcgTask; PUSHERS] = Default::default();
    let taken: [AtomicU32; PUSHERS] = Default::default();
    let pushed: [AtomicU32; PUSHERS] = Default::default();
    let (server, workers, taken, pushed) = (&server, &workers, &taken, &pushed);
    std::thread::scope(|scope| {
        for index in 0..PUSHERS {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    // SAFETY: the tasks outlive the scope.
                    if unsafe { server.push(List::Blocked, &workers[index]) } {
                        pushed[index].fetch_add(1, SeqCst);
                    }
                    // The event of the same worker also comes from another pusher.
                    let next = (index + 1) % PUSHERS;
                    // SAFETY: as above.
                    if unsafe { server.push(List::Blocked, &workers[next]) } {
                        pushed[next].fetch_add(1, SeqCst);
                    }
                }
            });
        }
        scope.spawn(move || {
            let mut quiet = 0;
            while quiet < 1000 {
                quiet += 1;
                for task in server.take(List::Blocked) {
                    let index = workers
                        .iter()
                        .position(|worker| std::ptr::eq(worker, task.as_ptr()))
                        .expect("one of the workers");
                    taken[index].fetch_add(1, SeqCst);
                    quiet = 0;
                }
                std::thread::yield_now();
            }
        });
    });
    for task in server.take(List::Blocked) {
        let index = workers
            .iter()
            .position(|worker| std::ptr::eq(worker, task.as_ptr()))
            .expect("one of the workers");
        taken[index].fetch_add(1, SeqCst);
    }
    for index in 0..PUSHERS {
        let counts = (pushed[index].load(SeqCst), taken[index].load(SeqCst));
        assert_eq!(counts.0, counts.1, "a push was lost, or was taken twice");
        assert!(!workers[index].is_linked(List::Blocked));
    }
}

/// Trap i.
#[test]
fn a_block_after_a_refused_wait_is_seen() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let data = Futex::default();
        let worker = harness.worker("worker", server.tid(), {
            let data = data.clone();
            move |me| {
                let error = me.failing_wait("a deadline", 0, in_ms(1000), 0);
                assert_eq!(error.errno(), libc::EINVAL);
                me.step(1);
                me.blocking(|| data.wait());
            }
        });
        server.run_until("the block after it is reported", |_| {
            worker.reached(1) && worker.state() == state::BLOCKED && worker.asleep()
        });
        data.set();
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Trap j.
#[test]
fn the_high_bits_of_a_tid_count() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |_| {});
        server.collect(&worker);
        for bit in [1 << 30, 1 << 31] {
            let result = server.insist(worker.tid() | bit, 0);
            assert_errno(result, libc::ESRCH, "a tid with a high bit");
            let result = harness.provider().preempt(worker.tid() | bit);
            assert_errno(result, libc::ESRCH, "a tid with a high bit");
            let result = harness.provider().wake(server.tid() | bit);
            assert_errno(result, libc::ESRCH, "a tid with a high bit");
        }
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}
