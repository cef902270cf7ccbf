//! Checklist 1 to 17: the struct, the states, register and unregister.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use umcg_sys::{List, Register, UmcgTask, gettid, state};
use umcg_tests::{
    NO_SUCH_TID, Record, Server, Worker, assert_errno, blockers::Futex, for_each_provider, in_ms,
};

/// Checklist 1.
#[test]
fn the_task_has_the_layout_of_the_abi() {
    assert_eq!(align_of::<UmcgTask>(), 64, "a task must never cross a page");
    let task = UmcgTask::new();
    assert_eq!(Record::raw_words(&task), [0; 8]);
    task.prepare(0x1122_3344);
    task.set_next_tid(0x5566_7788);
    task.transition(state::NONE, state::BLOCKED).expect("fresh");
    task.set_user_bits(0xabcd);
    let words = Record::raw_words(&task);
    assert_eq!(words[0], 0xabcd_0003, "state at 0, user bits above");
    assert_eq!(words[1], 0x1122_3344, "server_tid at 4");
    assert_eq!(words[2], 0x5566_7788, "next_tid at 8");
    assert_eq!(words[3], gettid(), "tid at 12");
    assert_eq!(words[4..], [0; 4], "the two pointers at 16 and 24");
    // SAFETY: neither task is freed before its event is taken.
    unsafe {
        let worker = UmcgTask::new();
        assert!(task.push(List::Blocked, &worker));
        assert_eq!(Record::raw_list(&task, List::Blocked), worker.address());
        assert_eq!(Record::raw_list(&task, List::Runnable), 0);
        assert!(task.push(List::Runnable, &worker));
        assert_eq!(Record::raw_list(&task, List::Runnable), worker.address());
        assert_eq!(task.take(List::Blocked).count(), 1);
        assert_eq!(task.take(List::Runnable).count(), 1);
    }
}

/// Checklist 2.
#[test]
fn the_list_pointers_are_64_bits_and_name_the_task() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |_| {});
        harness.until("admission is pushed", || {
            server.task().has_events(List::Runnable)
        });
        let head: u64 = Record::raw_list(server.task(), List::Runnable);
        assert_eq!(head, worker.task().address());
        // Trap 52: the task is the first field of its record, so the struct needs no user pointer.
        server.task().begin_drain();
        let events: Vec<_> = server.task().take(List::Runnable).collect();
        assert_eq!(events.len(), 1);
        // SAFETY: every task of this server is the first field of a record.
        let record = unsafe { events[0].cast::<Record>().as_ref() };
        assert_eq!(record.name, "worker");
        server.ready.push_back(worker.tid());
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Checklist 3.
#[test]
fn the_provider_writes_only_its_own_fields() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            me.yield_now();
            me.sleep(std::time::Duration::from_millis(2));
            me.yield_now();
        });
        let (own, tid) = (server.tid(), worker.tid());
        server.run_to_exit(&[&worker]);
        for (task, tid) in [(server.task(), own), (worker.task(), tid)] {
            let words = Record::raw_words(task);
            assert_eq!(words[1], own, "server_tid is read only");
            assert_eq!(words[2], 0, "next_tid is cleared by the switch");
            assert_eq!(words[3], tid, "tid is read only");
        }
        server.finish();
    });
}

/// Checklist 4.
#[test]
fn the_tid_must_be_that_of_the_caller() {
    for_each_provider(|harness| {
        let provider = harness.provider();
        let task = UmcgTask::for_current_thread(0);
        assert_eq!(task.tid(), gettid());
        // A task that was prepared by another thread has the tid of that thread.
        let foreign = std::thread::spawn(|| UmcgTask::for_current_thread(0))
            .join()
            .expect("prepares a task");
        let refused = |what: &str, task: &UmcgTask, how: &Register| {
            // SAFETY: the call fails, so nothing keeps the pointer.
            let result = unsafe { provider.register(NonNull::from(task), how) };
            assert_errno(result, libc::EINVAL, what);
            assert_eq!(task.state(), state::NONE, "it was registered all the same");
            assert_errno(provider.wait(0, 0), libc::EINVAL, "wait after that");
        };
        let how = Register::server(harness.under_test().placement);
        refused("another thread's task", &foreign, &how);
        // Only the tid is wrong here. The server is the caller, and then a live server.
        let own = gettid();
        let foreign = |server_tid| -> &'static UmcgTask {
            let thread = std::thread::spawn(move || UmcgTask::for_current_thread(server_tid));
            Box::leak(Box::new(thread.join().expect("prepares a task")))
        };
        refused("a server by another tid", foreign(own), &how);
        let server = Server::start(harness);
        let task = foreign(server.tid());
        std::thread::scope(|scope| {
            scope.spawn(|| refused("a worker by another tid", task, &Register::worker()));
        });
        server.finish();
    });
}

/// Checklist 5 and 11.
#[test]
fn the_words_alone_say_who_runs_and_who_waits() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let seen = Arc::new(AtomicBool::new(false));
        let worker = harness.worker("worker", server.tid(), {
            let seen = Arc::clone(&seen);
            move |me| me.spin_until(|| seen.load(SeqCst))
        });
        server.collect(&worker);
        assert_eq!(worker.state(), state::RUNNABLE, "admitted, not picked");
        let server_record = Arc::clone(server.record());
        let looker = worker.clone();
        harness.thread("looker", {
            let harness = Arc::clone(harness);
            move || {
                harness.until("worker RUNNING, server RUNNABLE, in words", || {
                    looker.state() == state::RUNNING
                        && server_record.task.state() == state::RUNNABLE
                });
                seen.store(true, SeqCst);
            }
        });
        server.run_to_exit(&[&worker]);
        assert_eq!(worker.state(), state::NONE);
        server.finish();
    });
}

/// Checklist 8 and 10, trace A2, trap 46.
#[test]
fn a_worker_can_be_on_both_lists() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (go, data) = (Arc::new(AtomicBool::new(false)), Futex::default());
        let worker = harness.worker("worker", server.tid(), {
            let (go, data) = (Arc::clone(&go), data.clone());
            move |me| {
                me.spin_until(|| go.load(SeqCst));
                me.blocking(|| data.wait());
                me.step(1);
            }
        });
        server.hold(&worker);
        // The server is awake and does not drain.
        go.store(true, SeqCst);
        server.until_slot_is_free();
        data.set();
        harness.until("the unblock", || worker.task().is_linked(List::Runnable));
        assert!(
            worker.task().is_linked(List::Blocked),
            "it is not on the blocked list"
        );
        assert_eq!(worker.state(), state::RUNNABLE);
        assert_eq!(
            worker.step(),
            0,
            "it passed its checkpoint without having been picked"
        );
        let drained = server.drain();
        assert_eq!(drained.blocked, [worker.tid()]);
        assert_eq!(drained.runnable, [worker.tid()]);
        assert_eq!(worker.state(), state::RUNNABLE, "also after the drain");
        server.run_to_exit(&[&worker]);
        server.finish();
    });
}

/// Checklist 9.
#[test]
fn there_are_three_states_and_none() {
    assert_eq!(
        [state::NONE, state::RUNNING, state::RUNNABLE, state::BLOCKED],
        [0, 1, 2, 3]
    );
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |me| {
            for _ in 0..20 {
                me.yield_now();
                me.sleep(std::time::Duration::from_micros(300));
            }
        });
        let done = Arc::new(AtomicBool::new(false));
        harness.thread("looker", {
            let (harness, done) = (Arc::clone(harness), Arc::clone(&done));
            move || {
                harness.guarded("looker", || {
                    while !done.load(SeqCst) {
                        for record in harness.records() {
                            let word = record.task.state_word().load(SeqCst);
                            assert!(
                                word & state::STATE_MASK <= 3,
                                "there is a fourth state: {word:#x}"
                            );
                            assert_eq!(word & state::USER_MASK, 0, "the user bits have changed");
                        }
                        std::thread::yield_now();
                    }
                });
            }
        });
        server.run_to_exit(&[&worker]);
        done.store(true, SeqCst);
        server.finish();
    });
}

/// Checklist 14, trap 51.
#[test]
fn register_records_the_pointer_and_waits_for_admission() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |_| {});
        harness.until("the worker's own words change", || {
            worker.state() == state::RUNNABLE
        });
        server.collect(&worker);
        assert!(worker.admission().is_none(), "register has not returned");
        server.run_to_exit(&[&worker]);
        assert_eq!(worker.admission(), Some(0));
        server.finish();
    });
}

/// Checklist 15, trace A11.
#[test]
fn after_unregister_the_memory_belongs_to_the_caller() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let freed = Arc::new(AtomicBool::new(false));
        let leaver = harness.worker_that_just_ends("leaver", server.tid(), {
            let freed = Arc::clone(&freed);
            move |me| {
                me.sleep(std::time::Duration::from_millis(2));
                me.unregister();
                let before = Record::raw_words(me.task());
                freed.store(true, SeqCst);
                // The thread lives on, blocks and runs, and nobody writes to its task any more.
                for _ in 0..20 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    assert_eq!(Record::raw_words(me.task()), before);
                }
                assert_eq!(before[0], state::NONE);
                assert_eq!(before[4..], [0; 4], "on no list");
                // The same memory can be registered again.
                let task = NonNull::from(me.task());
                me.task().prepare(me.task().server_tid());
                // SAFETY: the harness keeps the task.
                unsafe { me.provider().register(task, &Register::worker()) }
                    .expect("register again");
                me.unregister();
            }
        });
        let busy = harness.worker("busy", server.tid(), move |me| {
            while !freed.load(SeqCst) {
                me.yield_now();
            }
            for _ in 0..50 {
                me.yield_now();
            }
        });
        server.run_to_exit(&[&leaver, &busy]);
        server.finish();
    });
}

/// Checklist 17.
#[test]
fn three_calls_are_enough_for_cooperative_work() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        // There is no blocking and there are no slices: only the three calls of the mail are used.
        let workers: Vec<_> = (0..4)
            .map(|index| {
                harness.worker(&format!("worker {index}"), server.tid(), |me| {
                    for round in 0..10 {
                        me.step(round);
                        me.yield_now();
                    }
                    me.step(10);
                })
            })
            .collect();
        while !workers.iter().all(Worker::exited) {
            harness.check();
            server.turn(in_ms(100));
        }
        assert!(workers.iter().all(|worker| worker.reached(10)));
        let nobody = server.insist(NO_SUCH_TID, 0);
        assert_errno(nobody, libc::ESRCH, "and nobody is left");
        server.finish();
    });
}
