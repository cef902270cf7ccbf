//! Checklist 42 to 54: the server loop, and the rules of the lists.

use std::{
    collections::{HashMap, VecDeque},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use umcg_sys::{List, state};
use umcg_tests::{Harness, Me, Server, Turn, Worker, blockers::Futex, for_each_provider, in_ms};

/// Starts `count` workers that run `body`.
fn crew(
    harness: &Arc<Harness>,
    server: &Server,
    count: usize,
    body: impl Fn(&Me, usize) + Clone + Send + 'static,
) -> Vec<Worker> {
    (0..count)
        .map(|index| {
            let body = body.clone();
            harness.worker(&format!("worker {index}"), server.tid(), move |me| {
                body(me, index);
            })
        })
        .collect()
}

/// Yields and sleeps, in an order that differs from worker to worker.
fn mixed(rounds: u64) -> impl Fn(&Me, usize) + Clone + Send + 'static {
    move |me, index| {
        for round in 0..rounds {
            match (round + index as u64) % 3 {
                0 => me.yield_now(),
                1 => me.sleep(Duration::from_micros(100 * (index as u64 + 1))),
                _ => {
                    me.yield_now();
                    me.sleep(Duration::from_micros(50));
                }
            }
        }
        me.step(1);
    }
}

fn finish(mut server: Server, workers: &[Worker]) {
    server.run_to_exit(&workers.iter().collect::<Vec<_>>());
    server.finish();
}

/// Checklist 42. The harness asserts after every wait that the caller is RUNNING (checklist
/// 28).
#[test]
fn the_loop_of_the_mail_runs_everything() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let workers = crew(harness, &server, 6, mixed(30));
        server.run_until("all work done", |_| workers.iter().all(|w| w.reached(1)));
        finish(server, &workers);
    });
}

/// Checklist 43, trace A2. A scheduler that believes every event, in the order of processing,
/// ends up with the right queue: it has each runnable worker once.
#[test]
fn blocked_events_are_processed_before_runnable_ones() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let (go, data) = (Arc::new(AtomicBool::new(false)), Futex::default());
        let worker = harness.worker("worker", server.tid(), {
            let (go, data) = (Arc::clone(&go), data.clone());
            move |me| {
                me.spin_until(|| go.load(SeqCst));
                me.blocking(|| data.wait());
            }
        });
        server.hold(&worker);
        go.store(true, SeqCst);
        server.until_slot_is_free();
        data.set();
        harness.until("the unblock", || worker.task().is_linked(List::Runnable));
        server.task().begin_drain();
        // As far as this scheduler knows, the worker was in the queue before it blocked.
        let own = NonNull::from(worker.task());
        let mut queue = vec![own];
        let runnable = server.task().take(List::Runnable);
        let blocked = server.task().take(List::Blocked);
        let mut dequeued = 0;
        for task in blocked {
            let before = queue.len();
            queue.retain(|&other| other != task); // dequeue
            dequeued += before - queue.len();
        }
        assert_eq!(
            dequeued, 1,
            "the block was not reported by the time of its end"
        );
        for task in runnable {
            queue.push(task); // enqueue
        }
        assert_eq!(queue, [own], "the worker must be in the queue once");
        server.ready.push_back(worker.tid());
        finish(server, &[worker]);
    });
}

/// Checklist 44: between two drains there is at most one event of each kind.
#[test]
fn a_worker_is_on_a_list_at_most_once() {
    for_each_provider(|harness| {
        let server = Server::start(harness);
        let workers = crew(harness, &server, 4, |me, _| {
            for _ in 0..40 {
                // Where the stop is not exact these are two blocks with no stop in between: the
                // second one is not reported, and nothing is pushed twice.
                std::thread::sleep(Duration::from_micros(300));
                std::thread::sleep(Duration::from_micros(300));
                me.checkpoint();
            }
        });
        finish_checked(server, &workers);
    });

    fn finish_checked(mut server: Server, workers: &[Worker]) {
        server.run_to_exit(&workers.iter().collect::<Vec<_>>());
        for drained in &server.log {
            for list in [&drained.blocked, &drained.runnable] {
                for worker in workers {
                    let count = list.iter().filter(|&&tid| tid == worker.tid()).count();
                    assert!(count <= 1, "{} events of one worker", count);
                }
            }
        }
        server.finish();
    }
}

/// Checklist 45.
#[test]
fn a_drain_is_one_swap() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        const COUNT: usize = 8;
        let workers = crew(harness, &server, COUNT, |_, _| {});
        harness.until("all admissions are on the list", || {
            workers.iter().all(|w| w.task().is_linked(List::Runnable))
                && workers.iter().all(|w| w.state() == state::RUNNABLE)
        });
        // Eight events are taken without a call of the provider, and the list is empty.
        let events = server.task().take(List::Runnable);
        assert!(!server.task().has_events(List::Runnable));
        assert_eq!(server.task().take(List::Runnable).count(), 0);
        assert_eq!(events.count(), COUNT);
        for worker in &workers {
            assert!(!worker.task().is_linked(List::Runnable));
            server.ready.push_back(worker.tid());
        }
        finish(server, &workers);
    });
}

/// Checklist 46.
#[test]
fn concurrent_pushes_lose_nothing() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let gate = Futex::default();
        let workers = crew(harness, &server, 24, {
            let gate = gate.clone();
            move |me, _| {
                me.blocking(|| gate.wait());
                me.step(1);
            }
        });
        server.run_until("all block", |_| {
            workers
                .iter()
                .all(|w| w.state() == state::BLOCKED && w.asleep())
        });
        // All of them unblock at once.
        gate.set();
        finish(server, &workers);
        assert!(workers.iter().all(|w| w.reached(1)));
    });
}

/// Checklist 47: blocked means dequeue, runnable means enqueue.
#[test]
fn a_runnable_event_is_a_token() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let workers = crew(harness, &server, 4, mixed(20));
        server.run_to_exit(&workers.iter().collect::<Vec<_>>());
        // A worker gets one token for its admission, and at most one more for each time that it was
        // reported as blocked. Two blocked events with no token between them would mean that it
        // blocked without having been picked. A preemption is a token as well, and where it is not
        // carried out as a verdict it is no block.
        let preempted = harness.provider().counters(server.tid());
        let preempted = preempted.expect("a server's counters").preempted as i64;
        let mut tokens: HashMap<u32, i64> = HashMap::new();
        for drained in &server.log {
            for &tid in &drained.blocked {
                tokens.entry(tid).or_default();
            }
            for &tid in &drained.runnable {
                *tokens.entry(tid).or_default() += 1;
            }
        }
        for worker in &workers {
            let blocked: i64 = server
                .log
                .iter()
                .map(|drained| {
                    let of_worker = drained.blocked.iter().filter(|&&tid| tid == worker.tid());
                    of_worker.count() as i64
                })
                .sum();
            let tokens = tokens[&worker.tid()];
            assert!(tokens >= 1, "admitted");
            assert!(
                tokens <= blocked + 1 + preempted,
                "{tokens} tokens after {blocked} blocks: blocked events may be merged, but \
                 only pending ones, and this server drains both lists each time"
            );
        }
        server.finish();
    });
}

/// Checklist 49, trap 12.
#[test]
fn an_event_after_the_drain_ends_the_wait_without_a_switch() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let picked = harness.worker("picked", server.tid(), |_| {});
        server.collect(&picked);
        let tid = server.remove(&picked);
        server.drain();
        // An event comes after the drain and before the wait.
        let late = harness.worker("late", server.tid(), |_| {});
        harness.until("the event", || server.task().state() == state::RUNNING);
        server.wait(tid, 0).expect("returns at once");
        assert_eq!(server.task().next_tid(), tid, "no switch");
        // And the pick is not lost (checklist 50).
        assert_eq!(picked.state(), state::RUNNABLE, "untouched");
        assert!(!picked.exited());
        server.ready.push_back(tid);
        finish(server, &[picked, late]);
    });
}

/// Checklist 50, trap 15. Another thread wakes the server all the time, so that many waits end
/// without a switch.
#[test]
fn the_pick_of_a_wait_without_a_switch_is_not_lost() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let workers = crew(harness, &server, 3, |me, _| {
            for _ in 0..30 {
                me.yield_now();
            }
        });
        let (stop, tid) = (Arc::new(AtomicBool::new(false)), server.tid());
        harness.thread("outside", {
            let (stop, provider) = (Arc::clone(&stop), Arc::clone(harness.provider()));
            move || {
                while !stop.load(SeqCst) {
                    provider.wake(tid).expect("the server is there");
                    std::thread::sleep(Duration::from_micros(20));
                }
            }
        });
        let mut unswitched = 0;
        server.run_until("the workers' exit", |server| {
            let drained = server.drain();
            // A wake-up comes at exactly this moment.
            let _ = server.provider().wake(server.tid());
            if server.turn_from(&drained, in_ms(10)) == Turn::NotSwitched {
                unswitched += 1;
            }
            workers.iter().all(Worker::exited)
        });
        stop.store(true, SeqCst);
        assert!(unswitched > 0);
        harness.join_all();
        server.finish();
    });
}

/// Checklist 51.
#[test]
fn user_space_decides_who_runs() {
    for_each_provider(|harness| {
        harness.attempt("last made, first served", || {
            let mut server = Server::start(harness);
            let order = Arc::new(AtomicU32::new(0));
            let places: Arc<[AtomicU32; 5]> = Arc::default();
            let workers = crew(harness, &server, 5, {
                let (order, places) = (Arc::clone(&order), Arc::clone(&places));
                move |_, index| places[index].store(order.fetch_add(1, SeqCst), SeqCst)
            });
            for worker in &workers {
                server.collect(worker);
            }
            let before = harness.disturbances(server.tid());
            // The policy picks the worker that was made last, wherever it is in the queue.
            let tids: Vec<_> = workers.iter().map(Worker::tid).collect();
            server.set_policy(move |ready| {
                let age = |tid: &u32| tids.iter().position(|other| other == tid);
                let newest = (0..ready.len()).max_by_key(|&place| age(&ready[place]))?;
                ready.remove(newest)
            });
            server.run_to_exit(&workers.iter().collect::<Vec<_>>());
            let quiet = harness.disturbances(server.tid()) == before;
            let places: Vec<u32> = places.iter().map(|place| place.load(SeqCst)).collect();
            assert!(
                !quiet || places == [4, 3, 2, 1, 0],
                "the policy's order, not {places:?}"
            );
            server.finish();
            quiet
        });

        // A policy may also pick nobody although a worker is ready.
        let mut server = Server::start(harness);
        let worker = harness.worker("worker", server.tid(), |_| {});
        server.collect(&worker);
        server.set_policy(|_| None);
        for _ in 0..3 {
            let turn = server.turn(in_ms(2));
            assert!(
                matches!(turn, Turn::TimedOut | Turn::NotSwitched),
                "{turn:?}"
            );
        }
        assert!(worker.admission().is_none(), "not run");
        server.set_policy(VecDeque::pop_front);
        finish(server, &[worker]);
    });
}

/// Checklist 52, trap 50.
#[test]
fn draining_never_idles() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        for _ in 0..1000 {
            // Nothing is there and nothing is to be done: the drain still returns.
            let drained = server.drain();
            assert!(drained.runnable.is_empty() && drained.blocked.is_empty());
        }
        let worker = harness.worker("worker", server.tid(), |_| {});
        finish(server, &[worker]);
    });
}

/// Checklist 53. There is no deadline anywhere: one lost event and this hangs.
#[test]
fn the_server_sees_the_push_or_is_woken() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        let workers = crew(harness, &server, 3, |me, index| {
            for round in 0..150_u64 {
                let time = 20 + (round * 7 + index as u64 * 13) % 90;
                me.sleep(Duration::from_micros(time));
            }
        });
        server.run_without_deadline(&workers.iter().collect::<Vec<_>>());
        server.finish();
    });
}

/// Checklist 54, trap 35.
#[test]
fn transitions_keep_the_user_bits() {
    for_each_provider(|harness| {
        let mut server = Server::start(harness);
        server.task().set_user_bits(0x1234);
        let worker = harness.worker("worker", server.tid(), |me| {
            for bits in [0, 1, 0x8000, 0xffff, 0xabcd] {
                me.task().set_user_bits(bits);
                for _ in 0..3 {
                    me.yield_now();
                    assert_eq!(me.task().user_bits(), bits, "across a yield");
                    me.sleep(Duration::from_micros(300));
                    assert_eq!(me.task().user_bits(), bits, "across a block");
                }
                let word = me.task().state_word().load(SeqCst);
                assert_eq!(word & state::FLAG_MASK, 0, "a running worker has no flag");
            }
        });
        server.run_until("the worker's exit", |server| {
            assert_eq!(server.task().user_bits(), 0x1234);
            worker.exited()
        });
        assert_eq!(
            worker.task().user_bits(),
            0xabcd,
            "even unregister keeps them"
        );
        server.finish();
    });
}
