//! What the mail leaves open, as it was decided here: the second table of `CHECKLIST.md`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{List, state};
use umcg_tests::{Me, Record, Server, Worker, blockers::Futex, for_each_provider, in_ms, signals};

/// Decision 1, trap 9.
#[test]
fn an_unblock_wakes_the_server_only_if_its_slot_is_free() {
    for_each_provider(|harness| {
        harness.attempt("an unblock beside a running worker", || {
            let mut server = Server::start(harness);
            let data = Futex::default();
            let sleeper = harness.sleeper("sleeper", server.tid(), &data);
            server.run_until_blocked(&sleeper);
            let woken = Arc::new(AtomicBool::new(false));
            let done = Arc::new(AtomicBool::new(false));
            let runner = harness.worker("runner", server.tid(), {
                let (server, sleeper) = (Arc::clone(server.record()), sleeper.clone());
                let (woken, done) = (Arc::clone(&woken), Arc::clone(&done));
                move |me| {
                    let turns = server.turns.load(SeqCst);
                    data.set();
                    // Or the sleeper took the slot by itself, after a verdict on this worker.
                    me.spin_until(|| sleeper.state() != state::BLOCKED);
                    me.spin_until(|| {
                        sleeper.task().is_linked(List::Runnable)
                            || sleeper.state() != state::RUNNABLE
                    });
                    // Time for a wake-up that must not come.
                    for _ in 0..200 {
                        std::thread::yield_now();
                        me.checkpoint();
                    }
                    woken.store(
                        server.turns.load(SeqCst) != turns
                            || server.task.state() != state::RUNNABLE,
                        SeqCst,
                    );
                    done.store(true, SeqCst);
                }
            });
            server.collect(&runner);
            let next = server.remove(&runner);
            let before = harness.disturbances(server.tid());
            server.dispatch(next, 0).expect("until the runner leaves");
            // `done` may be set while the runner has not ended: the server may run as soon as it is
            // woken.
            let quiet = harness.disturbances(server.tid()) == before && done.load(SeqCst);
            server.run_to_exit(&[&runner, &sleeper]);
            server.finish();
            assert!(
                !quiet || !woken.load(SeqCst),
                "the server was woken beside a running worker"
            );
            quiet
        });
    });
}

/// Decision 3.
#[test]
fn an_explicit_wait_is_pushed_on_no_list() {
    for_each_provider(|harness| {
        harness.attempt("a wait", || {
            let mut server = Server::start(harness);
            let worker = harness.worker("worker", server.tid(), Me::park);
            server.collect(&worker);
            let next = server.remove(&worker);
            let before = harness.disturbances(server.tid());
            server.dispatch(next, 0).expect("until the worker waits");
            let listed =
                server.task().has_events(List::Runnable) || server.task().has_events(List::Blocked);
            let quiet = harness.disturbances(server.tid()) == before;
            server.run_until_parked(&worker);
            server.ready.push_back(worker.tid());
            server.run_to_exit(&[&worker]);
            server.finish();
            assert!(
                !quiet || !listed,
                "a worker that waits was pushed on a list"
            );
            quiet
        });
    });
}

/// Decision 4, trap 13.
#[test]
fn a_signal_between_leave_and_wait_is_harmless() {
    for_each_provider(|harness| {
        let signal = signals::unused();
        signals::count(signal, 0);
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), move |me| {
            for _ in 0..100 {
                me.leave();
                let before = signals::handled(signal);
                signals::send(me.task().tid(), signal);
                assert!(
                    signals::handled(signal) > before,
                    "the handler ran in the window"
                );
                me.record().offered.store(me.task().server_tid(), SeqCst);
                me.wait();
            }
        });
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Decision 5, trap 17.
#[test]
fn a_block_consumes_the_armed_next_tid() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let consumed = AtomicU32::new(0);
        harness.attempt("a block with a spare", || {
            let data = Futex::default();
            let spare = harness.worker("spare", server.tid(), Me::park);
            server.run_until_parked(&spare);
            let sleeper = harness.sleeper("sleeper", server.tid(), &data);
            server.collect(&sleeper);
            let next = server.remove(&sleeper);
            sleeper.task().set_next_tid(spare.tid());
            server.dispatch(next, 0).expect("an event");
            // Either the block consumed the armed worker, which then has run or still runs; or a
            // verdict came while an event was on the runnable list, and the worker is still armed.
            let left = harness.provider().disarm(sleeper.task());
            assert!(left.is_none_or(|left| left == spare.tid()));
            assert_eq!(sleeper.task().next_tid(), 0, "next_tid is not cleared");
            match left {
                Some(left) => server.ready.push_back(left),
                None => {
                    consumed.fetch_add(1, SeqCst);
                }
            }
            data.set();
            server.run_to_exit(&[&spare, &sleeper]);
            left.is_none()
        });
        assert!(consumed.load(SeqCst) > 0);
        server.finish();
    });
}

/// Decision 6.
#[test]
fn next_tid_is_cleared_when_the_switch_commits() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), {
            let server = Arc::clone(server.record());
            move |me| {
                assert_eq!(
                    server.task.next_tid(),
                    0,
                    "next_tid is not cleared before the target runs"
                );
                me.step(1);
            }
        });
        server.collect(&worker);
        let next = server.remove(&worker);
        let _ = server.dispatch(next, in_ms(1000));
        assert_eq!(server.task().next_tid(), 0);
        server.run_to_exit(&[&worker]);
        assert!(worker.reached(1));
        server.finish();
    });
}

/// Decision 7.
#[test]
fn the_link_is_read_before_the_worker_is_handed_out() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let data = Futex::default();
        let workers: Vec<_> = (0..6)
            .map(|index| {
                let data = data.clone();
                harness.worker(&format!("worker {index}"), server.tid(), move |me| {
                    me.blocking(|| data.wait());
                })
            })
            .collect();
        harness.until("all admissions are on the list", || {
            workers.iter().all(|w| w.state() == state::RUNNABLE)
                && workers.iter().all(|w| w.task().is_linked(List::Runnable))
        });
        // Each worker is dispatched while the rest of the list is still being walked, and its link
        // is used again.
        server.task().begin_drain();
        let mut walked = Vec::new();
        for task in server.task().take(List::Runnable) {
            let worker = workers
                .iter()
                .find(|worker| std::ptr::eq(worker.task(), task.as_ptr()))
                .expect("a worker of this test");
            walked.push(worker.tid());
            loop {
                let result = server.dispatch(worker.tid(), in_ms(1000));
                if server.task().next_tid() == 0 {
                    break;
                }
                assert!(result.is_ok(), "{result:?}");
                // An event came before the switch. The loop below drains it.
            }
            harness.until("it is reported blocked", || {
                worker.state() != state::RUNNING
            });
        }
        walked.sort_unstable();
        let mut all: Vec<_> = workers.iter().map(Worker::tid).collect();
        all.sort_unstable();
        assert_eq!(walked, all, "each worker must be handed out once");
        data.set();
        server.run_to_exit(&workers.iter().collect::<Vec<_>>());
        server.finish();
    });
}

/// Decision 10. The first sketch of the mail pushed the blocked worker on the list of the task
/// that is woken.
#[test]
fn the_lists_are_those_of_server_tid() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (data, stop) = (Futex::default(), Arc::new(AtomicBool::new(false)));
        let seen = Arc::new(AtomicU64::new(u64::MAX));
        let spare = harness.worker("spare", server.tid(), {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            move |me| {
                me.park();
                seen.store(Record::raw_list(me.task(), List::Blocked) & !1, SeqCst);
                me.spin_until(|| stop.load(SeqCst));
            }
        });
        server.run_until_parked(&spare);
        let sleeper = harness.sleeper("sleeper", server.tid(), &data);
        server.collect(&sleeper);
        let next = server.remove(&sleeper);
        sleeper.task().set_next_tid(spare.tid());
        let _ = server.dispatch(next, in_ms(200));
        server.run_until("sleeper reported", |server| {
            server
                .log
                .iter()
                .any(|drained| drained.blocked.contains(&sleeper.tid()))
        });
        if let Some(left) = harness.provider().disarm(sleeper.task()) {
            server.ready.push_back(left);
        }
        data.set();
        stop.store(true, SeqCst);
        server.run_to_exit(&[&spare, &sleeper]);
        assert_ne!(seen.load(SeqCst), sleeper.task().address());
        server.finish();
    });
}

/// Decision 4, traps 6, 14 and a.
#[test]
fn a_handler_that_blocks_between_leave_and_wait_is_harmless() {
    extern "C" fn nap(_signal: i32) {
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 3_000_000,
        };
        // SAFETY: a valid time; nanosleep is async-signal-safe.
        unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
    }
    for_each_provider(|harness| {
        let signal = signals::unused();
        signals::handle(signal, nap, 0);
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), move |me| {
            for _ in 0..20 {
                me.leave();
                signals::send(me.task().tid(), signal);
                me.record().offered.store(me.task().server_tid(), SeqCst);
                // And once more when it is queued already (trap a): it must get one token and one
                // list entry.
                signals::send(me.task().tid(), signal);
                me.wait();
            }
        });
        server.set_slice(Duration::from_millis(1));
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}
