//! Checklist 34 to 41: a worker blocks and unblocks in calls that nobody has wrapped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use umcg_sys::{List, ServerCounters, state};
use umcg_tests::{
    Harness, Server, Worker,
    blockers::{self, Blocker, Futex},
    for_each_provider, in_ms, now_ns, skip, wrong_verdicts,
};

/// A worker that yields again and again, and counts how often it has run.
fn ticker(
    harness: &Arc<Harness>,
    server: &Server,
    stop: &Arc<AtomicBool>,
) -> (Worker, Arc<AtomicU32>) {
    let ticks = Arc::new(AtomicU32::new(0));
    let worker = harness.worker("ticker", server.tid(), {
        let (stop, ticks) = (Arc::clone(stop), Arc::clone(&ticks));
        move |me| {
            while !stop.load(SeqCst) {
                ticks.fetch_add(1, SeqCst);
                me.yield_now();
            }
        }
    });
    (worker, ticks)
}

/// The blocker blocks one worker. Another worker of the same server goes on. Then the blocker is
/// released.
fn block_one(harness: &Arc<Harness>, blocker: Blocker) {
    let Blocker {
        name,
        call,
        release,
        expect,
    } = blocker;
    let mut server = Server::start(harness);
    let stop = Arc::new(AtomicBool::new(false));
    let sleeper = harness.worker(name, server.tid(), move |me| {
        let result = call();
        me.step(1);
        me.checkpoint();
        assert_eq!(
            result, expect,
            "{name}: the result is not that of the system call"
        );
        me.step(2);
    });
    server.run_until_blocked(&sleeper);
    assert!(!sleeper.reached(1), "{name} did not block");
    let (ticker, ticks) = ticker(harness, &server, &stop);
    server.run_until("the other worker goes on", |_| ticks.load(SeqCst) >= 10);
    assert_eq!(sleeper.state(), state::BLOCKED, "{name}: still blocked");
    assert!(
        server
            .log
            .iter()
            .any(|drained| drained.blocked.contains(&sleeper.tid())),
        "{name}: the block was not reported"
    );
    release();
    server.run_until("the call returns and the worker is picked", |_| {
        sleeper.reached(2)
    });
    stop.store(true, SeqCst);
    server.run_to_exit(&[&sleeper, &ticker]);
    server.finish();
}

/// Checklist 34 and 41, for every kind of sleep in `blockers`.
#[test]
fn a_block_in_any_system_call_is_seen() {
    for_each_provider(|harness| {
        for blocker in blockers::all() {
            block_one(harness, blocker);
        }
    });
}

/// Checklist 34, trap 19.
#[test]
fn a_page_fault_is_seen() {
    for_each_provider(|harness| match blockers::page_fault() {
        Ok(blocker) => block_one(harness, blocker),
        Err(error) => skip!("no page fault can be held up here: userfaultfd: {error}"),
    });
}

/// How long after a worker went to sleep its server ran another worker. `None` if a verdict came
/// before the sleep.
fn time_to_the_next(harness: &Arc<Harness>) -> Option<Duration> {
    let mut server = Server::start(harness);
    let data = Futex::default();
    let (slept, ran) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let sleeper = harness.worker("sleeper", server.tid(), {
        let (data, slept) = (data.clone(), Arc::clone(&slept));
        move |me| {
            slept.store(now_ns(), SeqCst);
            me.blocking(|| data.wait());
        }
    });
    let other = harness.worker("other", server.tid(), {
        let ran = Arc::clone(&ran);
        move |_| ran.store(now_ns(), SeqCst)
    });
    server.collect(&sleeper);
    server.collect(&other);
    server.ready.clear();
    server.ready.extend([sleeper.tid(), other.tid()]);
    // There is no deadline: only the report of the block brings the server back.
    while ran.load(SeqCst) == 0 {
        harness.check();
        server.turn(0);
    }
    let (slept, ran) = (slept.load(SeqCst), ran.load(SeqCst));
    data.set();
    server.run_to_exit(&[&sleeper, &other]);
    server.finish();
    (slept != 0 && ran >= slept).then(|| Duration::from_nanos(ran - slept))
}

#[test]
fn a_block_is_reported_within_the_bound_of_the_facts() {
    for_each_provider(|harness| {
        let bound = harness.provider().facts().block_bound;
        let mut times = Vec::new();
        while times.len() < 10 {
            harness.attempt("a sleep before any verdict", || {
                let time = time_to_the_next(harness);
                times.extend(time);
                time.is_some()
            });
            if wrong_verdicts() {
                break;
            }
        }
        // Every time is within the bound, with room for a machine that does many other things. The
        // bound itself holds while a CPU is free, which is so at least once in ten times.
        assert!(times.iter().all(|&time| time <= bound * 20), "{times:?}");
        let quickest = times.iter().min();
        assert!(quickest.is_none_or(|&time| time <= bound), "{times:?}");
    });
}

/// The blocks that were reported, by any judge.
fn blocks(count: &ServerCounters) -> u64 {
    count.blocks_kernel + count.blocks_sentinel + count.blocks_monitor + count.blocks_sibling
}

#[test]
fn the_longest_block_is_a_block_and_no_preemption() {
    const LONG: Duration = Duration::from_millis(20);
    for_each_provider(|harness| {
        harness.attempt("a preemption, and no verdict beside it", || {
            let mut server = Server::start(harness);
            let alone = Arc::new(AtomicBool::new(false));
            let preempted = Arc::new(AtomicBool::new(false));
            let spinner = harness.worker("spinner", server.tid(), {
                let (alone, preempted) = (Arc::clone(&alone), Arc::clone(&preempted));
                move |me| {
                    me.until_alone(&alone, 1);
                    let mut since = None;
                    while since.is_none_or(|since: Instant| since.elapsed() < LONG) {
                        std::hint::spin_loop();
                        if since.is_none() && preempted.load(SeqCst) {
                            since = Some(Instant::now());
                        }
                    }
                    me.checkpoint();
                }
            });
            server.hold_alone(&spinner, &alone, 1);
            server.preempt(&spinner);
            preempted.store(true, SeqCst);
            server.run_to_exit(&[&spinner]);
            let count = || harness.provider().counters(server.tid()).expect("counters");
            let quiet = blocks(&count()) == 0;
            if quiet {
                assert_eq!(count().longest_block_ns, 0, "{:?}", count());
            }
            let data = Futex::default();
            let sleeper = harness.sleeper("sleeper", server.tid(), &data);
            server.run_until_blocked(&sleeper);
            let since = Instant::now();
            server.run_until("the block is long", |_| since.elapsed() >= LONG);
            data.set();
            server.run_to_exit(&[&sleeper]);
            let count = harness.provider().counters(server.tid()).expect("counters");
            assert!(
                Duration::from_nanos(count.longest_block_ns) >= LONG,
                "{count:?}"
            );
            server.finish();
            quiet
        });
    });
}

/// A worker that was preempted is a leftover while it runs without a slot. One that blocked and
/// runs on after its block is none.
#[test]
fn a_preempted_worker_is_a_leftover_until_its_checkpoint() {
    for_each_provider(|harness| {
        harness.attempt("no verdict beside the preemption", || {
            let mut server = Server::start(harness);
            let [alone, sleeps, ends] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
            let data = Futex::default();
            let spinner = harness.worker("spinner", server.tid(), {
                let (alone, sleeps, ends) =
                    (Arc::clone(&alone), Arc::clone(&sleeps), Arc::clone(&ends));
                let data = data.clone();
                move |me| {
                    me.until_alone(&alone, 1);
                    while !sleeps.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                    // Without a checkpoint after it.
                    data.wait();
                    while !ends.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                    me.checkpoint();
                }
            });
            let is_leftover = || harness.provider().is_leftover(spinner.tid());
            let stopped = harness.provider().facts().exact_stop;
            server.hold_alone(&spinner, &alone, 1);
            assert!(!is_leftover(), "in its slot");
            server.preempt(&spinner);
            let quiet = blocks(&harness.provider().counters(server.tid()).expect("counters")) == 0;
            assert!(!quiet || is_leftover() != stopped, "it runs");
            sleeps.store(true, SeqCst);
            server.run_until("it sleeps", |_| spinner.asleep());
            assert!(!is_leftover(), "it sleeps");
            data.set();
            ends.store(true, SeqCst);
            server.run_to_exit(&[&spinner]);
            assert!(!is_leftover(), "it has ended");
            server.finish();
            quiet
        });
    });
}

/// The slot is retaken from a worker that has said that it sleeps. The provider does not ask
/// whether it does: this one runs, and goes on without the slot to its checkpoint.
#[test]
fn a_slot_is_retaken_from_the_worker_that_holds_it() {
    for_each_provider(|harness| {
        harness.attempt("no verdict beside the retake", || {
            let provider = harness.provider();
            let mut server = Server::start(harness);
            let [alone, ends] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
            let spinner = harness.worker("spinner", server.tid(), {
                let (alone, ends) = (Arc::clone(&alone), Arc::clone(&ends));
                move |me| {
                    me.until_alone(&alone, 1);
                    while !ends.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                    me.checkpoint();
                }
            });
            server.hold_alone(&spinner, &alone, 1);
            let quiet = blocks(&provider.counters(server.tid()).expect("counters")) == 0;
            let reported_by_kernel = provider.facts().exact_stop;
            let retaken = provider
                .retake(server.tid(), spinner.tid())
                .expect("a worker");
            assert!(!(retaken && reported_by_kernel));
            if retaken {
                assert_eq!(provider.current(server.tid()), None);
                let again = provider.retake(server.tid(), spinner.tid());
                assert_eq!(again, Ok(false), "it holds no slot");
            }
            ends.store(true, SeqCst);
            server.run_to_exit(&[&spinner]);
            let gone = provider
                .retake(server.tid(), spinner.tid())
                .is_err_and(|error| error.is_gone());
            assert!(gone || reported_by_kernel, "it has ended");
            server.finish();
            quiet && (retaken || reported_by_kernel)
        });
    });
}

#[test]
fn a_worker_that_blocked_is_no_leftover() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let ends = Arc::new(AtomicBool::new(false));
        let data = Futex::default();
        let runs_on = harness.worker("runs on", server.tid(), {
            let (data, ends) = (data.clone(), Arc::clone(&ends));
            move |me| {
                data.wait();
                me.step(1);
                while !ends.load(SeqCst) {
                    std::hint::spin_loop();
                }
                me.checkpoint();
            }
        });
        server.run_until_blocked(&runs_on);
        data.set();
        // On a kernel it stops on its way out of the call until it is picked.
        server.run_until("its block is over", |_| runs_on.reached(1));
        assert!(!harness.provider().is_leftover(runs_on.tid()));
        ends.store(true, SeqCst);
        server.run_to_exit(&[&runs_on]);
        server.finish();
    });
}

/// Checklist 35.
#[test]
fn a_block_changes_the_state_then_the_list_then_the_server() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let data = Futex::default();
        let sleeper = harness.sleeper("sleeper", server.tid(), &data);
        server.collect(&sleeper);
        let next = server.remove(&sleeper);
        // There is no deadline, and nothing else happens: the block itself makes the server
        // RUNNING.
        server.dispatch(next, 0).expect("the block ends this wait");
        assert!(
            server.task().has_events(List::Blocked),
            "the event was not on the list when the server woke"
        );
        assert!(sleeper.task().is_linked(List::Blocked));
        assert_eq!(server.drain().blocked, [sleeper.tid()]);
        data.set();
        server.run_to_exit(&[&sleeper]);
        server.finish();
    });
}

/// Checklist 35.
#[test]
fn a_block_beside_an_awake_server_is_reported_at_its_next_turns() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (go, data) = (Arc::new(AtomicBool::new(false)), Futex::default());
        let sleeper = harness.worker("sleeper", server.tid(), {
            let (go, data) = (Arc::clone(&go), data.clone());
            move |me| {
                me.spin_until(|| go.load(SeqCst));
                me.blocking(|| data.wait());
            }
        });
        server.hold(&sleeper);
        let drains = server.log.len();
        go.store(true, SeqCst);
        server.until_slot_is_free();
        server.run_until("the event of a worker that still sleeps", |server| {
            server.log[drains..]
                .iter()
                .any(|drained| drained.blocked.contains(&sleeper.tid()))
        });
        data.set();
        server.run_to_exit(&[&sleeper]);
        server.finish();
    });
}

/// Checklist 36.
#[test]
fn a_block_switches_to_the_armed_worker_past_the_server() {
    for_each_provider(|harness| {
        harness.attempt("a block that consumes the armed next_tid", || {
            let mut server = Server::start(harness);
            let (data, stop) = (Futex::default(), Arc::new(AtomicBool::new(false)));
            let spare = harness.worker("spare", server.tid(), {
                let (stop, record) = (Arc::clone(&stop), Arc::clone(server.record()));
                move |me| {
                    me.park();
                    me.step(1);
                    let turns = record.turns.load(SeqCst);
                    for _ in 0..50 {
                        me.checkpoint();
                        std::thread::yield_now();
                    }
                    if record.turns.load(SeqCst) == turns {
                        me.step(2); // the server slept all the while
                    }
                    stop.store(true, SeqCst);
                }
            });
            server.run_until_parked(&spare);
            let sleeper = harness.sleeper("sleeper", server.tid(), &data);
            server.collect(&sleeper);
            // The worker of the pool belongs to the server now, which arms it.
            let next = server.remove(&sleeper);
            let before = harness.disturbances(server.tid());
            sleeper.task().set_next_tid(spare.tid());
            server.dispatch(next, 0).expect("until the spare leaves");
            // One disturbance is the block itself.
            let quiet = harness.disturbances(server.tid()) == before + 1;
            let direct = spare.reached(1);
            if let Some(left) = harness.provider().disarm(sleeper.task()) {
                server.ready.push_back(left);
            }
            data.set();
            server.run_to_exit(&[&spare, &sleeper]);
            server.finish();
            if quiet {
                assert!(direct, "the block did not switch to the armed worker");
                assert!(spare.reached(2), "the server ran beside the armed worker");
            }
            quiet
        });
    });
}

/// Checklist 39, trap 10.
#[test]
fn an_unblocked_worker_stops_until_it_is_picked() {
    for_each_provider(|harness| {
        let exact = harness.provider().facts().exact_stop;
        let mut server = Server::start(harness);
        let data = Futex::default();
        let sleeper = harness.worker("sleeper", server.tid(), {
            let data = data.clone();
            move |me| {
                data.wait();
                me.step(1);
                me.checkpoint();
                me.step(2);
            }
        });
        server.run_until_blocked(&sleeper);
        data.set();
        server.collect(&sleeper);
        // The server owns the worker and does not pick it, and idles for a while.
        for _ in 0..5 {
            server.task().begin_drain();
            let _ = server.wait(0, in_ms(5));
            assert!(
                !sleeper.reached(2),
                "it passed its checkpoint without having been picked"
            );
            assert!(
                !exact || !sleeper.reached(1),
                "it ran user code without having been picked"
            );
            assert_eq!(sleeper.state(), state::RUNNABLE);
        }
        server.run_to_exit(&[&sleeper]);
        server.finish();
    });
}

/// Checklist 6 and 40: only the server whose tid is in `server_tid` hears of the worker.
#[test]
fn a_block_and_its_end_go_to_the_current_server() {
    for_each_provider(|harness| {
        let mut first = Server::named(harness, "first");
        let data = Futex::default();
        let sleeper = harness.worker("sleeper", first.tid(), {
            let data = data.clone();
            move |me| {
                me.step(1);
                me.blocking(|| data.wait());
            }
        });
        first.collect(&sleeper);
        let tid = first.remove(&sleeper);
        harness.thread("second", {
            let (harness, sleeper, data) = (Arc::clone(harness), sleeper.clone(), data.clone());
            move || {
                harness.guarded("second", || {
                    let mut second = Server::named(&harness, "second");
                    sleeper.task().set_server_tid(second.tid());
                    second.ready.push_back(tid);
                    second.run_until_blocked(&sleeper);
                    data.set();
                    second.collect(&sleeper);
                    second.run_to_exit(&[&sleeper]);
                    second.finish();
                });
            }
        });
        first.run_to_exit(&[&sleeper]);
        let strangers = first
            .log
            .iter()
            .filter(|drained| !drained.blocked.is_empty());
        assert_eq!(strangers.count(), 0, "an event went to the first server");
        first.finish();
    });
}

/// Checklist 41.
#[test]
fn the_result_of_the_system_call_is_untouched() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        // A partial read, an error with its errno, and a time-out come back as they do without
        // UMCG.
        let (mut reader, mut writer) = blockers::pipe();
        let worker = harness.worker("worker", server.tid(), move |me| {
            use std::io::Read;
            let mut buffer = [0; 100];
            let count = me.blocking(|| reader.read(&mut buffer));
            assert_eq!(count.expect("read"), 5);
            assert_eq!(&buffer[..5], b"hello");
            let mut entry = libc::pollfd {
                fd: -1,
                events: 0,
                revents: 0,
            };
            // SAFETY: one valid entry; it sleeps 20 ms.
            let count = me.blocking(|| unsafe { libc::poll(&raw mut entry, 1, 20) });
            assert_eq!(count, 0, "poll times out");
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            let word = 0_u32;
            // SAFETY: the word and the time are alive.
            let (result, errno) = unsafe {
                let result = libc::syscall(
                    libc::SYS_futex,
                    &raw const word,
                    libc::FUTEX_WAIT,
                    0,
                    &raw const time,
                );
                (result, *libc::__errno_location())
            };
            me.checkpoint();
            assert_eq!((result, errno), (-1, libc::ETIMEDOUT), "errno survives");
        });
        server.run_until_blocked(&worker);
        std::io::Write::write_all(&mut writer, b"hello").expect("write to the pipe");
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}
