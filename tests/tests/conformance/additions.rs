//! What the trait has beyond the mail: a take-over, and a checkpoint that does not sleep.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use umcg_sys::{ProviderKind, ServerCounters, state};
use umcg_tests::{Harness, Me, Server, Worker, blockers::Futex, for_each_provider};

/// Two workers of one server that wake each other and go to sleep: whoever wakes up finds the
/// slot with one that is about to sleep, and has not been reported.
fn to_and_fro(harness: &Arc<Harness>, take_over: bool) -> ServerCounters {
    const ROUNDS: u32 = 100;
    let mut server = Server::start(harness);
    server.set_take_over(take_over);
    let (ping, pong) = (Futex::default(), Futex::default());
    let catch = |me: &Me, ball: &Futex| {
        me.blocking(|| ball.wait());
        ball.0.store(0, SeqCst);
    };
    let first = harness.worker("first", server.tid(), {
        let (ping, pong) = (ping.clone(), pong.clone());
        move |me| {
            for _ in 0..ROUNDS {
                ping.set();
                catch(me, &pong);
            }
        }
    });
    let second = harness.worker("second", server.tid(), move |me| {
        for _ in 0..ROUNDS {
            catch(me, &ping);
            pong.set();
        }
    });
    server.run_to_exit(&[&first, &second]);
    let count = harness.provider().counters(server.tid());
    server.finish();
    count.expect("counters of a registered server")
}

#[test]
fn a_slot_is_taken_over_if_the_server_permits_it() {
    for_each_provider(|harness| {
        harness.attempt("a take-over", || {
            let count = to_and_fro(harness, true);
            if harness.provider().kind() != ProviderKind::Emulated || count.cpu.is_none() {
                // A permission, no request; and who is not pinned cannot know that it runs
                // instead of the other.
                assert_eq!(count.taken_over, 0, "{count:?}");
                return true;
            }
            count.taken_over > 0
        });
    });
}

#[test]
fn a_slot_is_not_taken_over_unless_the_server_permits_it() {
    for_each_provider(|harness| {
        for _ in 0..3 {
            let count = to_and_fro(harness, false);
            assert_eq!(
                (count.taken_over, count.blocks_sibling),
                (0, 0),
                "{count:?}"
            );
        }
    });
}

/// A worker that is preempted in the middle of nothing, and then asks: it calls `before`, asks,
/// rests if it has to, and calls `after`. With it, how many drains there were until then.
fn preempted(
    harness: &Arc<Harness>,
    server: &mut Server,
    before: impl Fn(&Me) + Send + 'static,
    after: impl Fn(&Me) + Send + 'static,
) -> (Worker, usize) {
    let (alone, go) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let worker = harness.worker("worker", server.tid(), {
        let (alone, go) = (Arc::clone(&alone), Arc::clone(&go));
        move |me| {
            me.until_alone(&alone, 1);
            while !go.load(SeqCst) {
                std::hint::spin_loop();
            }
            before(me);
            let holds = me.provider().try_checkpoint(&|| false);
            let holds = holds.expect("try_checkpoint");
            let exact = me.provider().facts().exact_stop;
            assert_eq!(holds, exact, "it was taken out of its slot");
            if !holds {
                rest(me);
            }
            after(me);
        }
    });
    server.hold_alone(&worker, &alone, 1);
    let drains = server.log.len();
    server.preempt(&worker);
    go.store(true, SeqCst);
    (worker, drains)
}

/// What a worker without a slot may do, and nothing else.
fn rest(me: &Me) {
    me.task().leave_judged();
    assert_eq!(me.task().state(), state::RUNNABLE);
    me.record().offered.store(me.task().server_tid(), SeqCst);
    me.wait();
}

#[test]
fn a_worker_that_rests_without_a_slot_is_picked_once() {
    for_each_provider(|harness| {
        for _ in 0..10 {
            let mut server = Server::start(harness);
            let stop = Arc::new(AtomicBool::new(false));
            let ends = Arc::clone(&stop);
            let (worker, drains) = preempted(
                harness,
                &mut server,
                |_| (),
                move |me| {
                    me.step(2);
                    // No call, so that nobody has a reason to pick it again.
                    while !ends.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                },
            );
            server.run_until("it is picked", |_| worker.reached(2));
            let tokens = |server: &Server| {
                let drained = server.log[drains..].iter();
                let tids =
                    drained.flat_map(|drained| drained.runnable.iter().chain(&drained.offered));
                tids.filter(|&&tid| tid == worker.tid()).count()
            };
            // The one that it published, or that a kernel made of the preemption.
            assert_eq!(tokens(&server), 1, "{:?}", &server.log[drains..]);
            stop.store(true, SeqCst);
            server.run_to_exit(&[&worker]);
            server.finish();
        }
    });
}

/// Trace T2: it publishes itself when its server has drained and idles. Nobody but its own `wait`
/// can say so.
#[test]
fn a_worker_that_rests_without_a_slot_is_found_by_an_idle_server() {
    for_each_provider(|harness| {
        for _ in 0..10 {
            let mut server = Server::start(harness);
            let (worker, _) = preempted(harness, &mut server, until_the_server_idles, |_| ());
            server.run_without_deadline(&[&worker]);
            server.finish();
        }
    });
}

/// Off the protocol, and without a call that may stop the worker. Where it is stopped at once it
/// comes here by being picked, and the slot is its own.
fn until_the_server_idles(me: &Me) {
    if me.provider().facts().exact_stop {
        return;
    }
    let server = me.task().server_tid();
    let task = me
        .harness()
        .by_tid(server)
        .expect("the server of this test");
    me.harness().until("the server idles", || {
        me.provider().current(server).is_none() && task.task.state() == state::RUNNABLE
    });
}

#[test]
fn try_checkpoint_takes_an_idle_slot_only_for_work() {
    for_each_provider(|harness| {
        for wanted in [true, false] {
            harness.attempt("a server that idles meanwhile", || {
                let mut server = Server::start(harness);
                let (data, held) = (Futex::default(), Arc::new(AtomicBool::new(false)));
                let worker = harness.worker("worker", server.tid(), {
                    let (data, held) = (data.clone(), Arc::clone(&held));
                    move |me| {
                        data.wait();
                        until_the_server_idles(me);
                        let holds = me.provider().try_checkpoint(&|| wanted);
                        let holds = holds.expect("try_checkpoint");
                        held.store(holds, SeqCst);
                        if !holds {
                            rest(me);
                        }
                    }
                });
                server.run_until_blocked(&worker);
                data.set();
                server.run_to_exit(&[&worker]);
                server.finish();
                let held = held.load(SeqCst);
                if harness.provider().facts().exact_stop {
                    assert!(held, "whoever runs holds its slot");
                    return true;
                }
                if !wanted {
                    assert!(!held, "it took a slot and has nothing to do in it");
                }
                // The server may have been in the middle of a drain.
                held == wanted
            });
        }
    });
}
