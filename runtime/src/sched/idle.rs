//! Which servers sleep, and who wakes them. The argument that no wake-up is lost is in this
//! directory's README, section 3; the names there are the names here.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::sync::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};

/// In [`IdleServers::word`]: a server has been claimed and has not yet said what it found.
///
/// Bit 0, so that a count that is one too low for a moment (a server is claimed between its two
/// steps of [`IdleServers::enter_idle`]) wraps around without touching it.
const WAKING: u32 = 1;

/// In [`IdleServers::word`]: one idle server.
const ONE_IDLE: u32 = 2;

/// What a server does, in its state.
mod idle_state {
    /// It runs its loop, or sleeps in `wait` behind one of its workers. It looks at all the
    /// queues before it idles, so nobody has to tell it of anything.
    pub(super) const AWAKE: u32 = 0;
    /// It sleeps, or is about to look at the queues for the last time and then sleep. Entered
    /// and left by the server; left to CLAIMED by whoever wants it awake.
    pub(super) const IDLE: u32 = 1;
    /// Somebody claimed it and wakes it. Left by the server alone.
    pub(super) const CLAIMED: u32 = 2;
    /// It sleeps although tasks are queued: no worker can run them, and one that can is on its
    /// way. Waking it for another task would be of no use. Entered and left by the server.
    pub(super) const STARVED: u32 = 3;
}

/// The right to clear [`WAKING`], and the duty to: whoever holds it was woken for a task, and
/// nobody else is woken until it said what it found.
#[must_use = "no idle server is woken until it is given back"]
#[derive(Debug)]
pub(super) struct OwedAnswer(());

/// The sleeping servers of a runtime.
pub(super) struct IdleServers {
    /// [`WAKING`] and the number of idle servers. The number may lag behind the states: it is
    /// raised after a state becomes IDLE and lowered after it is left.
    word: CachePadded<AtomicU32>,
    /// One a server; see [`idle_state`].
    states: Box<[CachePadded<AtomicU32>]>,
}

impl IdleServers {
    /// With all servers awake.
    pub(super) fn new(servers: usize) -> Self {
        Self {
            word: CachePadded::new(AtomicU32::new(0)),
            states: (0..servers)
                .map(|_| CachePadded::new(AtomicU32::new(idle_state::AWAKE)))
                .collect(),
        }
    }

    /// The server is about to sleep and found nothing to do. It must look at all the queues
    /// once more after this, and [`wake_up`](Self::wake_up) if there is something.
    pub(super) fn enter_idle(&self, server: usize, owed: Option<OwedAnswer>) {
        // The state first, so that whoever sees the count finds a state.
        self.states[server].store(idle_state::IDLE, SeqCst);
        // SeqCst: one half of "announce, then look"; pairs with the fence in `claim`, after the
        // push.
        self.word.fetch_add(ONE_IDLE, SeqCst);
        self.answer(owed);
        fence(SeqCst);
    }

    /// The server is about to sleep with tasks queued and no worker to run them. It must look
    /// once more after this whether there is one.
    pub(super) fn enter_starved(&self, server: usize, owed: Option<OwedAnswer>) {
        self.states[server].store(idle_state::STARVED, SeqCst);
        self.answer(owed);
        fence(SeqCst);
    }

    /// The server is awake again. `Some`: somebody claimed it, and it owes the answer.
    pub(super) fn wake_up(&self, server: usize) -> Option<OwedAnswer> {
        let state = &self.states[server];
        match state.compare_exchange(idle_state::IDLE, idle_state::AWAKE, SeqCst, SeqCst) {
            Ok(_) => {
                self.word.fetch_sub(ONE_IDLE, SeqCst);
                None
            }
            Err(found) => {
                // Only the server leaves these.
                state.store(idle_state::AWAKE, SeqCst);
                (found == idle_state::CLAIMED).then_some(OwedAnswer(()))
            }
        }
    }

    /// The answer of a server that was claimed: from here on another may be woken. The caller
    /// looks at the queues afterwards, and passes the wake on if there is more.
    pub(super) fn answer(&self, owed: Option<OwedAnswer>) {
        if owed.is_some() {
            // SeqCst: pairs with the load in `claim` of a pusher that trusted this bit: its
            // task is seen by the look that follows.
            self.word.fetch_and(!WAKING, SeqCst);
            fence(SeqCst);
        }
    }

    /// After a push and a SeqCst fence (the other half of "announce, then look": the caller's
    /// push comes before the load of the word): an idle server that the caller now has to wake.
    /// `None`: nobody idles, or one is being woken already and will see the push. `pending` says
    /// whether something is still queued.
    pub(super) fn claim(&self, pending: impl Fn() -> bool) -> Option<usize> {
        // Relaxed: the caller's fence comes before this load, and a fence comes after each store
        // that clears WAKING, before the look that finds what the caller pushed.
        let word = self.word.load(Relaxed);
        if word < ONE_IDLE || word & WAKING != 0 {
            return None;
        }
        loop {
            if self.word.fetch_or(WAKING, SeqCst) & WAKING != 0 {
                return None;
            }
            if let Some(server) = self.states.iter().position(|state| {
                state.load(Relaxed) == idle_state::IDLE
                    && state
                        .compare_exchange(idle_state::IDLE, idle_state::CLAIMED, SeqCst, Relaxed)
                        .is_ok()
            }) {
                self.word.fetch_sub(ONE_IDLE, SeqCst);
                return Some(server);
            }
            // All of them rose by themselves. Who pushed meanwhile trusted the bit, and a
            // server may have gone to sleep behind our back: look again after clearing it.
            self.word.fetch_and(!WAKING, SeqCst);
            fence(SeqCst);
            if !(self.any_idle() && pending()) {
                return None;
            }
        }
    }

    /// Whether a server sleeps that a task would wake.
    pub(super) fn any_idle(&self) -> bool {
        self.states
            .iter()
            .any(|state| state.load(SeqCst) == idle_state::IDLE)
    }

    /// Whether the server neither sleeps nor starves: somebody will look at its LIFO slot.
    pub(super) fn is_awake(&self, server: usize) -> bool {
        self.states[server].load(SeqCst) == idle_state::AWAKE
    }

    /// Whether the server sleeps, idle or starved, and nobody is waking it.
    pub(super) fn is_asleep(&self, server: usize) -> bool {
        matches!(
            self.states[server].load(SeqCst),
            idle_state::IDLE | idle_state::STARVED
        )
    }

    /// Whether the server waits for a worker to be made.
    pub(super) fn is_starved(&self, server: usize) -> bool {
        self.states[server].load(SeqCst) == idle_state::STARVED
    }
}

impl fmt::Debug for IdleServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Relaxed);
        f.debug_struct("IdleServers")
            .field("idle", &(word / ONE_IDLE))
            .field("waking", &(word & WAKING != 0))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_claimed_while_all_are_awake() {
        let idle_servers = IdleServers::new(2);
        assert_eq!(idle_servers.claim(|| true), None);
        idle_servers.enter_starved(0, None);
        assert_eq!(idle_servers.claim(|| true), None);
        assert!(idle_servers.is_starved(0) && !idle_servers.is_awake(0));
        assert!(idle_servers.wake_up(0).is_none());
        assert!(idle_servers.is_awake(0));
    }

    #[test]
    fn one_at_a_time_until_the_woken_one_answers() {
        let idle_servers = IdleServers::new(3);
        for server in 0..3 {
            idle_servers.enter_idle(server, None);
        }
        assert_eq!(idle_servers.claim(|| true), Some(0));
        assert_eq!(idle_servers.claim(|| true), None);
        let owed = idle_servers.wake_up(0);
        assert!(owed.is_some());
        assert_eq!(idle_servers.claim(|| true), None);
        idle_servers.answer(owed);
        assert_eq!(idle_servers.claim(|| true), Some(1));
    }

    #[test]
    fn a_claimed_server_that_finds_nothing_answers_by_idling() {
        let idle_servers = IdleServers::new(1);
        idle_servers.enter_idle(0, None);
        assert_eq!(idle_servers.claim(|| true), Some(0));
        let owed = idle_servers.wake_up(0);
        idle_servers.enter_idle(0, owed);
        assert_eq!(idle_servers.claim(|| true), Some(0));
    }

    #[test]
    fn one_that_rises_by_itself_owes_nothing() {
        let idle_servers = IdleServers::new(2);
        idle_servers.enter_idle(0, None);
        assert!(idle_servers.wake_up(0).is_none());
        assert_eq!(idle_servers.claim(|| true), None);
        idle_servers.enter_idle(1, None);
        assert_eq!(idle_servers.claim(|| true), Some(1));
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::{sync::Arc, sync::atomic::AtomicUsize, thread};

    use super::*;

    /// The queues (a counter of tasks), and a flag a server that stands for its `wait`: set by
    /// whoever wakes it.
    struct Model {
        idle_servers: IdleServers,
        queued: AtomicUsize,
        woken: Vec<AtomicU32>,
    }

    impl Model {
        fn new(servers: usize) -> Arc<Self> {
            Arc::new(Self {
                idle_servers: IdleServers::new(servers),
                queued: AtomicUsize::new(0),
                woken: (0..servers).map(|_| AtomicU32::new(0)).collect(),
            })
        }

        fn pending(&self) -> bool {
            self.queued.load(SeqCst) > 0
        }

        fn push(&self) {
            // Release is what the queue gives; the fence in `notify` does the rest.
            self.queued.fetch_add(1, crate::sync::Ordering::Release);
            self.notify();
        }

        fn notify(&self) {
            fence(SeqCst);
            if let Some(server) = self.idle_servers.claim(|| self.pending()) {
                self.woken[server].store(1, SeqCst);
            }
        }

        fn pop(&self) -> bool {
            self.queued
                .fetch_update(SeqCst, SeqCst, |queued| queued.checked_sub(1))
                .is_ok()
        }

        /// One pass of the server: take a task if there is one, else sleep. True: it sleeps.
        fn serve(&self, server: usize) -> bool {
            let mut owed = None;
            loop {
                if self.pop() {
                    self.idle_servers.answer(owed.take());
                    if self.pending() {
                        self.notify();
                    }
                    continue;
                }
                self.idle_servers.enter_idle(server, owed.take());
                if !self.pending() && self.woken[server].load(SeqCst) == 0 {
                    return true;
                }
                self.woken[server].store(0, SeqCst);
                owed = self.idle_servers.wake_up(server);
            }
        }

        /// What must hold when all threads are done: a task that is left has somebody who
        /// was woken for it.
        fn check(&self) {
            if self.pending() {
                assert!(
                    self.woken.iter().any(|woken| woken.load(SeqCst) == 1),
                    "a task is queued, every server sleeps, and none was woken"
                );
            }
        }
    }

    fn run(servers: usize, pushers: usize) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(3);
        builder.check(move || {
            let model = Model::new(servers);
            let threads: Vec<_> = (0..servers)
                .map(|server| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || {
                        model.serve(server);
                    })
                })
                .chain((1..pushers).map(|_| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || model.push())
                }))
                .collect();
            model.push();
            for thread in threads {
                thread.join().unwrap();
            }
            model.check();
        });
    }

    #[test]
    fn no_wake_up_is_lost_one_server_two_pushers() {
        run(1, 2);
    }

    #[test]
    fn no_wake_up_is_lost_two_servers_one_pusher() {
        run(2, 1);
    }
}
