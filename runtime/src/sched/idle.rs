//! Which servers sleep, and who wakes them.
//!
//! Whoever queues a task must know whether a server has to be woken for it, and must not pay for
//! that when none has to be. The protocol has three parts, *idle*, *push* and *answer*. This
//! directory's README, section 3, describes them and argues that no wake-up is lost; the names
//! there are the names here. `models/idle.rs` checks them.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::sync::{
    AtomicU32,
    Ordering::{self, Relaxed, SeqCst},
    fence,
};

/// Bit of [`IdleServers::word`]: a server has been claimed and has not answered yet.
///
/// It is bit 0, below the count. The count is one too low for a moment when a server is claimed
/// between its first two steps of [`IdleServers::enter_idle`]. If it wraps around then, this bit is
/// not touched.
const WAKING: u32 = 1;

/// One idle server in [`IdleServers::word`].
const ONE_IDLE: u32 = 2;

/// What a server does, as the threads that queue tasks see it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct IdleState(u32);

impl IdleState {
    /// The server runs its loop, or sleeps in `wait` behind one of its workers. It looks at all
    /// queues before it idles, so nobody has to tell it of a task.
    const AWAKE: Self = Self(0);
    /// The server sleeps, or is about to look at the queues for the last time and then sleep. The
    /// server enters this state and leaves it to AWAKE; a thread that claims the server moves it to
    /// CLAIMED.
    const IDLE: Self = Self(1);
    /// A thread has claimed the server and wakes it. Only the server leaves this state.
    const CLAIMED: Self = Self(2);
    /// The server sleeps although tasks are queued: it has no worker for them, and one is on its
    /// way. To wake it for another task would be of no use. Only the server enters and leaves this
    /// state.
    const STARVED: Self = Self(3);
}

/// An [`IdleState`] that several threads share. The callers argue their orderings.
struct AtomicIdleState(AtomicU32);

impl AtomicIdleState {
    fn new(state: IdleState) -> Self {
        Self(AtomicU32::new(state.0))
    }

    fn load(&self, ordering: Ordering) -> IdleState {
        IdleState(self.0.load(ordering))
    }

    fn store(&self, state: IdleState, ordering: Ordering) {
        self.0.store(state.0, ordering);
    }

    /// Moves from `from` to `to` in one step. Otherwise returns the state that was found.
    fn exchange(
        &self,
        from: IdleState,
        to: IdleState,
        success: Ordering,
        failure: Ordering,
    ) -> Result<(), IdleState> {
        self.0
            .compare_exchange(from.0, to.0, success, failure)
            .map(drop)
            .map_err(IdleState)
    }
}

/// A server holds this after it was claimed: the duty to answer, which clears [`WAKING`]. Until
/// then nobody wakes another server.
#[must_use = "no idle server is woken until the answer is given"]
#[derive(Debug)]
pub(super) struct OwedAnswer(());

/// Which servers of a runtime sleep.
pub(super) struct IdleServers {
    /// [`WAKING`], and how many servers are idle in units of [`ONE_IDLE`]. The count may lag behind
    /// the states: it is raised after a state becomes IDLE, and lowered after it is left.
    word: CachePadded<AtomicU32>,
    /// One for each server, by index.
    states: Box<[CachePadded<AtomicIdleState>]>,
}

impl IdleServers {
    /// All servers are awake.
    pub(super) fn new(servers: usize) -> Self {
        Self {
            word: CachePadded::new(AtomicU32::new(0)),
            states: (0..servers)
                .map(|_| CachePadded::new(AtomicIdleState::new(IdleState::AWAKE)))
                .collect(),
        }
    }

    /// The server found nothing to do and is about to sleep. It must look at all queues once more
    /// after this, and sleep only if they are empty. Then, or when it wakes, it calls
    /// [`wake_up`](Self::wake_up).
    pub(super) fn enter_idle(&self, server: usize, owed: Option<OwedAnswer>) {
        // The state comes before the count, so that a thread that sees the count finds the state.
        self.states[server].store(IdleState::IDLE, SeqCst);
        // SeqCst: this is the server's half of "store, then look"; the fence below comes between.
        // It pairs with the fence that a pusher passes between its push and `claim`.
        self.word.fetch_add(ONE_IDLE, SeqCst);
        self.answer(owed);
        fence(SeqCst);
    }

    /// The server is about to sleep although tasks are queued, because it has no worker for them.
    /// It must look once more after this whether another server has one. When it wakes it calls
    /// [`wake_up`](Self::wake_up).
    pub(super) fn enter_starved(&self, server: usize, owed: Option<OwedAnswer>) {
        self.states[server].store(IdleState::STARVED, SeqCst);
        self.answer(owed);
        // The state comes before the server's request for a worker; pairs with the fence in
        // `WorkerRequest::take`.
        fence(SeqCst);
    }

    /// The server is awake again. `Some`: somebody has claimed it, and it owes the answer.
    pub(super) fn wake_up(&self, server: usize) -> Option<OwedAnswer> {
        let state = &self.states[server];
        match state.exchange(IdleState::IDLE, IdleState::AWAKE, SeqCst, SeqCst) {
            Ok(()) => {
                self.word.fetch_sub(ONE_IDLE, SeqCst);
                None
            }
            Err(found) => {
                // Only the server leaves CLAIMED, STARVED and AWAKE, so a store is enough.
                state.store(IdleState::AWAKE, SeqCst);
                (found == IdleState::CLAIMED).then_some(OwedAnswer(()))
            }
        }
    }

    /// The answer of a server that was claimed: from here on another server may be woken. The
    /// caller looks at the queues afterwards, and wakes another server if there is more to do.
    pub(super) fn answer(&self, owed: Option<OwedAnswer>) {
        if owed.is_some() {
            // SeqCst: pairs with the `fetch_or` in `claim` of a pusher that relied on this bit. The
            // look that follows sees the task of that pusher.
            self.word.fetch_and(!WAKING, SeqCst);
            fence(SeqCst);
        }
    }

    /// Claims an idle server, which the caller then has to wake. `None`: no server idles, or one is
    /// being woken already and will see what the caller has pushed.
    ///
    /// The caller has pushed something and then passed a SeqCst fence, so that its push comes
    /// before the load of the word here. `pending` says whether something is still queued.
    pub(super) fn claim(&self, pending: impl Fn() -> bool) -> Option<usize> {
        // Relaxed: the caller's fence comes before this load. Each store that clears WAKING is
        // followed by a fence, and then by a look that finds what the caller has pushed.
        let word = self.word.load(Relaxed);
        if word < ONE_IDLE || word & WAKING != 0 {
            return None;
        }
        loop {
            // SeqCst: pairs with the `fetch_and` in `answer`.
            if self.word.fetch_or(WAKING, SeqCst) & WAKING != 0 {
                return None;
            }
            if let Some(server) = self.states.iter().position(|state| {
                state.load(Relaxed) == IdleState::IDLE
                    && state
                        .exchange(IdleState::IDLE, IdleState::CLAIMED, SeqCst, Relaxed)
                        .is_ok()
            }) {
                self.word.fetch_sub(ONE_IDLE, SeqCst);
                return Some(server);
            }
            // All of them woke up by themselves. Another pusher may have relied on the bit
            // meanwhile, and a server whose state had been read already may have gone to sleep. So
            // the bit is cleared and everything is looked at once more.
            self.word.fetch_and(!WAKING, SeqCst);
            fence(SeqCst);
            if !(self.any_idle() && pending()) {
                return None;
            }
        }
    }

    /// Whether a server idles, so that it would be woken for a task.
    pub(super) fn any_idle(&self) -> bool {
        self.states
            .iter()
            .any(|state| state.load(SeqCst) == IdleState::IDLE)
    }

    /// Whether a server sleeps without a worker in its slot, and nobody is waking it.
    pub(super) fn any_asleep(&self) -> bool {
        (0..self.states.len()).any(|server| self.is_asleep(server))
    }

    /// Whether the server neither sleeps without a worker in its slot nor is being woken: one of
    /// its workers will look at its LIFO slot.
    pub(super) fn is_awake(&self, server: usize) -> bool {
        self.states[server].load(SeqCst) == IdleState::AWAKE
    }

    /// Whether the server sleeps, idle or starved, and nobody is waking it.
    pub(super) fn is_asleep(&self, server: usize) -> bool {
        matches!(
            self.states[server].load(SeqCst),
            IdleState::IDLE | IdleState::STARVED
        )
    }

    /// Whether the server is starved: it waits for a worker to be made.
    pub(super) fn is_starved(&self, server: usize) -> bool {
        self.states[server].load(SeqCst) == IdleState::STARVED
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

#[cfg(test)]
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
    fn one_that_wakes_up_by_itself_owes_no_answer() {
        let idle_servers = IdleServers::new(2);
        idle_servers.enter_idle(0, None);
        assert!(idle_servers.wake_up(0).is_none());
        assert_eq!(idle_servers.claim(|| true), None);
        idle_servers.enter_idle(1, None);
        assert_eq!(idle_servers.claim(|| true), Some(1));
    }
}
