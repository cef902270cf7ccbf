//! What the provider has beyond the mail: taking a slot over, and a checkpoint that does not sleep.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use umcg_sys::{ProviderKind, ServerCounters, state};
use umcg_tests::{Harness, Me, Server, Worker, blockers::Futex, for_each_provider};

/// Two workers of one server wake each other and go to sleep. A worker that wakes up finds the slot
/// held by the other one, which is about to sleep and has not been reported yet.
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
                // The flag permits a take-over and does not ask for one. Besides, a worker that is
                // not pinned cannot know that it runs because the holder of the slot sleeps.
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

/// Starts a worker that is preempted while it makes no call. The worker then calls `before`, asks
/// `try_checkpoint`, rests if it has lost its slot, and calls `after`. Returns the worker, and the
/// number of drains before the preemption.
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
                    // It makes no call, so that nothing gives its server a reason to pick it again.
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
            // One token: the worker offered itself, or a kernel pushed it when it was preempted.
            assert_eq!(tokens(&server), 1, "{:?}", &server.log[drains..]);
            stop.store(true, SeqCst);
            server.run_to_exit(&[&worker]);
            server.finish();
        }
    });
}

/// The worker offers itself after its server has drained and gone idle. Only its own `wait` can
/// tell the server about it.
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

/// Waits outside of the protocol, without a call that may stop the worker. Where a preempted worker
/// is stopped at once, it comes here after it was picked, and its slot is its own.
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
                    assert!(held, "a worker that runs holds its slot");
                    return true;
                }
                if !wanted {
                    assert!(!held, "it took a slot although nothing was to be done");
                }
                // The server may have been in the middle of a drain.
                held == wanted
            });
        }
    });
}
