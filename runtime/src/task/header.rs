//! What a task is to the scheduler, and what the task layer asks of the scheduler.
//!
//! The task layer gives the scheduler [`Runnable`]s and asks for a [`Schedule`]. The scheduler runs
//! a task by `Runnable::run`. That never unwinds: a panic of the future, of its destructor, or of
//! the destructor of the output is caught in `future.rs`. The scheduler cancels a task by dropping
//! the `Runnable`, which drops the future on that thread.
//!
//! A thread that aborts a task sets a flag in [`Meta`] and wakes the task, which looks at the flag
//! before each poll. A suspended task is known to its wakers only. So that a shutdown finds it, a
//! future that returns `Pending` for the first time enters its waker into [`OwnedTasks`]; closures
//! and futures that never suspend do not pay for that. [`OwnedTasks::close`] wakes all of them, and
//! the scheduler, which is shutting down, drops what is woken. A task that suspends later finds the
//! registry closed and cancels itself.

use std::{
    cell::Cell,
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{
    id::Id,
    owned::{OwnedKey, OwnedTasks},
};

/// A task that is ready to run. Dropping it cancels the task.
pub(crate) type Runnable = async_task::Runnable<Meta>;

/// The name of a task. One word, because tasks without a name have it as well: with a small future
/// a task fits into 120 bytes, and glibc frees blocks of that size without a lock.
pub(crate) type Name = Option<Arc<Arc<str>>>;

/// Why a task becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The task was just made.
    Spawn,
    /// The task was just made, by a caller that goes on computing (`join`). Another CPU should take
    /// it at once.
    Fork,
    /// The task was suspended and has been woken.
    Wake,
    /// The task was woken while it ran, as `yield_now` does. It has had its turn, so it goes to the
    /// back of the queue and never to the LIFO slot.
    Yield,
}

/// What the task layer asks of a scheduler.
pub(crate) trait Schedule: Send + Sync + 'static {
    /// A counted reference, one word.
    type Ref: Deref<Target = Self> + Send + Sync + 'static;

    /// Calls `make` with a reference for the new task that it makes, schedules that task, and
    /// returns what `make` returned beside it. This is one call, so that the scheduler finds out
    /// only once on which worker the task is spawned.
    fn spawn<R>(
        this: &Arc<Self>,
        origin: Origin,
        make: impl FnOnce(Self::Ref) -> (Runnable, R),
    ) -> R;

    /// Takes a task that is ready. Spawners and wakers call this on any thread, inside and outside
    /// of the runtime.
    ///
    /// The caller may hold any lock of the application's, so this waits for nothing that the
    /// application can hold. (A worker may wait for the lock of its server's run queue,
    /// `sched/run_queue/queue.rs`.) It never runs the task and never unwinds. After the shutdown it
    /// drops a new task at once, and leaves a woken one to another thread.
    fn schedule(&self, task: Runnable, origin: Origin);

    /// A task has ended: it completed, panicked or was cancelled. Called once for each task, on the
    /// thread where that happened. Under the same rules as [`schedule`](Self::schedule).
    fn finished(&self);

    /// The suspended tasks of this scheduler.
    fn owned(&self) -> &OwnedTasks;
}

/// What is known of a task beside its future. Lives in the allocation of the task.
pub(crate) struct Meta {
    id: Id,
    name: Name,
    /// The task is to end. Set by any thread that aborts the task; never cleared.
    aborted: AtomicBool,
    /// Where the waker of the task is in [`OwnedTasks`]. `None`: the task has not suspended. Only
    /// the thread that polls or drops the future touches this, and there is one such thread at a
    /// time.
    pub(super) owned: Cell<Option<OwnedKey>>,
    /// The application's future is in the task and may be polled or dropped. Touched as `owned` is.
    pub(super) has_future: Cell<bool>,
}

// SAFETY: `owned` and `has_future` are the only fields that are not Sync. They are touched only
// while the future of the task is made, polled or dropped. async-task lets one thread do that at a
// time, and orders each such access before the next (its RUNNING bit).
unsafe impl Sync for Meta {}

impl Meta {
    pub(super) fn new(name: Name) -> Self {
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

    /// The name of the task, if it has one.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.name.as_deref().cloned()
    }

    /// The name of the task as it is kept here.
    pub(crate) fn name_word(&self) -> Name {
        self.name.clone()
    }

    /// Whether the task was aborted. A task that has begun its last poll may finish regardless.
    pub(crate) fn is_aborted(&self) -> bool {
        // Relaxed: the aborter wakes the task after it has set the flag, and async-task orders the
        // wake before the poll that it causes.
        self.aborted.load(Relaxed)
    }

    /// Marks the task as aborted. The caller wakes the task afterwards; without that the task may
    /// never look.
    pub(super) fn set_aborted(&self) {
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
