//! Every error of every call, as tables. After each error the caller goes on.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use libc::{EBUSY, EINVAL, ESRCH, ETIMEDOUT};
use umcg_sys::{Call, Placement, Provider, REGISTER_WORKER, Register, UmcgTask, gettid, state};
use umcg_tests::{
    Harness, Me, NO_SUCH_TID, Server, ServerGroup, Worker, assert_errno, blockers::Futex, cpu,
    for_each_provider, in_ms, proc, wrong_verdicts,
};

fn register(provider: &dyn Provider, task: &UmcgTask, how: &Register) -> i32 {
    // SAFETY: on success the caller unregisters before it drops the task.
    match unsafe { provider.register(NonNull::from(task), how) } {
        Ok(()) => 0,
        Err(error) => {
            assert_eq!(error.call(), Call::Register);
            error.errno()
        }
    }
}

/// Calls `body` with the tid of a thread that is alive and is no task.
fn with_ordinary_thread(body: impl FnOnce(u32)) {
    let (tid, done) = (Arc::new(AtomicU32::new(0)), Futex::default());
    let thread = std::thread::spawn({
        let (tid, done) = (Arc::clone(&tid), done.clone());
        move || {
            tid.store(gettid(), SeqCst);
            done.wait();
        }
    });
    while tid.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    body(tid.load(SeqCst));
    done.set();
    thread.join().expect("an ordinary thread");
}

/// The tid of a thread that has ended.
fn dead_tid() -> u32 {
    std::thread::spawn(gettid).join().expect("a thread")
}

/// A worker that sleeps until `data` is set, and is reported as blocked.
fn blocked(harness: &Arc<Harness>, server: &mut Server, data: &Futex) -> Worker {
    let worker = harness.sleeper("blocked", server.tid(), data);
    server.run_until_blocked(&worker);
    worker
}

#[test]
fn every_call_of_an_unregistered_thread() {
    for_each_provider(|harness| {
        let provider = harness.provider();
        let task = UmcgTask::for_current_thread(0);
        assert_errno(provider.wait(0, 0), EINVAL, "wait");
        assert_errno(provider.wait(in_ms(1), 0), EINVAL, "wait with a deadline");
        assert_errno(provider.checkpoint(), EINVAL, "checkpoint");
        let wanted = || true;
        assert_errno(provider.try_checkpoint(&wanted), EINVAL, "try_checkpoint");
        let own = NonNull::from(&task);
        assert_errno(provider.unregister(own), EINVAL, "unregister");
        assert_errno(provider.preempt(gettid()), ESRCH, "preempt oneself");
        assert_eq!(provider.counters(gettid()), None);
        assert_eq!(provider.current(gettid()), None);
        assert_eq!(provider.disarm(&task), None);
        provider.work_waiting(gettid());
        assert_eq!(task.state(), state::NONE);
    });
}

/// A task that looks as if it were in use is refused, even if the thread that it names registers
/// it, and nothing in it changes.
fn in_use(provider: &dyn Provider, server_tid: u32, how: &Register) {
    for wrong in [state::RUNNING, state::RUNNABLE, state::BLOCKED, 0xff] {
        let task = UmcgTask::for_current_thread(server_tid);
        task.transition(state::NONE, wrong).expect("a new task");
        let what = format!("state {}", state::name(wrong));
        assert_eq!(register(provider, &task, how), EINVAL, "{what}");
        assert_eq!(task.state(), wrong, "{what}: untouched");
        assert_errno(provider.checkpoint(), EINVAL, &what);
    }
    let task = UmcgTask::for_current_thread(server_tid);
    task.set_next_tid(gettid());
    assert_eq!(register(provider, &task, how), EINVAL, "a next_tid");
    assert_eq!(task.next_tid(), gettid(), "untouched");
    assert_eq!(task.state(), state::NONE);
    assert_errno(provider.checkpoint(), EINVAL, "a next_tid");
}

#[test]
fn register_of_a_server() {
    for_each_provider(|harness| {
        let provider = harness.provider().as_ref();
        let place = harness.under_test().placement;
        let refused = |what: &str, task: &UmcgTask, how: &Register, errno: i32| {
            assert_eq!(register(provider, task, how), errno, "{what}");
            assert_eq!(task.state(), state::NONE, "{what}: not registered");
            assert_errno(provider.checkpoint(), EINVAL, what);
        };
        let task = UmcgTask::for_current_thread(0);
        for bit in 1..32 {
            let mut how = Register::server(place);
            how.flags = 1 << bit;
            refused("an unknown flag or version", &task, &how, EINVAL);
        }
        let plain = Register::server(place);
        refused("no tid", &UmcgTask::new(), &plain, EINVAL);
        let other = UmcgTask::for_current_thread(dead_tid());
        refused("a server_tid that is not its own", &other, &plain, EINVAL);
        in_use(provider, 0, &plain);
        for cpu in [usize::MAX, 1 << 20, 1023] {
            if !cpu::affinity().contains(&cpu) {
                let how = Register::server(Placement::Cpu(cpu));
                refused("a CPU outside the affinity mask", &task, &how, EINVAL);
            }
        }
        // After all these errors a correct call succeeds.
        assert_eq!(register(provider, &task, &plain), 0);
        assert_eq!(register(provider, &task, &plain), EINVAL, "a second time");
        let second = UmcgTask::for_current_thread(0);
        assert_eq!(register(provider, &second, &plain), EINVAL, "another task");
        assert_eq!(second.state(), state::NONE);
        assert_eq!(task.state(), state::RUNNING, "the first one stays");
        provider
            .unregister(NonNull::from(&task))
            .expect("the first one stays");
    });
}

#[test]
fn register_of_a_worker() {
    for_each_provider(|harness| {
        let server = Server::start(harness);
        let refused = |what: &str, server_tid: u32| {
            let worker = harness.worker(what, server_tid, |_| {});
            harness.until(what, || worker.exited());
            assert_eq!(worker.admission(), Some(ESRCH), "{what}");
            assert_eq!(worker.state(), state::NONE, "{what}: not registered");
        };
        refused("itself as server", 0);
        refused("nobody as server", NO_SUCH_TID);
        refused("a thread that is gone as server", dead_tid());
        with_ordinary_thread(|tid| refused("an ordinary thread as server", tid));
        let worker = harness.worker("worker", server.tid(), |_| {});
        harness.until("a worker", || worker.state() == state::RUNNABLE);
        refused("a worker as server", worker.tid());
        // Other bits beside the worker flag, on a thread that is no task yet.
        let own = server.tid();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let task = UmcgTask::for_current_thread(own);
                for bit in 1..32 {
                    let mut how = Register::worker();
                    how.flags |= 1 << bit;
                    let provider = harness.provider().as_ref();
                    assert_eq!(how.flags & REGISTER_WORKER, 1);
                    assert_eq!(register(provider, &task, &how), EINVAL, "bit {bit}");
                    assert_eq!(task.state(), state::NONE);
                }
                in_use(harness.provider().as_ref(), own, &Register::worker());
            });
        });
        let mut server = server;
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn wait_of_a_server() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let elsewhere = ServerGroup::start(harness, 1);
        let foreign = harness.worker("foreign", elsewhere.tid(0), Me::park);
        harness.until("it waits there", || foreign.record().parked.load(SeqCst));
        let stop = Arc::new(AtomicBool::new(false));
        let running = harness.spinner("running", elsewhere.tid(0), &stop);
        harness.until("it runs there", || running.reached(1));
        let data = Futex::default();
        let sleeper = blocked(harness, &mut server, &data);

        with_ordinary_thread(|ordinary| {
            let table = [
                ("a thread that never was", NO_SUCH_TID, ESRCH),
                ("a thread that is gone", dead_tid(), ESRCH),
                ("an ordinary thread", ordinary, ESRCH),
                ("a worker of another server", foreign.tid(), EBUSY),
                ("a worker that runs elsewhere", running.tid(), EBUSY),
                ("another server", elsewhere.tid(0), EBUSY),
                ("a blocked worker", sleeper.tid(), EBUSY),
            ];
            for (what, next, errno) in table {
                for deadline in [0, 1, in_ms(60_000)] {
                    // `Server::wait` asserts that the server is RUNNING and that next_tid is
                    // unchanged.
                    assert_errno(server.insist(next, deadline), errno, what);
                }
            }
        });
        assert_eq!(foreign.state(), state::RUNNABLE, "untouched");
        assert_eq!(sleeper.state(), state::BLOCKED, "untouched");

        // Unknown flags, in every state and with every target.
        for flags in [2, 4, 1 << 31, u32::MAX] {
            assert_errno(harness.provider().wait(0, flags), EINVAL, "RUNNING, flags");
            assert_eq!(server.task().state(), state::RUNNING);
            server.drain();
            server.task().set_next_tid(sleeper.tid());
            assert_errno(harness.provider().wait(0, flags), EINVAL, "RUNNABLE, flags");
            assert_eq!(server.task().state(), state::RUNNING);
            assert_eq!(server.task().next_tid(), sleeper.tid());
            server.task().set_next_tid(0);
        }

        // The deadline.
        assert_errno(server.insist(0, in_ms(3)), ETIMEDOUT, "idle");
        assert_errno(server.insist(server.tid(), in_ms(3)), ETIMEDOUT, "itself");

        data.set();
        server.run_to_exit(&[&sleeper]);
        // Somebody must run the foreign worker, and nobody else owns it.
        assert!(foreign.unpark());
        foreign
            .record()
            .offered
            .store(foreign.task().server_tid(), SeqCst);
        stop.store(true, SeqCst);
        harness.until("both end", || foreign.exited() && running.exited());
        elsewhere.finish();
        server.finish();
    });
}

#[test]
fn wait_in_a_state_that_cannot_wait() {
    // This is the one error after which the caller is not RUNNING: other code wrote the state, and
    // may expect to find it there.
    let check = |provider: &dyn Provider, task: &UmcgTask, wrong: u32| {
        while task.transition(state::RUNNING, wrong).is_err() {
            // The worker was judged meanwhile.
            provider.checkpoint().expect("checkpoint");
        }
        task.set_next_tid(NO_SUCH_TID);
        assert_errno(provider.wait(0, 0), EINVAL, state::name(wrong));
        assert_eq!(task.state(), wrong, "left as it is");
        assert_eq!(task.next_tid(), NO_SUCH_TID, "untouched");
        task.set_next_tid(0);
        task.transition(wrong, state::RUNNING)
            .expect("for the caller to repair");
    };
    for_each_provider(move |harness| {
        let mut server = Server::start(harness);
        for wrong in [state::BLOCKED, state::NONE, 0xff] {
            check(harness.provider().as_ref(), server.task(), wrong);
            assert_errno(server.insist(0, in_ms(1)), ETIMEDOUT, "and all goes on");
        }
        let worker = harness.worker("worker", server.tid(), move |me| {
            // Not BLOCKED: that is the state of a worker that was judged and waits for its turn.
            for wrong in [state::NONE, 0xff] {
                check(me.provider().as_ref(), me.task(), wrong);
                me.yield_now();
            }
        });
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn wait_of_a_server_with_a_worker_in_its_slot() {
    for_each_provider(|harness| {
        harness.attempt("a server with a worker in its slot", || {
            let mut server = Server::start(harness);
            let stop = Arc::new(AtomicBool::new(false));
            let other = harness.worker("other", server.tid(), |_| {});
            server.collect(&other);
            let other_tid = server.remove(&other);
            let holder = harness.spinner("holder", server.tid(), &stop);
            server.hold(&holder);
            let before = harness.disturbances(server.tid());

            // Another worker is refused.
            server.task().begin_drain();
            let refused = server.wait(other_tid, in_ms(5));
            let back = server.task().next_tid() == other_tid;
            let still = refused.is_err() && server.current() == Some(holder.tid());
            // If it names nobody, itself, or the holder of the slot, the server goes on sleeping,
            // and there is no switch.
            let mut slept = Vec::new();
            if still {
                // The holder is named only in a run without wrong verdicts: after a verdict it
                // would be picked while its token is on the list.
                let named = if wrong_verdicts() { 0 } else { holder.tid() };
                for next in [0, server.tid(), named] {
                    server.task().begin_drain();
                    let result = server.wait(next, in_ms(2));
                    if next == holder.tid() && result.is_err() {
                        assert_eq!(server.task().next_tid(), 0, "it runs in this slot already");
                    }
                    slept.push(result);
                }
            }
            // An event in between also ends a wait, and then the wait says nothing about the
            // target.
            let quiet = still
                && slept.iter().all(Result::is_err)
                && harness.disturbances(server.tid()) == before;
            if quiet {
                assert_eq!(server.current(), Some(holder.tid()));
            }
            stop.store(true, SeqCst);
            if back {
                server.ready.push_back(other_tid);
            }
            server.run_to_exit(&[&holder, &other]);
            server.finish();
            if quiet {
                assert_errno(refused, EBUSY, "another worker");
                for result in slept {
                    assert_errno(result, ETIMEDOUT, "the server goes on sleeping");
                }
            }
            quiet
        });
    });
}

#[test]
fn wait_of_a_worker() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let elsewhere = ServerGroup::start(harness, 1);
        let data = Futex::default();
        let sleeper = blocked(harness, &mut server, &data);
        let done = dead_tid();
        let worker = harness.worker("worker", server.tid(), {
            let (elsewhere, sleeper) = (elsewhere.tid(0), sleeper.tid());
            let server = server.tid();
            move |me| {
                let table = [
                    ("unknown flags", 0, 0, 1, EINVAL),
                    ("all flags", 0, 0, u32::MAX, EINVAL),
                    ("a deadline", 0, in_ms(60_000), 0, EINVAL),
                    ("a deadline and a target", server, 1, 0, EINVAL),
                    ("itself", gettid(), 0, 0, EINVAL),
                    ("a thread that never was", NO_SUCH_TID, 0, 0, ESRCH),
                    ("a thread that is gone", done, 0, 0, ESRCH),
                    ("another server", elsewhere, 0, 0, EBUSY),
                    ("a blocked worker", sleeper, 0, 0, EBUSY),
                ];
                for (what, next, deadline, flags, errno) in table {
                    // `failing_wait` asserts that the worker is RUNNING and that next_tid is
                    // unchanged.
                    let error = me.failing_wait(what, next, deadline, flags);
                    assert_eq!(error.call(), Call::Wait);
                    assert_eq!(error.errno(), errno, "{what}: {error}");
                }
                // Flags and a deadline are refused in RUNNING as well.
                let error = me.failing("flags", |provider| provider.wait(0, 4));
                assert_eq!(error.errno(), EINVAL);
                let error = me.failing("a deadline", |provider| provider.wait(1, 0));
                assert_eq!(error.errno(), EINVAL);
                // Its own tid as its server (trap g) is refused: a worker must not idle on itself.
                me.leave();
                me.task().set_server_tid(gettid());
                let result = me.provider().wait(0, 0);
                me.task().set_server_tid(server);
                assert_errno(result, EINVAL, "a worker that is its own server");
                me.assert_passed("wait");
            }
        });
        server.run_to_exit(&[&worker]);
        data.set();
        server.run_to_exit(&[&sleeper]);
        elsewhere.finish();
        server.finish();
    });
}

/// A worker that has left RUNNING and was picked calls `wait` with unknown flags. It holds its
/// slot, and may leave it.
#[test]
fn wait_of_a_worker_that_was_picked() {
    for_each_provider(|harness| {
        if harness.provider().facts().exact_stop {
            // With an exact stop, only another server can take a worker out of its slot before its
            // `wait`.
            return;
        }
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), {
            let server = server.tid();
            move |me| {
                for _ in 0..10 {
                    me.leave();
                    me.record().offered.store(server, SeqCst);
                    while me.task().state() != state::RUNNING {
                        std::thread::yield_now();
                    }
                    assert_errno(me.provider().wait(0, 1), EINVAL, "flags");
                    me.assert_passed("wait");
                    me.yield_now();
                }
            }
        });
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

#[test]
fn unregister() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let provider = Arc::clone(harness.provider());
        let own = NonNull::from(server.task());
        let other = UmcgTask::for_current_thread(0);
        let wrong = provider.unregister(NonNull::from(&other));
        assert_errno(wrong, EINVAL, "another task than the registered one");
        assert_eq!(server.task().state(), state::RUNNING);
        server.drain();
        assert_errno(provider.unregister(own), EBUSY, "a RUNNABLE server");
        assert_errno(server.insist(0, 1), ETIMEDOUT, "still registered");

        let worker = harness.worker("worker", server.tid(), |me| {
            let other = UmcgTask::for_current_thread(me.task().server_tid());
            let error = me.failing("unregister another task", |provider| {
                provider.unregister(NonNull::from(&other))
            });
            assert_eq!(error.errno(), EINVAL);
            me.leave();
            let result = me.provider().unregister(NonNull::from(me.task()));
            assert_errno(result, EBUSY, "a RUNNABLE worker");
            me.record().offered.store(me.task().server_tid(), SeqCst);
            me.wait();
        });
        server.run_to_exit(&[&worker]);

        // A second time.
        server.finish();
        assert_errno(provider.unregister(own), EINVAL, "a second time");
    });
}

#[test]
fn preempt() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let provider = Arc::clone(harness.provider());
        for tid in [0, NO_SUCH_TID, u32::MAX, dead_tid()] {
            assert_errno(provider.preempt(tid), ESRCH, "no such task");
        }
        with_ordinary_thread(|tid| {
            assert_errno(provider.preempt(tid), ESRCH, "an ordinary thread");
        });
        // A task that is not RUNNING is left alone, and that is no error.
        let data = Futex::default();
        let sleeper = blocked(harness, &mut server, &data);
        provider.preempt(sleeper.tid()).expect("a blocked worker");
        assert_eq!(sleeper.state(), state::BLOCKED);
        let ready = harness.worker("ready", server.tid(), |_| {});
        server.collect(&ready);
        provider.preempt(ready.tid()).expect("a RUNNABLE worker");
        assert_eq!(ready.state(), state::RUNNABLE);
        // The same for a server that is awake.
        provider.preempt(server.tid()).expect("an awake server");
        assert!(matches!(
            server.task().state(),
            state::RUNNING | state::RUNNABLE
        ));
        data.set();
        server.run_to_exit(&[&sleeper, &ready]);
        let (own, worker) = (server.tid(), ready.tid());
        server.finish();
        assert_errno(provider.preempt(own), ESRCH, "after unregister");
        assert_errno(provider.preempt(worker), ESRCH, "a worker that has gone");
    });
}

#[test]
fn wake() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let provider = Arc::clone(harness.provider());
        for tid in [0, NO_SUCH_TID, u32::MAX, dead_tid()] {
            assert_errno(provider.wake(tid), ESRCH, "no such task");
        }
        with_ordinary_thread(|tid| {
            assert_errno(provider.wake(tid), ESRCH, "an ordinary thread");
        });
        // A server that is awake is left alone, and its next wait is an ordinary one.
        provider.wake(server.tid()).expect("an awake server");
        assert_eq!(server.task().state(), state::RUNNING);
        assert_errno(server.insist(0, in_ms(3)), ETIMEDOUT, "nobody wakes it");
        // A server that idles is woken.
        let waker = wake_when_asleep(harness, &server);
        while !waker.load(SeqCst) {
            server.drain();
            server.wait(0, 0).expect("woken");
        }
        let own = server.tid();
        server.finish();
        assert_errno(provider.wake(own), ESRCH, "after unregister");
    });
}

/// Wakes the server as soon as it sleeps in `wait`. Sets the returned flag just before.
fn wake_when_asleep(harness: &Arc<Harness>, server: &Server) -> Arc<AtomicBool> {
    let woken = Arc::new(AtomicBool::new(false));
    harness.thread("waker", {
        let (harness, woken) = (Arc::clone(harness), Arc::clone(&woken));
        let record = Arc::clone(server.record());
        move || {
            harness.guarded("waker", || {
                let tid = record.task.tid();
                harness.until("the server sleeps", || {
                    record.task.state() == state::RUNNABLE && proc::asleep(tid)
                });
                woken.store(true, SeqCst);
                harness.provider().wake(tid).expect("wake the server");
            });
        }
    });
    woken
}

#[test]
fn wake_leaves_the_worker_in_the_slot_alone() {
    for_each_provider(|harness| {
        harness.attempt("a wake-up, and no verdict beside it", || {
            let mut server = Server::start(harness);
            let stop = Arc::new(AtomicBool::new(false));
            let holder = harness.spinner("holder", server.tid(), &stop);
            server.hold(&holder);
            let before = harness.disturbances(server.tid());
            let holds = |server: &Server| {
                server.current() == Some(holder.tid()) && holder.state() == state::RUNNING
            };
            // Once while the server is awake, and once while it sleeps.
            let provider = harness.provider();
            provider.wake(server.tid()).expect("an awake server");
            let beside_awake = holds(&server);
            let waker = wake_when_asleep(harness, &server);
            while !waker.load(SeqCst) {
                server.task().begin_drain();
                server.wait(0, 0).expect("woken");
            }
            let beside_asleep = holds(&server);
            let quiet = harness.disturbances(server.tid()) == before;
            stop.store(true, SeqCst);
            server.run_to_exit(&[&holder]);
            server.finish();
            assert!(
                beside_awake && beside_asleep || !quiet,
                "the wake-up took the slot from the worker"
            );
            quiet
        });
    });
}

#[test]
fn checkpoint() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        harness.provider().checkpoint().expect("a server");
        assert_eq!(server.task().state(), state::RUNNING);
        server.drain();
        harness.provider().checkpoint().expect("a server, draining");
        let ask = || harness.provider().try_checkpoint(&|| true);
        assert_eq!(ask(), Ok(true), "a server");
        let worker = harness.worker("worker", server.tid(), |me| {
            for _ in 0..1000 {
                me.checkpoint();
            }
        });
        server.run_to_exit(&[&worker]);
        // A worker whose server is gone gets this from both calls.
        let gone = Arc::new(AtomicBool::new(false));
        let detached = harness.worker_that_just_ends("detached", server.tid(), {
            let gone = Arc::clone(&gone);
            move |me| {
                while !gone.load(SeqCst) {
                    std::hint::spin_loop();
                }
                let result = me.provider().try_checkpoint(&|| true);
                assert_errno(result, ESRCH, "try_checkpoint without a server");
                assert_errno(
                    me.provider().checkpoint(),
                    ESRCH,
                    "checkpoint without a server",
                );
                let _ = me.provider().unregister(NonNull::from(me.task()));
            }
        });
        server.collect(&detached);
        let next = server.remove(&detached);
        let _ = server.dispatch(next, in_ms(5));
        server.finish();
        gone.store(true, SeqCst);
        harness.until("the worker is told", || detached.exited());
        assert_errno(harness.provider().checkpoint(), EINVAL, "after unregister");
        assert_errno(ask(), EINVAL, "after unregister");
    });
}

#[test]
fn errors_say_what_was_attempted() {
    for_each_provider(|harness| {
        let error = harness.provider().wait(0, 0).expect_err("not registered");
        let text = error.to_string();
        assert!(
            text.contains("Wait") && text.contains("EINVAL") && text.contains("regist"),
            "{text}"
        );
        let error: std::io::Error = error.into();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    });
}
