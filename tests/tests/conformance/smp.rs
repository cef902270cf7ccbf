//! Checklist 56 to 70: moving workers, many servers, preemption, and one loop for all of it.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{List, state};
use umcg_tests::{
    Harness, Me, NO_SUCH_TID, Server, ServerGroup, Worker, assert_errno, blockers::Futex,
    eventually, for_each_provider, in_ms, isolated, proc, threads,
};

/// Yields, sleeps and computes in turns.
fn mixed(me: &Me, rounds: u64) {
    for round in 0..rounds {
        match round % 4 {
            0 | 2 => me.yield_now(),
            1 => me.sleep(Duration::from_micros(150)),
            _ => {
                for _ in 0..2000 {
                    std::hint::spin_loop();
                }
                me.checkpoint();
            }
        }
    }
    me.step(1);
}

fn group_runs(harness: &Arc<Harness>, servers: usize, workers: usize, rounds: u64) {
    let group = ServerGroup::start(harness, servers);
    let workers: Vec<_> = (0..workers)
        .map(|index| {
            let home = group.tid(index);
            harness.worker(&format!("worker {index}"), home, move |me| {
                mixed(me, rounds);
            })
        })
        .collect();
    harness.until("all work is done", || workers.iter().all(Worker::exited));
    assert!(workers.iter().all(|worker| worker.reached(1)));
    group.finish();
}

/// Checklist 6 and 56, trap 45. Each of two servers gives every worker that it drains to the
/// other one.
#[test]
fn a_worker_is_moved_by_writing_its_server_tid() {
    for_each_provider(|harness| {
        let boxes: Arc<[Mutex<Vec<u32>>; 2]> = Arc::default();
        let tids: Arc<[AtomicU32; 2]> = Arc::default();
        let done = Arc::new(AtomicBool::new(false));
        for own in 0..2 {
            let (harness, boxes) = (Arc::clone(harness), Arc::clone(&boxes));
            let (tids, done) = (Arc::clone(&tids), Arc::clone(&done));
            Arc::clone(&harness).thread("server", move || {
                harness.guarded("server", || {
                    let mut server = Server::named(&harness, &format!("server {own}"));
                    tids[own].store(server.tid(), SeqCst);
                    while !done.load(SeqCst) {
                        harness.check();
                        server.drain();
                        boxes[1 - own]
                            .lock()
                            .expect("a box")
                            .extend(server.ready.drain(..));
                        let pick = boxes[own].lock().expect("a box").pop();
                        if let Some(tid) = pick {
                            let record = harness.by_tid(tid).expect("the worker");
                            record.task.set_server_tid(server.tid());
                        }
                        let result = server.wait(pick.unwrap_or(0), in_ms(2));
                        if let Err(error) = result {
                            assert!(error.is_timeout(), "{error}");
                        }
                        if pick.is_some_and(|tid| server.task().next_tid() == tid) {
                            boxes[own].lock().expect("a box").extend(pick);
                        }
                    }
                    server.finish();
                });
            });
        }
        harness.until("both servers", || {
            tids.iter().all(|tid| tid.load(SeqCst) != 0)
        });
        let worker = harness.worker("worker", tids[0].load(SeqCst), |me| {
            let mut last = me.task().server_tid();
            for _ in 0..10 {
                me.yield_now();
                let now = me.task().server_tid();
                assert_ne!(now, last, "each yield moves it");
                last = now;
                me.step(1);
            }
        });
        harness.until("the worker's exit", || worker.exited());
        done.store(true, SeqCst);
    });
}

/// Checklist 59, trap 37.
#[test]
fn tasks_of_other_processes_do_not_exist() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let mut child = Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .expect("another process");
        assert_errno(server.insist(child.id(), 0), libc::ESRCH, "wait");
        assert_errno(
            harness.provider().preempt(child.id()),
            libc::ESRCH,
            "preempt",
        );
        assert_errno(harness.provider().wake(child.id()), libc::ESRCH, "wake");
        let worker = harness.worker("worker", child.id(), |_| {});
        harness.until("the answer", || worker.exited());
        assert_eq!(worker.admission(), Some(libc::ESRCH));
        child.kill().expect("end the other process");
        child.wait().expect("end the other process");
        server.finish();
    });
}

/// Checklist 57, 58 and 60: one server, two, and five.
#[test]
fn servers_share_a_queue_and_nothing_else() {
    for_each_provider(|harness| {
        group_runs(harness, 1, 8, 40);
        group_runs(harness, 2, 8, 40);
        group_runs(harness, 5, 15, 20);
    });
}

/// Checklist 62.
#[test]
fn the_caller_goes_on_after_an_error() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        for _ in 0..100 {
            assert_errno(
                server.insist(NO_SUCH_TID, 0),
                libc::ESRCH,
                "a wait for a task that does not exist",
            );
        }
        let worker = harness.worker("worker", server.tid(), |me| {
            for _ in 0..50 {
                let error = me.failing_wait("wait", NO_SUCH_TID, 0, 0);
                assert_eq!(error.errno(), libc::ESRCH);
            }
            mixed(me, 10);
        });
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Checklist 65.
#[test]
fn a_preempted_worker_comes_back_by_its_token() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let spinner = harness.spinner("spinner", server.tid(), &stop);
        server.hold(&spinner);
        // Nobody yields, so the other worker runs only because the loop preempts the spinner when
        // its slice is over. The preempted worker comes back in the ordinary way, by its token.
        let other = harness.worker("other", server.tid(), {
            let spinner = spinner.clone();
            move |me| {
                // Where a preempted worker is stopped at once, its token was drained long ago.
                // Elsewhere it stops at its next checkpoint.
                me.spin_until(|| spinner.state() == state::RUNNABLE);
                me.step(1);
            }
        });
        server.run_until("the other one ran", |_| other.reached(1));
        server.run_until("the token of the preempted one", |server| {
            let tokens = server
                .log
                .iter()
                .filter(|drained| drained.runnable.contains(&spinner.tid()));
            // One token was for the admission.
            tokens.count() >= 2
        });
        stop.store(true, SeqCst);
        server.run_to_exit(&[&spinner, &other]);
        server.finish();
    });
}

/// Checklist 66.
#[test]
fn a_preemption_beside_an_awake_server_is_a_push_without_a_switch() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let spinner = harness.spinner("spinner", server.tid(), &stop);
        server.hold(&spinner);
        server.preempt(&spinner);
        assert_eq!(server.task().state(), state::RUNNING, "the server runs on");
        harness.until("the token of the preempted worker", || {
            server.task().has_events(List::Runnable)
        });
        assert_eq!(spinner.state(), state::RUNNABLE);
        assert_eq!(server.current(), None, "nobody was switched to");
        stop.store(true, SeqCst);
        server.run_to_exit(&[&spinner]);
        server.finish();
    });
}

/// Checklist 25 and 68.
#[test]
fn a_server_sleeps_while_its_worker_runs() {
    for_each_provider(|harness| {
        harness.attempt("a worker left alone", || {
            let mut server = Server::start(harness);
            let asleep = Arc::new(AtomicU32::new(0));
            let awake = Arc::new(AtomicU32::new(0));
            let worker = harness.worker("worker", server.tid(), {
                let (record, asleep) = (Arc::clone(server.record()), Arc::clone(&asleep));
                let awake = Arc::clone(&awake);
                move |me| {
                    let tid = record.task.tid();
                    me.spin_until(|| proc::asleep(tid));
                    for _ in 0..20 {
                        let sleeps = proc::asleep(tid) && record.task.state() == state::RUNNABLE;
                        (if sleeps { &asleep } else { &awake }).fetch_add(1, SeqCst);
                        me.checkpoint();
                    }
                }
            });
            server.collect(&worker);
            let before = harness.disturbances(server.tid());
            server.run_without_deadline(&[&worker]);
            let quiet = harness.disturbances(server.tid()) == before;
            server.finish();
            if quiet {
                assert_eq!(awake.load(SeqCst), 0, "the server ran beside its worker");
                assert_eq!(asleep.load(SeqCst), 20);
            }
            quiet
        });
    });
}

/// Checklist 69.
#[test]
fn when_a_worker_blocks_its_server_runs_another() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let data = Futex::default();
        // The second worker ends the sleep of the first one. If it did not run, this would hang.
        let first = harness.sleeper("first", server.tid(), &data);
        let second = harness.worker("second", server.tid(), move |_| data.set());
        server.collect(&first);
        server.collect(&second);
        server.ready.clear();
        server.ready.extend([first.tid(), second.tid()]);
        // There is no deadline: only the block brings the server back.
        server.run_without_deadline(&[&first, &second]);
        server.finish();
    });
}

/// Checklist 69. In a process of its own: the helper threads of other tests would not come to
/// rest.
#[test]
fn a_block_is_seen_if_work_waited_before_the_dispatch() {
    isolated(200, || {
        for_each_provider(|harness| {
            let mut server = Server::start(harness);
            let data = Futex::default();
            let worker = harness.sleeper("worker", server.tid(), &data);
            server.collect(&worker);
            server.set_has_work(false);
            threads::until_helpers_at_rest();
            server.set_has_work(true);
            let next = server.remove(&worker);
            server.dispatch(next, 0).expect("the block ends this wait");
            data.set();
            server.run_to_exit(&[&worker]);
            server.finish();
        });
    });
}

/// Checklist 69, and [`Provider::work_waiting`](umcg_sys::Provider::work_waiting). In a process
/// of its own, as above.
#[test]
fn a_block_is_seen_if_work_is_queued_beside_the_worker() {
    isolated(200, || {
        for_each_provider(|harness| {
            let mut server = Server::start(harness);
            let data = Futex::default();
            server.set_has_work(false);
            let queued = server.work_flag();
            let worker = harness.worker("worker", server.tid(), {
                let (data, server) = (data.clone(), server.tid());
                move |me| {
                    queued.store(true, SeqCst);
                    me.provider().work_waiting(server);
                    me.blocking(|| data.wait());
                }
            });
            server.collect(&worker);
            threads::until_helpers_at_rest();
            let next = server.remove(&worker);
            server.dispatch(next, 0).expect("the block ends this wait");
            data.set();
            server.run_to_exit(&[&worker]);
            server.finish();
        });
    });
}

/// Checklist 69. A worker takes the slot of its idle server, where the provider lets it, and
/// blocks in it. Then work comes from outside: the only sign of it is that the server is woken.
/// In a process of its own, as above.
#[test]
fn a_block_in_a_slot_taken_by_the_worker_is_seen_if_work_comes_from_outside() {
    isolated(200, || {
        for_each_provider(|harness| {
            let mut server = Server::start(harness);
            let (first, second) = (Futex::default(), Futex::default());
            let worker = harness.worker("worker", server.tid(), {
                let (first, second) = (first.clone(), second.clone());
                move |me| {
                    me.blocking(|| first.wait());
                    me.step(1);
                    me.blocking(|| second.wait());
                }
            });
            while worker.state() != state::BLOCKED {
                server.turn(0);
            }
            server.set_has_work(false);
            harness.thread("outside", {
                let (work, tid) = (server.work_flag(), server.tid());
                let provider = Arc::clone(harness.provider());
                let worker = worker.clone();
                move || {
                    threads::until_helpers_at_rest();
                    first.set();
                    eventually("the worker blocks again", || {
                        // If its block was seen before, the worker has come to its end.
                        worker.reached(1) && (worker.asleep() || worker.exited())
                    });
                    threads::until_helpers_at_rest();
                    work.store(true, SeqCst);
                    // ESRCH: the block was seen without the wake-up, and the server has ended.
                    let _ = provider.wake(tid);
                }
            });
            // There is no deadline: only the block brings the server back.
            while !(worker.reached(1) && worker.state() == state::BLOCKED) {
                server.turn(0);
            }
            second.set();
            server.run_to_exit(&[&worker]);
            server.finish();
        });
    });
}

/// Checklist 69. The server takes long between its drain and its `wait` while work waits. A
/// helper that repeats wake-ups which may be owed must not turn each of its waits into one
/// without a switch.
#[test]
fn a_server_that_drains_for_long_still_switches() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            for _ in 0..20 {
                me.yield_now();
            }
        });
        while !worker.exited() {
            if !server.owns(&worker) {
                server.drain();
                if server.owns(&worker) {
                    continue;
                }
                let _ = server.wait(0, in_ms(5));
                continue;
            }
            let next = server.remove(&worker);
            let mut waits = 0;
            loop {
                server.task().begin_drain();
                std::thread::sleep(Duration::from_millis(2));
                let result = server.wait(next, in_ms(50));
                if server.task().next_tid() == 0 {
                    break;
                }
                assert!(result.is_ok() || result.is_err_and(|error| error.is_timeout()));
                waits += 1;
                assert!(waits < 50, "{waits} waits, and not one switch");
            }
        }
        server.finish();
    });
}

/// Checklist 70.
#[test]
fn one_loop_serves_blocking_and_preemption() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        server.set_slice(Duration::from_millis(2));
        let stop = Arc::new(AtomicBool::new(false));
        let spinners: Vec<_> = (0..2)
            .map(|index| harness.spinner(&format!("spinner {index}"), server.tid(), &stop))
            .collect();
        let mixed: Vec<_> = (0..3)
            .map(|index| {
                harness.worker(&format!("mixed {index}"), server.tid(), |me| mixed(me, 20))
            })
            .collect();
        server.run_until("the other workers exit beside two that never stop", |_| {
            mixed.iter().all(Worker::exited)
        });
        stop.store(true, SeqCst);
        server.run_to_exit(&spinners.iter().collect::<Vec<_>>());
        server.finish();
    });
}
