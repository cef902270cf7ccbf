//! `struct umcg_task`: the 32 bytes that a task shares with the kernel, or with whoever
//! plays it.

#[cfg(all(test, loom))]
#[path = "task_model.rs"]
mod model;

use core::{fmt, marker::PhantomData, ptr::NonNull};

use super::state;
use crate::sync::{Acquire, AtomicU32, AtomicU64, Relaxed, Release, SeqCst};

/// The 32 bytes of the mail, field by field.
///
/// | offset | field | kernel | written by |
/// |---|---|---|---|
/// | 0 | `state` | r/w | everybody, by CAS; see [`state`](crate::state) |
/// | 4 | `server_tid` | r | the owner of a drained RUNNABLE worker; the task itself before it registers |
/// | 8 | `next_tid` | r, cleared when a switch commits | a server for itself; a server for a worker that it is about to dispatch (arming); a worker for its own next explicit `wait` |
/// | 12 | `tid` | r | the task, before it registers |
/// | 16 | `blocked_ptr` | w | head (server): provider pushes, server takes all. Link (worker): provider |
/// | 24 | `runnable_ptr` | w | the same for the other list |
#[repr(C)]
struct Layout {
    state: AtomicU32,
    server_tid: AtomicU32,
    next_tid: AtomicU32,
    tid: AtomicU32,
    blocked_ptr: AtomicU64,
    runnable_ptr: AtomicU64,
}

/// A task's shared state: one for each server and each worker, in user memory.
///
/// 32 bytes as in the mail, aligned to 64 so that it never straddles a page or a cache line.
/// It must not move or be freed while it is registered.
///
/// # Examples
///
/// What a provider, a worker and its server do with the words; with the calls in between see
/// [`Provider`](crate::Provider#examples).
///
/// ```
/// use std::ptr::NonNull;
/// use umcg_sys::{List, UmcgTask, state};
///
/// let (server, worker) = (UmcgTask::for_current_thread(0), UmcgTask::new());
/// // The application's bits stay in every transition.
/// worker.set_user_bits(7);
/// worker.transition(state::NONE, state::RUNNING).expect("a new task");
/// assert!(worker.leave(), "RUNNING to RUNNABLE, before it publishes itself");
/// assert_eq!((worker.state(), worker.user_bits()), (state::RUNNABLE, 7));
///
/// // A provider pushes an event, once for as long as it is pending.
/// // SAFETY: both tasks live to the end.
/// unsafe {
///     assert!(server.push(List::Runnable, &worker));
///     assert!(!server.push(List::Runnable, &worker), "pending");
/// }
/// // The server takes all there are by one swap, and picks one.
/// let events: Vec<_> = server.take(List::Runnable).collect();
/// assert_eq!(events, [NonNull::from(&worker)]);
/// assert!(!server.has_events(List::Runnable));
/// server.set_next_tid(worker.tid());
/// ```
#[repr(C, align(64))]
pub struct UmcgTask {
    raw: Layout,
}

const _: () = {
    use core::mem::offset_of;

    use crate::sync::IS_MODEL;

    assert!(IS_MODEL || size_of::<Layout>() == 32);
    assert!(IS_MODEL || align_of::<UmcgTask>() == 64);
    assert!(IS_MODEL || offset_of!(Layout, state) == 0);
    assert!(IS_MODEL || offset_of!(Layout, server_tid) == 4);
    assert!(IS_MODEL || offset_of!(Layout, next_tid) == 8);
    assert!(IS_MODEL || offset_of!(Layout, tid) == 12);
    assert!(IS_MODEL || offset_of!(Layout, blocked_ptr) == 16);
    assert!(IS_MODEL || offset_of!(Layout, runnable_ptr) == 24);
};

/// Bit 0 of a *link*: this worker is on that list, or about to be.
///
/// Set by CAS by the pusher before anything else: if it was set already the event is pending
/// and there is no second push (trace A3). Cleared by the taker as it unlinks the worker and
/// before it reads the state. Heads never carry it.
const LINKED: u64 = 1;

/// Which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Workers that blocked. An event here is information: late, merged, repeated or after the
    /// fact is legal, and the drainer re-reads the state.
    Blocked,
    /// Workers that became runnable. An event here is a token: exactly one for each time that
    /// the worker is to be picked.
    Runnable,
}

impl UmcgTask {
    /// A task that is not registered: all words zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            raw: Layout {
                state: AtomicU32::new(state::NONE),
                server_tid: AtomicU32::new(0),
                next_tid: AtomicU32::new(0),
                tid: AtomicU32::new(0),
                blocked_ptr: AtomicU64::new(0),
                runnable_ptr: AtomicU64::new(0),
            },
        }
    }

    /// A task for the calling thread: `tid` is its thread id, and `server_tid` the given
    /// server, or for a server itself 0, which stands for its own tid.
    #[must_use]
    pub fn for_current_thread(server_tid: u32) -> Self {
        let task = Self::new();
        task.prepare(server_tid);
        task
    }

    /// Fills `tid` with the calling thread's id and `server_tid` as
    /// [`for_current_thread`](Self::for_current_thread) does. For a task that is not
    /// registered.
    pub fn prepare(&self, server_tid: u32) {
        let tid = super::gettid();
        self.raw.tid.store(tid, Relaxed);
        self.raw
            .server_tid
            .store(if server_tid == 0 { tid } else { server_tid }, Relaxed);
    }

    /// The state, bits 0 to 7 of the word.
    #[must_use]
    pub fn state(&self) -> u32 {
        self.raw.state.load(SeqCst) & state::STATE_MASK
    }

    /// The whole state word.
    #[must_use]
    pub fn state_word(&self) -> &AtomicU32 {
        &self.raw.state
    }

    /// One transition of bits 0 to 15 that keeps the user's bits: a CAS from `from` to `to`,
    /// retried while only bits 16 to 31 changed. On failure the word that was found. An
    /// [example](UmcgTask#examples).
    ///
    /// SeqCst: one half of the store-then-look pairs of the protocol (state, then list).
    pub fn transition(&self, from: u32, to: u32) -> Result<(), u32> {
        let mut word = self.raw.state.load(SeqCst);
        loop {
            if word & !state::USER_MASK != from {
                return Err(word);
            }
            let next = (word & state::USER_MASK) | to;
            match self.raw.state.compare_exchange(word, next, SeqCst, SeqCst) {
                Ok(_) => return Ok(()),
                Err(found) => word = found,
            }
        }
    }

    /// A worker's first step out of RUNNING: RUNNING to RUNNABLE, *before* it publishes itself
    /// in any queue. False: it was judged BLOCKED (a verdict or a preemption); it must call
    /// [`checkpoint`](crate::Provider::checkpoint) and try again (trace A8):
    ///
    /// ```
    /// # fn leave(provider: &dyn umcg_sys::Provider, own: &umcg_sys::UmcgTask) -> Result<(), umcg_sys::Error> {
    /// while !own.leave() {
    ///     provider.checkpoint()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "a worker that was judged must not publish itself"]
    pub fn leave(&self) -> bool {
        self.transition(state::RUNNING, state::RUNNABLE).is_ok()
    }

    /// The same for a worker that [`try_checkpoint`] found without a slot: BLOCKED, or RUNNING if
    /// nobody had said so yet, to RUNNABLE. To be followed by publication and `wait`, which wakes
    /// nobody for a worker that holds no slot.
    ///
    /// [`try_checkpoint`]: crate::Provider::try_checkpoint
    pub fn leave_judged(&self) {
        let mut word = self.raw.state.load(SeqCst);
        // A late booker makes RUNNING BLOCKED, and nothing else moves it: once round at most,
        // but for the application's bits.
        while let Err(found) = self.raw.state.compare_exchange(
            word,
            (word & state::USER_MASK) | state::RUNNABLE,
            SeqCst,
            SeqCst,
        ) {
            word = found;
        }
    }

    /// First step of the server loop: the server says that it is about to sleep, *before* it
    /// drains. Every event after this makes `wait` return at once. The loop is in the
    /// [crate's page](crate).
    pub fn begin_drain(&self) {
        // Already RUNNABLE when the loop comes round again without a wait: fine.
        let _ = self.transition(state::RUNNING, state::RUNNABLE);
    }

    /// Sets bits 16 to 31.
    pub fn set_user_bits(&self, bits: u16) {
        let mut word = self.raw.state.load(Relaxed);
        loop {
            let next = (word & !state::USER_MASK) | (u32::from(bits) << 16);
            match self.raw.state.compare_exchange(word, next, SeqCst, Relaxed) {
                Ok(_) => return,
                Err(found) => word = found,
            }
        }
    }

    /// Bits 16 to 31.
    #[must_use]
    pub fn user_bits(&self) -> u16 {
        (self.raw.state.load(Relaxed) >> 16) as u16
    }

    /// The task's thread id.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.raw.tid.load(Relaxed)
    }

    /// The server whose lists get this worker.
    #[must_use]
    pub fn server_tid(&self) -> u32 {
        self.raw.server_tid.load(Acquire)
    }

    /// Moves a worker to another server. Only the owner of a drained RUNNABLE worker may.
    pub fn set_server_tid(&self, tid: u32) {
        // Release: pairs with the Acquire in `server_tid`, read by the next dispatcher.
        self.raw.server_tid.store(tid, Release);
    }

    /// Whom to switch to; 0 = my server.
    #[must_use]
    pub fn next_tid(&self) -> u32 {
        self.raw.next_tid.load(Acquire)
    }

    /// Chooses whom to switch to. On a server: the pick. On a worker: its own choice for its next
    /// `wait`, set by itself; or set by its server, which is about to dispatch it, whom a block
    /// is to switch to (arming, see [`disarm`](crate::Provider::disarm)).
    pub fn set_next_tid(&self, tid: u32) {
        self.raw.next_tid.store(tid, Release);
    }

    /// Clears `next_tid` if it still is `tid`. The provider, when a switch commits.
    pub fn clear_next_tid(&self, tid: u32) -> bool {
        self.raw
            .next_tid
            .compare_exchange(tid, 0, SeqCst, SeqCst)
            .is_ok()
    }

    fn word(&self, list: List) -> &AtomicU64 {
        match list {
            List::Blocked => &self.raw.blocked_ptr,
            List::Runnable => &self.raw.runnable_ptr,
        }
    }

    /// On a server: whether the list has events. One load; no ordering with the events.
    #[must_use]
    pub fn has_events(&self, list: List) -> bool {
        self.word(list).load(SeqCst) != 0
    }

    /// On a worker: whether it is on that list, or about to be.
    #[must_use]
    pub fn is_linked(&self, list: List) -> bool {
        self.word(list).load(SeqCst) & LINKED != 0
    }

    /// On a server: takes all events of the list, one atomic swap. Newest first, as pushed.
    ///
    /// Take [`List::Runnable`] first, then [`List::Blocked`]; *process* blocked completely,
    /// then runnable (trace A2): as the loop in the [crate's page](crate) does.
    #[must_use = "the events taken must be processed"]
    pub fn take(&self, list: List) -> Events<'_> {
        // SeqCst: the second half of "store RUNNABLE, then take"; pairs with the pusher's
        // "push, then look at the slot and the state".
        Events {
            list,
            next: self.word(list).swap(0, SeqCst),
            server: PhantomData,
        }
    }

    /// Pushes `worker` on a list of `self`, a server. Provider side.
    ///
    /// False: it was linked already, so that event is pending and nothing was done.
    ///
    /// # Safety
    /// Both tasks stay registered until the event was taken.
    pub unsafe fn push(&self, list: List, worker: &UmcgTask) -> bool {
        let link = worker.word(list);
        // Claims the link, and leaves that of a pending event alone: a swap would cut the rest of
        // the list off. SeqCst, on failure too: "state, then link"; pairs with the taker's "link,
        // then state", so that a pending event's taker sees what a second one would have told.
        if link.compare_exchange(0, LINKED, SeqCst, SeqCst).is_err() {
            return false;
        }
        let head = self.word(list);
        let node = worker.address();
        let mut seen = head.load(Relaxed);
        loop {
            link.store(seen | LINKED, Relaxed);
            // SeqCst: publishes the link (the taker's swap acquires it) and is the first half
            // of "push, then look at the slot".
            match head.compare_exchange(seen, node, SeqCst, Relaxed) {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
    }

    /// The address as the ABI carries it: 64 bits whatever the word size.
    #[must_use]
    pub fn address(&self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

impl Default for UmcgTask {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for UmcgTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UmcgTask")
            .field("state", &state::name(self.raw.state.load(Relaxed)))
            .field("tid", &self.tid())
            .field("server_tid", &self.server_tid())
            .field("next_tid", &self.next_tid())
            .finish_non_exhaustive()
    }
}

/// The workers of one [`UmcgTask::take`], newest first.
///
/// Each step unlinks the worker *before* it hands it out, so that a new event of the same
/// worker can be pushed from then on. Dropping the iterator unlinks the rest: their events are
/// lost, which only a server that goes away may do.
#[derive(Debug)]
pub struct Events<'a> {
    list: List,
    next: u64,
    server: PhantomData<&'a UmcgTask>,
}

impl Iterator for Events<'_> {
    type Item = NonNull<UmcgTask>;

    fn next(&mut self) -> Option<Self::Item> {
        let node = NonNull::new(core::ptr::with_exposed_provenance_mut::<UmcgTask>(
            self.next as usize,
        ))?;
        // SAFETY: a linked worker stays registered, hence allocated, until its link is
        // cleared, which happens below and nowhere else.
        let link = unsafe { node.as_ref() }.word(self.list);
        self.next = link.load(Acquire) & !LINKED;
        // SeqCst: unlink before the caller reads the state; pairs with the pusher's swap.
        // Nothing of the worker may be touched after this by a drainer that does not own it.
        link.store(0, SeqCst);
        Some(node)
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
