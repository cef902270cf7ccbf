//! `struct umcg_task`: the 32 bytes that a task shares with the kernel, or with the threads that
//! play the kernel.

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
/// | 0 | `state` | reads and writes | the task, its server and the provider, by CAS; see [`state`] |
/// | 4 | `server_tid` | reads | the task itself before it registers; then the owner of a drained RUNNABLE worker |
/// | 8 | `next_tid` | reads; clears it when a switch commits | a server for itself; a server for a worker that it is about to dispatch (arming); a worker for its own next `wait` |
/// | 12 | `tid` | reads | the task, before it registers |
/// | 16 | `blocked_ptr` | writes | on a server, the head of a list: the provider pushes, the server takes all. On a worker, its link in that list: the provider |
/// | 24 | `runnable_ptr` | writes | the same for the other list |
#[repr(C)]
struct Layout {
    state: AtomicU32,
    server_tid: AtomicU32,
    next_tid: AtomicU32,
    tid: AtomicU32,
    blocked_ptr: AtomicU64,
    runnable_ptr: AtomicU64,
}

/// The shared memory of one task, a server or a worker.
///
/// The mail's 32 bytes, aligned to 64 so that they never straddle a page or a cache line. The
/// memory must not move or be freed while the task is registered.
///
/// # Examples
///
/// What a provider, a worker and its server do with the words.
/// [`Provider`](crate::Provider#examples) has examples with the calls in between.
///
/// ```
/// use std::ptr::NonNull;
/// use umcg_sys::{List, UmcgTask, state};
///
/// let (server, worker) = (UmcgTask::for_current_thread(0), UmcgTask::new());
/// // Every transition keeps the application's bits.
/// worker.set_user_bits(7);
/// worker.transition(state::NONE, state::RUNNING).expect("a new task");
/// assert!(worker.leave(), "from RUNNING to RUNNABLE, before it queues itself");
/// assert_eq!((worker.state(), worker.user_bits()), (state::RUNNABLE, 7));
///
/// // A provider pushes an event. As long as it is pending, a second push does nothing.
/// // SAFETY: both tasks live to the end of the example.
/// unsafe {
///     assert!(server.push(List::Runnable, &worker));
///     assert!(!server.push(List::Runnable, &worker), "pending");
/// }
/// // The server takes all events by one swap, and picks a worker.
/// let events: Vec<_> = server.take(List::Runnable).collect();
/// assert_eq!(events, [NonNull::from(&worker)]);
/// assert!(!server.has_events(List::Runnable));
/// server.set_next_tid(worker.tid());
/// ```
#[repr(C, align(64))]
pub struct UmcgTask {
    /// The words of the ABI. Every access is atomic.
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

/// Bit 0 of a *link*: the worker is on that list, or is about to be.
///
/// The pusher sets it first, by CAS. If it is set already, an event is pending and there is no
/// second push (trace A3). The taker clears it when it unlinks the worker, before it reads the
/// worker's state. The head of a list never has this bit.
const LINKED: u64 = 1;

/// One of the two lists of events that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Workers that blocked. An event here is information. It may come late, more than once, or
    /// when the block is over; several may be merged. The server reads the worker's state if it
    /// matters.
    Blocked,
    /// Workers that became runnable. An event here is a token: there is exactly one for each time
    /// that the worker is to be picked.
    Runnable,
}

impl UmcgTask {
    /// Creates a task that is not registered: all words are zero.
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

    /// Creates a task for the calling thread. A worker passes its server's tid; a server passes 0,
    /// which stands for its own tid.
    #[must_use]
    pub fn for_current_thread(server_tid: u32) -> Self {
        let task = Self::new();
        task.prepare(server_tid);
        task
    }

    /// Sets `tid` to the calling thread's id, and `server_tid` as
    /// [`for_current_thread`](Self::for_current_thread) does. For a task that is not registered.
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

    /// Makes one transition of bits 0 to 15, from `from` to `to`, and keeps the application's bits:
    /// a CAS that is repeated while only bits 16 to 31 changed. See the
    /// [example](UmcgTask#examples).
    ///
    /// SeqCst: the first half of pairs "store my state, then read your list or slot". The other
    /// half is in [`push`](Self::push) and [`take`](Self::take).
    ///
    /// # Errors
    /// The word that was found, if bits 0 to 15 were not `from`.
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

    /// A worker's first step out of RUNNING: to RUNNABLE, *before* it puts itself into any queue.
    ///
    /// False: the worker is BLOCKED, by a verdict or a preemption. It must call
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

    /// [`leave`](Self::leave) for a worker that [`try_checkpoint`] found without a slot. Its state
    /// is BLOCKED, or RUNNING if nobody has reported the verdict yet, and becomes RUNNABLE. The
    /// worker then queues itself and calls `wait`, which switches to nobody for a worker without a
    /// slot.
    ///
    /// [`try_checkpoint`]: crate::Provider::try_checkpoint
    pub fn leave_judged(&self) {
        let mut word = self.raw.state.load(SeqCst);
        // Only a late report may change the state meanwhile, from RUNNING to BLOCKED. So the loop
        // ends, unless the application keeps changing its bits.
        while let Err(found) = self.raw.state.compare_exchange(
            word,
            (word & state::USER_MASK) | state::RUNNABLE,
            SeqCst,
            SeqCst,
        ) {
            word = found;
        }
    }

    /// The first step of a server's loop: its state becomes RUNNABLE *before* it drains its lists.
    /// Every event after this makes its next `wait` return at once. The [crate's page](crate) has
    /// the whole loop.
    pub fn begin_drain(&self) {
        // Fails if the state is RUNNABLE already, because the loop came round without a `wait`.
        let _ = self.transition(state::RUNNING, state::RUNNABLE);
    }

    /// Sets bits 16 to 31 of the state word.
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

    /// Bits 16 to 31 of the state word.
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
        // Acquire: pairs with the Release in `set_server_tid`.
        self.raw.server_tid.load(Acquire)
    }

    /// Moves a worker to another server. Only the owner of a RUNNABLE worker whose events have been
    /// drained may do this.
    pub fn set_server_tid(&self, tid: u32) {
        // Release: pairs with the Acquire in `server_tid`, by which the next dispatcher reads this.
        self.raw.server_tid.store(tid, Release);
    }

    /// The task to switch to; 0 stands for the task's server.
    #[must_use]
    pub fn next_tid(&self) -> u32 {
        // Acquire: pairs with the Release in `set_next_tid`.
        self.raw.next_tid.load(Acquire)
    }

    /// Chooses the task to switch to.
    ///
    /// On a server this is its pick. On a worker it is either the worker's own choice for its next
    /// `wait`; or the spare to which a block is to switch, set by the server that is about to
    /// dispatch the worker (arming, see [`disarm`](crate::Provider::disarm)).
    pub fn set_next_tid(&self, tid: u32) {
        // Release: pairs with the Acquire in `next_tid`.
        self.raw.next_tid.store(tid, Release);
    }

    /// Clears `next_tid` if it still is `tid`, and says whether it was. The provider does this when
    /// a switch commits.
    pub fn clear_next_tid(&self, tid: u32) -> bool {
        self.raw
            .next_tid
            .compare_exchange(tid, 0, SeqCst, SeqCst)
            .is_ok()
    }

    /// The head (of a server) or the link (of a worker) of a list.
    fn word(&self, list: List) -> &AtomicU64 {
        match list {
            List::Blocked => &self.raw.blocked_ptr,
            List::Runnable => &self.raw.runnable_ptr,
        }
    }

    /// On a server: whether the list has events. One load, which does not order the events'
    /// contents.
    #[must_use]
    pub fn has_events(&self, list: List) -> bool {
        self.word(list).load(SeqCst) != 0
    }

    /// On a worker: whether it is on that list, or is about to be.
    #[must_use]
    pub fn is_linked(&self, list: List) -> bool {
        self.word(list).load(SeqCst) & LINKED != 0
    }

    /// On a server: takes all events of the list by one atomic swap. The newest comes first.
    ///
    /// Take [`List::Runnable`] first and [`List::Blocked`] second. Then *process* all blocked
    /// events and after them the runnable ones (trace A2), as the loop in the [crate's page](crate)
    /// does.
    #[must_use = "the events taken must be processed"]
    pub fn take(&self, list: List) -> Events<'_> {
        // SeqCst: the server stores RUNNABLE, then takes. Pairs with a pusher, which pushes, then
        // reads the slot and the state.
        Events {
            list,
            next: self.word(list).swap(0, SeqCst),
            server: PhantomData,
        }
    }

    /// Pushes `worker` on a list of `self`, a server. For providers.
    ///
    /// False: the worker is on the list already. That event is pending, and nothing was done.
    ///
    /// # Safety
    /// Both tasks stay registered until the event has been taken.
    pub unsafe fn push(&self, list: List, worker: &UmcgTask) -> bool {
        let link = worker.word(list);
        // Claims the link by a CAS, which leaves the link of a pending event alone. A swap would
        // cut the rest of the list off. SeqCst, on failure too: the pusher changes the state, then
        // reads the link; the taker clears the link, then reads the state. So the taker of a
        // pending event sees what a second event would have told.
        if link.compare_exchange(0, LINKED, SeqCst, SeqCst).is_err() {
            return false;
        }
        let head = self.word(list);
        let node = worker.address();
        let mut seen = head.load(Relaxed);
        loop {
            link.store(seen | LINKED, Relaxed);
            // SeqCst: releases the link, which the taker's swap acquires; and the pusher pushes,
            // then reads the slot and the state, which pairs with the server in `take`.
            match head.compare_exchange(seen, node, SeqCst, Relaxed) {
                Ok(_) => return true,
                Err(found) => seen = found,
            }
        }
    }

    /// The address of the task as the ABI carries it, in 64 bits.
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

/// The workers that one [`UmcgTask::take`] took, the newest first.
///
/// The iterator unlinks each worker *before* it returns it, so that a new event of this worker can
/// be pushed from then on. Dropping the iterator unlinks the rest, whose events are lost then. Only
/// a server that goes away may do that with runnable events.
#[derive(Debug)]
pub struct Events<'a> {
    /// The list that was taken.
    list: List,
    /// The address of the next worker, still linked; 0 at the end.
    next: u64,
    /// The server whose list it was.
    server: PhantomData<&'a UmcgTask>,
}

impl Iterator for Events<'_> {
    type Item = NonNull<UmcgTask>;

    fn next(&mut self) -> Option<Self::Item> {
        let node = NonNull::new(core::ptr::with_exposed_provenance_mut::<UmcgTask>(
            self.next as usize,
        ))?;
        // SAFETY: a linked worker stays registered, and so allocated, until its link is cleared.
        // That happens below and nowhere else.
        let link = unsafe { node.as_ref() }.word(self.list);
        // Acquire: as the swap in `take`, which has seen the link already.
        self.next = link.load(Acquire) & !LINKED;
        // SeqCst: the taker clears the link, then reads the state; pairs with the CAS of the link
        // in `push`. From here on a taker that does not own the worker may not use the worker's
        // memory.
        link.store(0, SeqCst);
        Some(node)
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
