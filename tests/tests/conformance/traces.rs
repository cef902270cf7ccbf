//! The traces that shaped the protocol (`docs/traces.md`), as far as a test can bring them about
//! from outside. The model checks beside the provider go through all interleavings. `TRAPS.md` also
//! lists the tests of traces that are in other modules.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{List, ProviderKind, UmcgTask, state};
use umcg_tests::{
    Harness, Me, Server, ServerGroup, Worker, blockers::Futex, cpu, for_each_provider, in_ms, proc,
    wrong_verdicts,
};

/// Workers of one server hand the slot to each other as fast as they can, and block for a moment
/// now and then, so that verdicts and hand-offs meet in every order.
fn verdicts_and_hand_offs(harness: &Arc<Harness>, rounds: u64) {
    let mut server = Server::start(harness);
    let workers: Vec<_> = (0..3)
        .map(|index| {
            harness.worker(&format!("worker {index}"), server.tid(), move |me| {
                for round in 0..rounds {
                    me.yield_now();
                    if (round + index) % 5 == 0 {
                        me.sleep(Duration::from_micros(1 + round % 60));
                    }
                }
            })
        })
        .collect();
    server.run_without_deadline(&workers.iter().collect::<Vec<_>>());
    server.finish();
}

/// Trace A1.
#[test]
fn a_verdict_hits_only_the_dispatch_that_it_saw() {
    for_each_provider(|harness| verdicts_and_hand_offs(harness, 400));
}

/// The reason why a verdict needs a confirmation: the sentinel now and then gets its CPU beside a
/// worker that computes, and learns only by a `sched_yield` that another thread wants the CPU.
#[test]
fn a_worker_that_computes_is_not_taken_for_blocked() {
    if wrong_verdicts() {
        // The wrong verdicts of such a run count as those of the sentinel.
        return;
    }
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("computes", server.tid(), |me| {
            let end = std::time::Instant::now() + Duration::from_secs(1);
            while std::time::Instant::now() < end {
                std::hint::spin_loop();
                me.checkpoint();
            }
        });
        server.run_to_exit(&[&worker]);
        let count = harness.provider().counters(server.tid()).unwrap();
        server.finish();
        assert!(count.blocks_sentinel <= 2, "{count:?}");
    });
}

/// Trace B6. A worker that blocked, came back and computes unmanaged is put into the slot of
/// the next worker that blocks. Without that, yet another worker would run beside it.
#[test]
fn a_worker_that_is_found_awake_is_adopted_into_the_slot() {
    for_each_provider(|harness| {
        if harness.provider().kind() != ProviderKind::Emulated {
            // On other providers no worker runs unmanaged.
            return;
        }
        harness.attempt("an adoption, with no verdict from elsewhere", || {
            let mut server = Server::start(harness);
            let (data, stop) = (Futex::default(), Arc::new(AtomicBool::new(false)));
            let computes = harness.worker("computes", server.tid(), {
                let (data, stop) = (data.clone(), Arc::clone(&stop));
                move |me| {
                    data.wait();
                    // It makes no checkpoint, like code that reads a file and then computes.
                    while !stop.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                    me.checkpoint();
                }
            });
            server.run_until_blocked(&computes);
            data.set();
            // Only a few: a server remembers only its last few blocks.
            let blocks = harness.worker("blocks", server.tid(), |me| {
                for _ in 0..4 {
                    me.sleep(Duration::from_millis(5));
                }
            });
            let mut seen = false;
            server.run_until("an adoption, or the end of the blocks", |server| {
                let count = server.provider().counters(server.tid());
                seen |= count.is_some_and(|count| count.adopted > 0);
                seen || blocks.finishing()
            });
            stop.store(true, SeqCst);
            server.run_to_exit(&[&computes, &blocks]);
            server.finish();
            seen
        });
    });
}

/// Trace A3.
#[test]
fn a_linked_worker_is_not_pushed_again() {
    let server = UmcgTask::new();
    let workers: [UmcgTask; 3] = Default::default();
    for list in [List::Blocked, List::Runnable] {
        // SAFETY: none of the tasks is freed before its events are taken.
        unsafe {
            for worker in &workers {
                assert!(server.push(list, worker));
            }
            // Wherever a worker is on the list, its event is pending and the list does not change.
            for worker in &workers {
                assert!(!server.push(list, worker), "pending");
                assert!(worker.is_linked(list));
            }
        }
        let taken: Vec<_> = server.take(list).collect();
        let newest_first: Vec<_> = workers.iter().rev().map(std::ptr::NonNull::from).collect();
        assert_eq!(taken, newest_first);
        for worker in &workers {
            assert!(!worker.is_linked(list));
            // SAFETY: as above.
            assert!(unsafe { server.push(list, worker) }, "and once more");
        }
        assert_eq!(server.take(list).count(), workers.len());
    }
}

/// Trace A3.
#[test]
fn a_worker_is_unlinked_before_it_is_handed_out() {
    let server = UmcgTask::new();
    let workers: [UmcgTask; 3] = Default::default();
    // SAFETY: none of the tasks is freed before its events are taken.
    unsafe {
        for worker in &workers {
            server.push(List::Runnable, worker);
        }
        let mut pushed_again = 0;
        for worker in server.take(List::Runnable) {
            assert!(!worker.as_ref().is_linked(List::Runnable));
            if server.push(List::Runnable, worker.as_ref()) {
                pushed_again += 1;
            }
        }
        assert_eq!(pushed_again, 3);
        assert_eq!(server.take(List::Runnable).count(), 3);
    }
}

/// Trace A3. The worker may take the slot of its idle server by itself and block again, while
/// its last block has not been drained yet.
#[test]
fn short_blocks_of_the_only_worker_of_an_idle_server() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            for round in 0..400 {
                me.sleep(Duration::from_micros(1 + round % 90));
            }
        });
        server.run_without_deadline(&[&worker]);
        server.finish();
    });
}

/// Trace A4. What a judge that was overtaken still has to do names the dispatch that it judged.
/// Runs with injected wrong verdicts (`UMCG_FAULT`) bring many such judges about.
#[test]
fn an_overtaken_verdict_changes_nothing() {
    for_each_provider(|harness| {
        for servers in [2, 3] {
            let group = ServerGroup::start(harness, servers);
            let workers: Vec<_> = (0..5)
                .map(|index| {
                    harness.worker(&format!("worker {index}"), group.tid(index), |me| {
                        for round in 0..200 {
                            me.sleep(Duration::from_micros(1 + round % 40));
                            me.yield_now();
                        }
                    })
                })
                .collect();
            harness.until("all exit", || workers.iter().all(Worker::exited));
            group.finish();
        }
    });
}

/// Trace A5.
#[test]
fn helper_threads_take_no_signals() {
    for_each_provider(|harness| {
        if harness.provider().kind() != ProviderKind::Emulated {
            return;
        }
        let server = Server::start(harness);
        let all = |tid: u32| {
            // A sentinel of the provider before may be ending just now.
            let Some(mask) = proc::status(tid, "SigBlk") else {
                return true;
            };
            let mask = u64::from_str_radix(&mask, 16).expect("a mask");
            // All signals but KILL and STOP, which cannot be blocked, and the two that libc keeps
            // for itself.
            let needed: u64 = !(1 << 8 | 1 << 18 | 0b11 << 31);
            mask & needed == needed
        };
        let mut idle = 0;
        for tid in proc::threads() {
            let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
            let name = name.unwrap_or_default();
            if cpu::policy(tid) == libc::SCHED_IDLE {
                idle += 1;
                assert!(all(tid), "{} takes signals", name.trim());
            }
            if name.starts_with("umcg-") {
                assert!(all(tid), "{} takes signals", name.trim());
            }
        }
        let pinned = harness
            .provider()
            .counters(server.tid())
            .is_some_and(|count| count.cpu.is_some());
        let sentinels = !harness.provider().describe().contains("without sentinels");
        assert!(!pinned || !sentinels || idle > 0, "no sentinel was found");
        server.finish();
    });
}

/// Trace A8.
#[test]
fn a_worker_that_was_judged_does_not_leave() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (judged, refused) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let worker = harness.worker("worker", server.tid(), {
            let (judged, refused) = (Arc::clone(&judged), Arc::clone(&refused));
            move |me| {
                while !judged.load(SeqCst) {
                    std::hint::spin_loop();
                    std::thread::yield_now();
                }
                // It runs unmanaged, where a preemption is a verdict. Or it was stopped, and is
                // back.
                if !me.task().leave() {
                    refused.fetch_add(1, SeqCst);
                    assert_eq!(me.task().state(), state::BLOCKED);
                    me.checkpoint();
                    me.leave();
                }
                me.record().offered.store(me.task().server_tid(), SeqCst);
                me.wait();
            }
        });
        server.collect(&worker);
        let tid = server.remove(&worker);
        let _ = server.dispatch(tid, in_ms(5));
        server.preempt(&worker);
        judged.store(true, SeqCst);
        server.run_to_exit(&[&worker]);
        if !harness.provider().facts().exact_stop {
            assert_eq!(
                refused.load(SeqCst),
                1,
                "it left RUNNING although it was judged"
            );
        }
        server.finish();
    });
}

/// Trace A8.
#[test]
fn a_preemption_between_leave_and_wait_loses_nobody() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (left, go) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        const ROUNDS: u64 = 50;
        let worker = harness.worker("worker", server.tid(), {
            let (left, go) = (Arc::clone(&left), Arc::clone(&go));
            move |me| {
                for round in 1..=ROUNDS {
                    me.leave();
                    left.store(round, SeqCst);
                    while go.load(SeqCst) < round {
                        std::hint::spin_loop();
                    }
                    me.record().offered.store(me.task().server_tid(), SeqCst);
                    me.wait();
                }
            }
        });
        harness.thread("preempter", {
            let (provider, tid) = (Arc::clone(harness.provider()), worker.tid());
            let harness = Arc::clone(harness);
            move || {
                harness.guarded("preempter", || {
                    for round in 1..=ROUNDS {
                        harness.until("the window", || left.load(SeqCst) >= round);
                        provider.preempt(tid).expect("preempt in the window");
                        go.store(round, SeqCst);
                    }
                });
            }
        });
        // There are no deadlines: the server must be told that its slot is free.
        server.run_without_deadline(&[&worker]);
        server.finish();
    });
}

/// Trace A8.
#[test]
fn a_wait_without_a_slot_wakes_nobody() {
    for_each_provider(|harness| {
        harness.attempt(
            "a wait of a worker that lost its slot in the window",
            || {
                let mut server = Server::start(harness);
                let (data, stop) = (Futex::default(), Arc::new(AtomicBool::new(false)));
                // It sleeps between `leave` and `wait`, which it should not do: it is judged, and
                // is already queued.
                let sleeper = harness.worker("sleeper", server.tid(), {
                    let data = data.clone();
                    move |me| {
                        me.leave();
                        me.step(1);
                        data.wait();
                        me.record().parked.store(true, SeqCst);
                        me.step(2);
                        me.wait();
                    }
                });
                server.collect(&sleeper);
                let next = server.remove(&sleeper);
                server.dispatch(next, 0).expect("the slot is free again");
                if !sleeper.reached(1) {
                    // It was judged before it left RUNNING.
                    data.set();
                    server.run_until_parked(&sleeper);
                    server.ready.push_back(sleeper.tid());
                    server.run_to_exit(&[&sleeper]);
                    server.finish();
                    return false;
                }
                // Now another worker holds the slot, and the server sleeps.
                let woken = Arc::new(AtomicBool::new(true));
                let runner = harness.worker("runner", server.tid(), {
                    let (record, sleeper) = (Arc::clone(server.record()), sleeper.clone());
                    let (woken, stop) = (Arc::clone(&woken), Arc::clone(&stop));
                    move |me| {
                        let turns = record.turns.load(SeqCst);
                        data.set();
                        me.spin_until(|| sleeper.reached(2));
                        for _ in 0..100 {
                            std::thread::yield_now();
                            me.checkpoint();
                        }
                        woken.store(
                            record.turns.load(SeqCst) != turns
                                || record.task.state() != state::RUNNABLE,
                            SeqCst,
                        );
                        stop.store(true, SeqCst);
                    }
                });
                server.collect(&runner);
                let next = server.remove(&runner);
                let before = harness.disturbances(server.tid());
                server.dispatch(next, 0).expect("until the runner leaves");
                let quiet = stop.load(SeqCst) && harness.disturbances(server.tid()) == before;
                server.run_until_parked(&sleeper);
                server.ready.push_back(sleeper.tid());
                server.run_to_exit(&[&sleeper, &runner]);
                server.finish();
                assert!(!quiet || !woken.load(SeqCst), "it woke the server");
                quiet
            },
        );
    });
}

/// Trace A8.
#[test]
fn a_worker_that_lost_its_slot_before_it_offered_itself_is_found() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), {
            let (server, harness) = (Arc::clone(server.record()), Arc::clone(harness));
            move |me| {
                for _ in 0..10 {
                    me.leave();
                    // It sleeps between `leave` and `wait`, which it should not do: the slot goes
                    // back to the server, which finds nobody and idles.
                    let tid = server.task.tid();
                    harness.until("the server idles", || {
                        me.provider().current(tid).is_none()
                            && server.task.state() == state::RUNNABLE
                            && proc::asleep(tid)
                    });
                    me.record().offered.store(tid, SeqCst);
                    me.wait();
                }
            }
        });
        // There are no deadlines: the server must be told that there is a worker now.
        server.run_without_deadline(&[&worker]);
        server.finish();
    });
}

/// Trace A9, trap 17.
#[test]
fn an_armed_worker_is_taken_back_or_consumed_and_never_both() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let runs = Arc::new(AtomicU32::new(0));
        let spare = harness.worker("spare", server.tid(), {
            let (stop, runs) = (Arc::clone(&stop), Arc::clone(&runs));
            move |me| {
                while !stop.load(SeqCst) {
                    me.park();
                    runs.fetch_add(1, SeqCst);
                }
            }
        });
        server.run_until_parked(&spare);
        let mut consumed = 0;
        for round in 0..60_u64 {
            let back = Arc::new(AtomicU32::new(0));
            let sleeper = harness.worker("sleeper", server.tid(), {
                let back = Arc::clone(&back);
                move |me| {
                    // Sometimes this is too short to be seen.
                    me.sleep(Duration::from_micros(1 + (round % 8) * 40));
                    // A worker that ends must leave nobody in its next_tid.
                    if let Some(tid) = me.provider().disarm(me.task()) {
                        back.store(tid, SeqCst);
                    }
                }
            });
            server.collect(&sleeper);
            let next = server.remove(&sleeper);
            sleeper.task().set_next_tid(spare.tid());
            let _ = server.dispatch(next, in_ms(2));
            if server.task().next_tid() == next {
                server.ready.push_back(next);
            }
            // Perhaps this is in the middle of the block, or at the same time as the worker's own
            // `disarm`.
            let taken = harness.provider().disarm(sleeper.task());
            assert!(taken.is_none_or(|tid| tid == spare.tid()));
            server.run_to_exit(&[&sleeper]);
            match (taken, back.load(SeqCst)) {
                (Some(_), 0) => {}
                (None, tid) if tid == spare.tid() => {}
                (None, 0) => {
                    consumed += 1;
                    server.run_until_parked(&spare);
                }
                twice => panic!("taken back twice: {twice:?}"),
            }
            // The test owns the spare again, exactly once.
            assert!(!spare.unpark());
            assert_eq!(
                runs.load(SeqCst),
                consumed,
                "it must run once each time that it is consumed"
            );
        }
        stop.store(true, SeqCst);
        server.ready.push_back(spare.tid());
        server.run_to_exit(&[&spare]);
        assert_eq!(runs.load(SeqCst), consumed + 1);
        server.finish();
    });
}

/// Trace A9.
#[test]
fn a_worker_of_another_server_cannot_be_armed() {
    for_each_provider(|harness| {
        let group = ServerGroup::start(harness, 1);
        let foreign = harness.worker("foreign", group.tid(0), Me::park);
        harness.until("in the pool", || foreign.unpark());
        let mut server = Server::start(harness);
        let data = Futex::default();
        let sleeper = harness.sleeper("sleeper", server.tid(), &data);
        server.collect(&sleeper);
        let next = server.remove(&sleeper);
        sleeper.task().set_next_tid(foreign.tid());
        server
            .dispatch(next, 0)
            .expect("the block wakes the server");
        assert_eq!(foreign.state(), state::RUNNABLE, "not switched to");
        assert_eq!(server.current(), None);
        assert_eq!(
            harness.provider().disarm(sleeper.task()),
            Some(foreign.tid()),
            "the caller does not have it back"
        );
        data.set();
        server.run_to_exit(&[&sleeper]);
        server.finish();
        foreign.record().offered.store(group.tid(0), SeqCst);
        harness.until("foreign ends", || foreign.exited());
        group.finish();
    });
}

/// Trace A13.
#[test]
fn the_holder_of_a_spin_lock_runs_although_another_worker_spins() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let lock = Arc::new(AtomicBool::new(false));
        let data = Futex::default();
        // The holder takes the lock, blocks with it, and is stopped on its way out while it still
        // has the lock.
        let holder = harness.worker("holder", server.tid(), {
            let (lock, data) = (Arc::clone(&lock), data.clone());
            move |me| {
                lock.store(true, SeqCst);
                me.step(1);
                me.blocking(|| data.wait());
                lock.store(false, SeqCst);
            }
        });
        server.run_until("the holder blocks", |_| {
            holder.reached(1) && holder.state() == state::BLOCKED && holder.asleep()
        });
        // The spinner waits for the lock, never blocks, and comes to no checkpoint by itself.
        let spinner = harness.worker("spinner", server.tid(), {
            let lock = Arc::clone(&lock);
            move |me| {
                while lock.compare_exchange(false, true, SeqCst, SeqCst).is_err() {
                    std::thread::yield_now();
                }
                me.step(1);
                lock.store(false, SeqCst);
                me.checkpoint();
            }
        });
        // The spinner is dispatched, and spins.
        server.collect(&spinner);
        let next = server.remove(&spinner);
        let _ = server.dispatch(next, in_ms(5));
        if server.task().next_tid() == next {
            server.ready.push_back(next);
        }
        data.set();
        // The time slice of the loop ends this.
        server.run_to_exit(&[&holder, &spinner]);
        assert!(spinner.reached(1));
        server.finish();
    });
}
