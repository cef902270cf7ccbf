//! Checklist 18 to 33 and 50: `wait`, step by step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::state;
use umcg_tests::{
    Harness, NO_SUCH_TID, Server, Turn, Worker, assert_errno, for_each_provider, in_ms, now_ns,
    proc,
    signals::{self, Storm},
};

/// A worker that waits in the test's pool each time it runs, until `stop` is set.
fn parker(harness: &Arc<Harness>, name: &str, server: &Server, stop: &Arc<AtomicBool>) -> Worker {
    let stop = Arc::clone(stop);
    harness.worker(name, server.tid(), move |me| {
        while !stop.load(SeqCst) {
            me.park();
        }
    })
}

/// Runs `worker` until it waits in the pool, and takes it out of there.
fn own_parked(server: &mut Server, worker: &Worker) -> u32 {
    let name = format!("{} in the pool", worker.name());
    server.run_until(&name, |_| worker.unpark());
    worker.tid()
}

/// Checklist 18.
#[test]
fn wait_returns_at_once_in_running() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        // The target does not exist and the deadline is long past, and neither is looked at.
        server.wait(NO_SUCH_TID, 1).expect("RUNNING already");
        assert_eq!(server.task().next_tid(), NO_SUCH_TID, "untouched");
        server.task().set_next_tid(0);

        let worker = harness.worker("worker", server.tid(), |me| {
            for _ in 0..100 {
                me.checkpoint();
                match me.provider().wait(0, 0) {
                    Ok(()) => me.step(1),
                    Err(error) => assert!(
                        error.errno() == libc::EINVAL && !me.provider().facts().exact_stop,
                        "only a verdict in between explains this: {error}"
                    ),
                }
            }
        });
        server.run_to_exit(&[&worker]);
        assert!(worker.reached(1), "not one of a hundred returned at once");
        assert!(
            server.log.iter().all(|drained| drained.offered.is_empty()),
            "nothing was given up"
        );
        server.finish();
    });
}

/// Checklist 19.
#[test]
fn the_target_is_next_tid_or_else_the_server() {
    for_each_provider(|harness| {
        harness.attempt("a switch past the server", || {
            let mut server = Server::start(harness);
            let stop = Arc::new(AtomicBool::new(false));
            let turns = Arc::new(AtomicU64::new(0));
            let undisturbed = Arc::new(AtomicBool::new(false));

            let second = harness.worker("second", server.tid(), {
                let (stop, turns) = (Arc::clone(&stop), Arc::clone(&turns));
                let undisturbed = Arc::clone(&undisturbed);
                let record = Arc::clone(server.record());
                move |me| {
                    me.park();
                    let before = turns.load(SeqCst);
                    undisturbed.store(record.turns.load(SeqCst) == before, SeqCst);
                    stop.store(true, SeqCst);
                    me.step(1);
                }
            });
            own_parked(&mut server, &second);
            let first = harness.worker("first", server.tid(), {
                let second = second.tid();
                let turns = Arc::clone(&turns);
                let record = Arc::clone(server.record());
                move |me| {
                    turns.store(record.turns.load(SeqCst), SeqCst);
                    me.switch_to(second);
                    me.step(1);
                    // next_tid is 0: the slot goes back to the server.
                    me.yield_now();
                    me.step(2);
                }
            });
            server.collect(&first);
            let before = harness.disturbances(server.tid());
            // There are no slices: a deadline would count as a turn.
            while !second.finishing() {
                harness.check();
                server.turn(0);
            }
            let quiet = harness.disturbances(server.tid()) == before;
            server.run_to_exit(&[&first, &second]);
            server.finish();
            if quiet {
                assert!(
                    undisturbed.load(SeqCst),
                    "the server ran between two workers that switched directly"
                );
            }
            quiet
        });
    });
}

/// Checklist 11, 13 and 20, trap 49: it idles in RUNNABLE, which is no state of its own.
#[test]
fn a_server_that_is_its_own_target_idles() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        for own in [0, server.tid()] {
            let (record, provider) = (Arc::clone(server.record()), Arc::clone(harness.provider()));
            let idled = Arc::new(AtomicBool::new(false));
            harness.thread("outside", {
                let (harness, idled) = (Arc::clone(harness), Arc::clone(&idled));
                move || {
                    let tid = record.task.tid();
                    harness.guarded("outside", || {
                        harness.until("the server idles", || {
                            record.task.state() == state::RUNNABLE && proc::asleep(tid)
                        });
                        idled.store(true, SeqCst);
                        provider.wake(tid).expect("wake the server");
                    });
                }
            });
            while !idled.load(SeqCst) {
                harness.check();
                server.drain();
                server.wait(own, 0).expect("idle, then woken");
            }
        }
        server.finish();
    });
}

/// Checklist 12 and 21.
#[test]
fn idling_ends_at_the_deadline_or_when_work_comes() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let deadline = in_ms(20);
        assert_errno(server.insist(0, deadline), libc::ETIMEDOUT, "no work comes");
        assert!(now_ns() >= deadline, "not before the deadline");

        // A deadline that is already past also ends the wait, and loses nothing.
        assert_errno(
            server.insist(0, 1),
            libc::ETIMEDOUT,
            "a deadline in the past",
        );

        // A worker registers while the server idles without a deadline.
        let tid = server.tid();
        harness.thread("later", {
            let (harness, record) = (Arc::clone(harness), Arc::clone(server.record()));
            move || {
                let idle = || record.task.state() == state::RUNNABLE && proc::asleep(tid);
                harness.until("the server idles", idle);
                harness.worker("worker", tid, |_| {});
            }
        });
        while server.ready.is_empty() {
            server.drain();
            if server.ready.is_empty() {
                server.wait(0, 0).expect("idle until work comes");
            }
        }
        let records = harness.records();
        let worker = records.last().expect("the worker");
        server.run_until("the worker's exit", |_| worker.exited.load(SeqCst));
        server.finish();
    });
}

/// Checklist 50. The server picks the worker in its own slot, which has left RUNNING and has
/// not come to its `wait`.
#[test]
fn the_pick_of_a_worker_that_has_left_is_kept() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let go = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let worker = harness.worker("worker", server.tid(), {
            let (go, stop) = (Arc::clone(&go), Arc::clone(&stop));
            let server = Arc::clone(server.record());
            move |me| {
                let mut round = 0;
                loop {
                    me.spin_until(|| go.load(SeqCst) > round || stop.load(SeqCst));
                    if stop.load(SeqCst) {
                        return;
                    }
                    round += 1;
                    // It has left RUNNING and can be found, and calls its own `wait` only when the
                    // server waits.
                    me.leave();
                    me.record().parked.store(true, SeqCst);
                    let end = now_ns() + 20_000_000;
                    while server.task.state() != state::RUNNABLE && now_ns() < end {}
                    let end = now_ns() + 1_000_000;
                    while now_ns() < end {}
                    me.wait();
                }
            }
        });
        harness.attempt("a pick between leave and wait", || {
            server.hold(&worker);
            let before = harness.disturbances(server.tid());
            go.fetch_add(1, SeqCst);
            harness.until("it has left RUNNING", || worker.unpark());
            server.task().begin_drain();
            server.wait(worker.tid(), 0).expect("woken by its wait");
            let kept = server.task().next_tid() == worker.tid();
            if kept {
                server.ready.push_front(worker.tid());
            }
            // If it was judged meanwhile it had lost the slot, and this was an ordinary switch.
            let disturbed = harness.disturbances(server.tid()) != before;
            assert!(
                kept || disturbed,
                "the pick is neither kept nor carried out"
            );
            kept && !disturbed
        });
        stop.store(true, SeqCst);
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Checklist 26 and 30, traps 2 and 55.
#[test]
fn a_wait_sleeps_until_the_state_is_running() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let parked = parker(harness, "parked", &server, &stop);
        own_parked(&mut server, &parked);
        // Wake-ups without a meaning, on words that a sleeper may use.
        let records = [Arc::clone(server.record()), Arc::clone(parked.record())];
        let pester = Arc::new(AtomicBool::new(true));
        harness.thread("pester", {
            let pester = Arc::clone(&pester);
            move || {
                while pester.load(SeqCst) {
                    for record in &records {
                        futex_wake(record.task.state_word());
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        for _ in 0..5 {
            assert_errno(
                server.insist(0, in_ms(20)),
                libc::ETIMEDOUT,
                "no event came",
            );
            assert_eq!(parked.state(), state::RUNNABLE, "the worker sleeps on");
        }
        pester.store(false, SeqCst);
        stop.store(true, SeqCst);
        server.ready.push_back(parked.tid());
        server.run_to_exit(&[&parked]);
        server.finish();
    });
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: a wake reads nothing, it only uses the address.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
        let private = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        libc::syscall(libc::SYS_futex, word.as_ptr(), private, i32::MAX);
    }
}

/// Checklist 27, traps 1 and 49. The server idles without a deadline, and a thread outside
/// wakes it as fast as both can: one lost wake-up and this hangs.
#[test]
fn a_wake_up_before_the_sleep_is_not_lost() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let round = Arc::new(AtomicU32::new(0));
        let answered = Arc::new(AtomicU32::new(0));
        const ROUNDS: u32 = 2000;
        harness.thread("outside", {
            let (round, answered) = (Arc::clone(&round), Arc::clone(&answered));
            let (tid, provider) = (server.tid(), Arc::clone(harness.provider()));
            move || {
                for number in 1..=ROUNDS {
                    round.store(number, SeqCst);
                    // The last one may come after the server has ended.
                    match provider.wake(tid) {
                        Ok(()) => {}
                        Err(error) => assert!(error.is_gone() && number == ROUNDS, "{error}"),
                    }
                    while answered.load(SeqCst) < number {
                        std::thread::yield_now();
                    }
                }
            }
        });
        let mut seen = 0;
        while seen < ROUNDS {
            server.drain();
            let now = round.load(SeqCst);
            if now > seen {
                seen = now;
                answered.store(seen, SeqCst);
                continue;
            }
            server.wait(0, 0).expect("woken");
        }
        server.finish();
    });
}

/// Checklist 29. Only a verdict or a preemption ends the RUNNING of a worker, and nothing ends
/// that of a server.
#[test]
fn events_do_not_end_running() {
    for_each_provider(|harness| {
        harness.attempt("a worker left alone", || {
            let mut server = Server::start(harness);
            let stop = Arc::new(AtomicBool::new(false));
            let spinner = harness.spinner("spinner", server.tid(), &stop);
            server.hold(&spinner);
            let before = harness.disturbances(server.tid());
            // An admission is an event for a server that is awake.
            let newcomer = harness.worker("newcomer", server.tid(), |_| {});
            harness.until("the event", || {
                server.task().has_events(umcg_sys::List::Runnable)
            });
            assert_eq!(server.task().state(), state::RUNNING);
            let running = spinner.state() == state::RUNNING;
            let quiet = harness.disturbances(server.tid()) == before;
            stop.store(true, SeqCst);
            server.run_to_exit(&[&spinner, &newcomer]);
            server.finish();
            assert!(running || !quiet, "RUNNING ended without a verdict");
            quiet
        });
    });
}

/// Checklist 30 and 64, traps 26 and e. `process.rs` has more about signals.
#[test]
fn signals_do_not_end_a_wait() {
    for_each_provider(|harness| {
        let signal = signals::unused();
        signals::count(signal, 0);
        let mut server = Server::start(harness);
        let stop = Arc::new(AtomicBool::new(false));
        let parked = parker(harness, "parked", &server, &stop);
        own_parked(&mut server, &parked);
        let tids = vec![server.tid(), parked.tid()];
        let storm = Storm::on(signal, move || tids.clone());
        for _ in 0..5 {
            let deadline = in_ms(20);
            assert_errno(server.insist(0, deadline), libc::ETIMEDOUT, "no event came");
            assert!(now_ns() >= deadline, "a signal shortened the wait");
            assert_eq!(parked.state(), state::RUNNABLE);
        }
        drop(storm);
        assert!(
            signals::handled(signal) > 0,
            "a task that waits gets its signals"
        );
        stop.store(true, SeqCst);
        server.ready.push_back(parked.tid());
        server.run_to_exit(&[&parked]);
        server.finish();
    });
}

/// Checklist 31.
#[test]
fn time_is_nanoseconds_in_64_bits() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let start = now_ns();
        let deadline = start + 1_500_000;
        assert_errno(server.insist(0, deadline), libc::ETIMEDOUT, "1.5 ms");
        assert!(now_ns() >= deadline);
        // The largest values mean deadlines that never come, and not deadlines in the past.
        for far in [u64::MAX, i64::MAX as u64, i64::MAX as u64 + 1] {
            let worker = harness.worker("worker", server.tid(), |_| {});
            while !worker.finishing() {
                harness.check();
                assert!(
                    !matches!(server.turn(far), Turn::TimedOut),
                    "deadline {far} is far away"
                );
            }
            server.run_to_exit(&[&worker]);
        }
        server.finish();
    });
}

/// Checklist 32.
#[test]
fn running_a_worker_takes_three_steps() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| me.step(1));
        server.collect(&worker);
        let next = server.remove(&worker);
        assert!(!worker.reached(1));
        // state = RUNNABLE; next_tid = w; wait(). And again if an event came first: the wake-up of
        // the worker's own admission may be that late.
        loop {
            server.task().begin_drain();
            server.task().set_next_tid(next);
            harness.provider().wait(0, 0).expect("run the worker");
            if server.task().next_tid() == 0 {
                break;
            }
        }
        server.run_to_exit(&[&worker]);
        assert!(worker.reached(1));
        server.finish();
    });
}

/// Checklist 33 and 63, trap 35. User code changes the user bits of both tasks as fast as it
/// can. No call fails because of that, and no loop of the provider waits for it to stop.
#[test]
fn changes_of_the_user_bits_fail_no_call() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            for _ in 0..50 {
                me.yield_now();
                me.sleep(Duration::from_micros(150));
                me.yield_now();
            }
        });
        let stop = Arc::new(AtomicBool::new(false));
        harness.thread("flipper", {
            let stop = Arc::clone(&stop);
            let records = [Arc::clone(server.record()), Arc::clone(worker.record())];
            move || {
                let mut bits = 0_u16;
                while !stop.load(SeqCst) {
                    bits = bits.wrapping_add(1);
                    for record in &records {
                        record.task.set_user_bits(bits);
                    }
                }
            }
        });
        while !worker.exited() {
            harness.check();
            let turn = server.turn(in_ms(100));
            assert!(
                !matches!(turn, Turn::Busy(_) | Turn::Gone(_)),
                "a change of the user bits fails a call: {turn:?}"
            );
        }
        stop.store(true, SeqCst);
        server.finish();
    });
}
