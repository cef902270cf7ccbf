//! Threads that send messages, and threads that are spawned and joined (targets P6 and P7).

use std::{
    sync::{
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Instant,
};

use crate::{
    clock::Clock,
    cpu::{become_policy, pin},
    report::Row,
    runner::{Effort, Group},
    system::{BareUmcg, System, Systems, Umcg},
};

/// The name of the cells whose runtime does not manage calls.
const BARE_NAME: &str = "umcg::thread, no managed calls";

pub(super) fn run(_: &Systems, effort: &Effort) -> Vec<Row> {
    groups()
        .into_iter()
        .flat_map(|group| group.run(effort))
        .collect()
}

/// The groups of P6 and P7, which P9 runs too.
pub(super) fn groups() -> Vec<Group<'static>> {
    let one: &'static Umcg = Box::leak(Box::new(Umcg::build(
        1,
        umcg::Builder::new().thread_name("one-umcg"),
    )));
    let bare: &'static BareUmcg = Box::leak(Box::new(Umcg::bare(1)));
    let mut groups = vec![
        ping_pong(one, bare),
        spawn_join(one, bare),
        spawn(one, bare),
        futex_switch(one.cpu()),
    ];
    for group in &mut groups {
        group.busy_on(one.cpu());
    }
    groups
}

/// P6: a message over std mpsc, one way.
fn ping_pong(one: &'static Umcg, bare: &'static BareUmcg) -> Group<'static> {
    const PINGS: u32 = 5_000;
    fn play(spawn: impl Fn(Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>) {
        let (ping, pinged) = mpsc::channel();
        let (pong, ponged) = mpsc::channel();
        let a = spawn(Box::new(move || {
            for i in 0..PINGS {
                ping.send(i).expect("a partner");
                assert_eq!(ponged.recv(), Ok(i));
            }
        }));
        let b = spawn(Box::new(move || {
            while let Ok(i) = pinged.recv() {
                let _ = pong.send(i);
            }
        }));
        a();
        b();
    }
    let mut group = Group::new(
        "thread_ping_pong",
        "std mpsc between two threads, one way",
        "message",
        u64::from(2 * PINGS),
    );
    fn play_on(one: &Umcg, clock: &mut Clock) {
        clock.time(|| {
            let _entered = one.runtime().enter();
            play(|body| {
                let thread = umcg::thread::spawn(body);
                Box::new(move || thread.join().expect("the thread"))
            });
        });
    }
    group.cell("umcg::thread, one server", "one-umcg", move |clock| {
        play_on(one, clock);
    });
    group.cell(BARE_NAME, BareUmcg::THREADS, move |clock| {
        play_on(bare, clock)
    });
    group.cell("std threads", "thread-", |clock| {
        clock.time(|| {
            play(|body| {
                let thread = std::thread::spawn(body);
                Box::new(move || thread.join().expect("the thread"))
            });
        });
    });
    group
}

/// P7: spawns a thread and joins it, again and again.
fn spawn_join(one: &'static Umcg, bare: &'static BareUmcg) -> Group<'static> {
    let mut group = Group::new(
        "thread_spawn_join",
        "spawn a thread and join it, from a task",
        "thread",
        1,
    );
    fn spawn_and_join(one: &'static Umcg, clock: &mut Clock) {
        clock.ops(5_000);
        clock.time(|| {
            in_task(one, || {
                for i in 0..5_000 {
                    assert_eq!(umcg::thread::spawn(move || i).join().expect("it ends"), i);
                }
            });
        });
    }
    group.cell("umcg::thread", "one-umcg", move |clock| {
        spawn_and_join(one, clock);
    });
    group.cell(BARE_NAME, BareUmcg::THREADS, move |clock| {
        spawn_and_join(bare, clock);
    });
    group.cell("std::thread", "thread-", |clock: &mut Clock| {
        clock.ops(500);
        clock.time(|| {
            for i in 0..500 {
                assert_eq!(std::thread::spawn(move || i).join().expect("it ends"), i);
            }
        });
    });
    group
}

/// P7: the call of spawn alone, without the thread it makes.
fn spawn(one: &'static Umcg, bare: &'static BareUmcg) -> Group<'static> {
    const SPAWNS: u32 = 1_000;
    let mut group = Group::new(
        "thread_spawn",
        "spawn a thread, the call alone, from a task",
        "thread",
        u64::from(SPAWNS),
    );
    fn spawn_all(one: &'static Umcg, clock: &mut Clock) {
        let took = clock.time(|| {
            in_task(one, || {
                let begin = Instant::now();
                let threads: Vec<_> = (0..SPAWNS)
                    .map(|i| umcg::thread::spawn(move || i))
                    .collect();
                let took = begin.elapsed();
                for thread in threads {
                    thread.join().expect("it ends");
                }
                took
            })
        });
        clock.wall_is(took);
    }
    group.cell("umcg::thread", "one-umcg", move |clock| {
        spawn_all(one, clock)
    });
    group.cell(BARE_NAME, BareUmcg::THREADS, move |clock| {
        spawn_all(bare, clock);
    });
    group.cell("std::thread", "thread-", |clock| {
        let took = clock.time(|| {
            let begin = Instant::now();
            let threads: Vec<_> = (0..SPAWNS / 10)
                .map(|i| std::thread::spawn(move || i))
                .collect();
            let took = begin.elapsed();
            for thread in threads {
                thread.join().expect("it ends");
            }
            took
        });
        clock.ops(u64::from(SPAWNS / 10));
        clock.wall_is(took);
    });
    group
}

/// The number of switches in a round.
pub(super) const TURNS: u32 = 20_000;

/// The switch that all of these consist of: two threads on one CPU wake each other and sleep. The
/// second cell does the same as workers do it, with the policy SCHED_BATCH and beside a thread of
/// idle priority that wants the CPU, as a sentinel does.
fn futex_switch(cpu: usize) -> Group<'static> {
    let mut group = Group::new(
        "futex_switch",
        "a futex wake and a futex wait between two threads on one CPU",
        "switch",
        u64::from(TURNS),
    );
    group.cell("bare threads", "futex-", move |clock| {
        clock.time(|| switches(TURNS, cpu, libc::SCHED_OTHER));
    });
    group.cell("beside an idle one", "futex-", move |clock| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                pin(&[cpu]);
                become_policy(libc::SCHED_IDLE);
                while !stop.load(SeqCst) {
                    thread::yield_now();
                }
            });
            clock.time(|| switches(TURNS, cpu, libc::SCHED_BATCH));
            stop.store(true, SeqCst);
        });
    });
    group
}

/// Two threads with that policy, on that CPU, switch to each other this many times.
pub(super) fn switches(turns: u32, cpu: usize, policy: libc::c_int) {
    let word = AtomicU32::new(0);
    thread::scope(|scope| {
        for me in 0..2 {
            let word = &word;
            thread::Builder::new()
                .name(format!("futex-{me}"))
                .spawn_scoped(scope, move || {
                    pin(&[cpu]);
                    become_policy(policy);
                    for turn in (me..turns).step_by(2) {
                        while word.load(SeqCst) != turn {
                            futex(word, libc::FUTEX_WAIT, word.load(SeqCst), turn);
                        }
                        word.store(turn + 1, SeqCst);
                        futex(word, libc::FUTEX_WAKE, 1, u32::MAX);
                    }
                })
                .expect("a thread");
        }
    });
}

/// A futex call with this value, unless `value` equals `unless`.
fn futex(word: &AtomicU32, what: libc::c_int, value: u32, unless: u32) {
    if value == unless {
        return;
    }
    // SAFETY: the word is alive and there is no timeout. After any result the caller reads the word
    // again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            what | libc::FUTEX_PRIVATE_FLAG,
            value,
            std::ptr::null::<libc::timespec>(),
        );
    }
}

fn in_task<R: Send + 'static>(one: &'static Umcg, f: impl FnOnce() -> R + Send + 'static) -> R {
    one.block_on(one.spawn_blocking(f))
}
