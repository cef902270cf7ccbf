//! Tasks: futures and closures that a runtime runs.
//!
//! A task is spawned by [`spawn`](crate::spawn), [`spawn_blocking`](crate::spawn_blocking), or
//! a [`Builder`] that gives it a name, and seen through its [`JoinHandle`], an [`AbortHandle`],
//! or a [`JoinSet`] of many. It costs one allocation. Its panic is contained: it becomes the
//! [`JoinError`] that joining it returns.
//!
//! # How a task ends
//!
//! A task that is queued or suspended when it is aborted, or when its runtime shuts down, is
//! cancelled: dropped without another poll, on a thread of the runtime. A future that runs is
//! cancelled at its next suspension point; a closure that has begun runs to its end. Joining a cancelled task says so: [`JoinError::is_cancelled`].

// This module is the seam to the scheduler. What it hands over is a `Runnable`; what it asks
// for is `Schedule`. A scheduler runs a task with `Runnable::run`, which never unwinds: a panic
// of the future, of its destructor, and of the output's destructor is caught here. It cancels
// one by dropping the `Runnable`, which drops the future on that thread.
//
// The abort flag is in `Meta`; whoever sets it wakes the task, and the task looks before each
// poll. A suspended task is known to nobody but its wakers. For shutdown, a future that returns
// `Pending` for the first time enters its waker into `OwnedTasks`; closures and futures that
// never suspend do not pay for it. `OwnedTasks::close` wakes all of them, whereupon
// `Schedule::schedule` has them dropped, and a task that suspends later, for the first time or not,
// is told and cancels itself.

mod abort;
pub mod coop;
mod current;
mod error;
mod future;
mod id;
mod join_handle;
mod owned;
mod yield_now;

// These name a runtime, which there is none of in a model.
cfg_if::cfg_if! {
    if #[cfg(not(loom))] {
        mod builder;
        mod join_set;

        pub use self::{builder::Builder, join_set::JoinSet};
    }
}

use std::{
    cell::Cell,
    fmt,
    future::Future,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_task::{ScheduleInfo, WithInfo};

pub use self::{
    abort::AbortHandle,
    coop::{Unconstrained, consume_budget, unconstrained},
    error::JoinError,
    id::Id,
    join_handle::JoinHandle,
    yield_now::{YieldNow, yield_now},
};
pub(crate) use self::{
    current::{depth, with_task},
    future::discard,
    owned::OwnedTasks,
};
use self::{
    future::{ClosureFuture, TaskFuture},
    owned::OwnedKey,
};

/// A task that is ready to run. Dropping it cancels the task.
pub(crate) type Runnable = async_task::Runnable<Meta>;

/// A task's name. One word, since each word of a task is paid by those without a name as well:
/// with a small future a task fits into 120 bytes, which glibc takes back without a lock.
pub(crate) type Name = Option<Arc<Arc<str>>>;

/// Why a task becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was just made.
    Spawn,
    /// It was just made, by a caller that goes on computing meanwhile (`join`): another CPU had
    /// better take it at once.
    Fork,
    /// It was suspended and somebody woke it.
    Wake,
    /// It was woken while it ran, as `yield_now` does: it has had its turn, so it goes to the
    /// back of the queue and never to the LIFO slot.
    Yield,
}

/// What the task layer asks of a scheduler.
pub(crate) trait Schedule: Send + Sync + 'static {
    /// A counted reference, one word.
    type Ref: Deref<Target = Self> + Send + Sync + 'static;

    /// Calls `make` with a reference for the new task that it makes, and schedules that task; gives
    /// what `make` returned beside it. One call, so that the scheduler finds out only once on which
    /// worker the task is spawned.
    fn spawn<R>(
        this: &Arc<Self>,
        origin: Origin,
        make: impl FnOnce(Self::Ref) -> (Runnable, R),
    ) -> R;

    /// Takes a task that is ready. Called by spawners and wakers on any thread, inside and
    /// outside of the runtime, with any lock of the user's held: it waits for nothing of the user's
    /// (a worker may wait for the lock of its server's list of tasks, `sched/queue.rs`), never runs
    /// the task, never unwinds. After shutdown it drops a new task at once, and leaves a woken one to
    /// somebody else.
    fn schedule(&self, task: Runnable, origin: Origin);

    /// A task came to its end: completed, panicked or cancelled. Called once for each, on the
    /// thread where that happened; as quick and as quiet as `schedule`.
    fn finished(&self);

    /// The suspended tasks of this scheduler.
    fn owned(&self) -> &OwnedTasks;
}

/// What is known of a task beside its future, in the task's own allocation.
pub(crate) struct Meta {
    id: Id,
    name: Name,
    /// Set by whoever aborts the task; never cleared.
    aborted: AtomicBool,
    /// Where the task's waker is in [`OwnedTasks`]. Touched only by the thread that polls or
    /// drops the task's future, of which there is one at a time.
    owned: Cell<Option<OwnedKey>>,
    /// The user's future is in the task and may be polled or dropped. Touched as `owned` is.
    has_future: Cell<bool>,
}

// SAFETY: `owned` and `has_future` are the only fields that are not Sync. They are touched only
// while the task's future is made, polled or dropped, and async-task lets one thread do that at a time and orders each
// such access before the next (its RUNNING bit).
unsafe impl Sync for Meta {}

impl Meta {
    fn new(name: Name) -> Self {
        Self {
            id: Id::next(),
            name,
            aborted: AtomicBool::new(false),
            owned: Cell::new(None),
            has_future: Cell::new(false),
        }
    }

    /// The task's id.
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// The task's name, if it was given one.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.name.as_deref().cloned()
    }

    /// The same, to be kept by another.
    pub(crate) fn name_word(&self) -> Name {
        self.name.clone()
    }

    /// Whether the task was aborted. A task that has begun its last poll may finish regardless.
    pub(crate) fn is_aborted(&self) -> bool {
        // Relaxed: the aborter wakes the task after it set the flag, and async-task's wake
        // orders that before the poll that the wake causes.
        self.aborted.load(Relaxed)
    }

    /// To be followed by a wake, or it may never be seen.
    fn set_aborted(&self) {
        // Relaxed: see `is_aborted`.
        self.aborted.store(true, Relaxed);
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta")
            .field("id", &self.id)
            .field("name", &self.name())
            .field("aborted", &self.is_aborted())
            .finish_non_exhaustive()
    }
}

/// Makes a task of `future` and schedules it.
pub(crate) fn spawn_future<S, F>(sched: &Arc<S>, name: Name, future: F) -> JoinHandle<F::Output>
where
    S: Schedule,
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // SAFETY: the future is Send and 'static.
    unsafe { spawn_unchecked(sched, name, Origin::Spawn, future) }
}

/// Makes a task of the closure `f` and schedules it.
pub(crate) fn spawn_closure<S, F, R>(sched: &Arc<S>, name: Name, f: F) -> JoinHandle<R>
where
    S: Schedule,
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    // SAFETY: the closure is Send and 'static.
    unsafe { spawn_closure_unchecked(sched, name, Origin::Spawn, f) }
}

/// [`spawn_closure`] for a closure that borrows; `origin` is Spawn or Fork.
///
/// # Safety
///
/// Whatever `F` or `R` borrows outlives every *value* of these types inside the task: the caller
/// waits until the closure was called or dropped, and its result taken or dropped. A closure
/// that is cancelled is dropped uncalled, on any thread, so a drop guard inside it is what to
/// wait for. What may remain is the task's allocation, without such a value in it.
pub(crate) unsafe fn spawn_closure_unchecked<S, F, R>(
    sched: &Arc<S>,
    name: Name,
    origin: Origin,
    f: F,
) -> JoinHandle<R>
where
    S: Schedule,
    F: FnOnce() -> R + Send,
    R: Send,
{
    // SAFETY: the caller's promise.
    unsafe { spawn_unchecked(sched, name, origin, ClosureFuture::new(f)) }
}

/// # Safety
/// `F` is Send; what it or its output borrows outlives both.
unsafe fn spawn_unchecked<S, F>(
    sched: &Arc<S>,
    name: Name,
    origin: Origin,
    future: F,
) -> JoinHandle<F::Output>
where
    S: Schedule,
    F: Future + Send,
    F::Output: Send,
{
    S::spawn(sched, origin, |reference| {
        let registry: *const S = &raw const *reference;
        let schedule = move |task: Runnable, info: ScheduleInfo| {
            reference.schedule(
                task,
                if info.woken_while_running {
                    Origin::Yield
                } else {
                    Origin::Wake
                },
            );
        };
        // SAFETY: the future is Send and outlived by what it borrows, as the caller promises; the
        // schedule function is Send, Sync and 'static. `registry` is what the reference in the
        // schedule function refers to, and async-task drops the future before it.
        let (runnable, task) = unsafe {
            async_task::Builder::new()
                .metadata(Meta::new(name))
                .spawn_unchecked(
                    move |meta| TaskFuture::new(meta, registry, future),
                    WithInfo(schedule),
                )
        };
        let handle = JoinHandle::new(task, &runnable);
        (runnable, handle)
    })
}

/// The id of the task that runs on this thread.
///
/// `None` outside of tasks. Inside a destructor of a task's future it is still that task.
#[must_use]
pub fn try_id() -> Option<Id> {
    with_task(Meta::id)
}

/// The id of the task that runs on this thread.
///
/// # Panics
///
/// Outside of tasks; [`try_id`] says `None` there.
///
/// # Examples
///
/// ```
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let task = umcg::spawn(async { umcg::task::id() });
/// let id = task.id();
/// assert_eq!(task.await.unwrap(), id);
/// # });
/// ```
#[must_use]
#[track_caller]
pub fn id() -> Id {
    try_id().expect("`umcg::task::id()` was called outside of a task")
}

/// The name of the task that runs on this thread. `None`: it has none, or there is no task.
#[must_use]
pub fn name() -> Option<Arc<str>> {
    with_task(Meta::name).flatten()
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod model;
