//! The future that async-task polls: that of the application, with its panics caught.

use std::{
    any::Any,
    fmt,
    future::Future,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    ptr::NonNull,
    task::{Context, Poll},
};

use super::{
    coop,
    current::enter_task,
    error::JoinError,
    header::{Meta, Schedule},
};
use crate::panic::discard;

/// What comes out of a task.
pub(super) type Output<T> = TaskOutput<Result<T, JoinError>>;

/// The payload of a panic.
type Payload = Box<dyn Any + Send>;

/// The future of the application, inside its task.
///
/// Neither `poll` nor `drop` unwinds. async-task aborts the process when the destructor of a future
/// unwinds, and the loop of a worker must not see the panics of its tasks.
pub(super) struct TaskFuture<'a, S: Schedule, F> {
    meta: &'a Meta,
    /// The scheduler that owns this task. The schedule function of the task keeps it alive; that
    /// function is in the same allocation, and is dropped after this future.
    sched: *const S,
    /// The future of the application, structurally pinned. It is there while `meta.has_future` is
    /// set: until it has completed, panicked or been cancelled. (An `Option` would be a word more
    /// in most tasks.)
    future: ManuallyDrop<F>,
}

// SAFETY: as `F`. `Meta` is Sync, and `sched` is a shared reference to a `Schedule`, which is
// Send and Sync.
unsafe impl<S: Schedule, F: Send> Send for TaskFuture<'_, S, F> {}

impl<'a, S: Schedule, F: Future> TaskFuture<'a, S, F> {
    pub(super) fn new(meta: &'a Meta, sched: *const S, future: F) -> Self {
        meta.has_future.set(true);
        Self {
            meta,
            sched,
            future: ManuallyDrop::new(future),
        }
    }

    /// The future of the application.
    fn future(self: Pin<&mut Self>) -> Pin<&mut F> {
        assert!(
            self.meta.has_future.get(),
            "a task is not polled after it completed"
        );
        // SAFETY: this field is structurally pinned: it is never moved out of, `drop` leaves it in
        // place as well, and there is no `Unpin` impl beside the automatic one. By the assertion it
        // has not been dropped.
        unsafe { self.map_unchecked_mut(|this| &mut *this.future) }
    }

    /// Drops the future of the application. Err: its destructor panicked.
    fn drop_future(self: Pin<&mut Self>) -> Result<(), Payload> {
        // SAFETY: it is dropped in place, and not moved.
        unsafe { self.get_unchecked_mut() }.discard_future()
    }

    /// Drops the future of the application. The output says that the task was cancelled, or that
    /// the destructor panicked.
    fn cancel<T>(self: Pin<&mut Self>) -> Output<T> {
        let meta = self.meta;
        let error = match self.drop_future() {
            Ok(()) => JoinError::cancelled(meta.id()),
            Err(payload) => JoinError::panicked(meta.id(), payload),
        };
        TaskOutput::new(meta, Err(error))
    }

    /// Enters the waker of a task that is about to suspend for the first time. False: the runtime
    /// is shutting down.
    fn register(&self, cx: &Context<'_>) -> bool {
        // SAFETY: see the field.
        let owned = unsafe { &*self.sched }.owned();
        if self.meta.owned.get().is_some() {
            return !owned.is_closed();
        }
        let key = owned.insert(self.meta.id(), cx.waker());
        self.meta.owned.set(key);
        key.is_some()
    }
}

impl<S: Schedule, F: Future> Future for TaskFuture<'_, S, F> {
    type Output = Output<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _task = enter_task(self.meta);
        if self.meta.is_aborted() {
            return Poll::Ready(self.cancel());
        }
        // A panic of the future unwinds through its own destructor, as it does in a thread: code
        // there may ask `std::thread::panicking`.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let _budget = coop::enter_budget();
            let mut future = DropOnUnwind(self.as_mut());
            let polled = future.0.as_mut().future().poll(cx);
            std::mem::forget(future);
            polled
        }));
        let meta = self.meta;
        let result = match polled {
            Ok(Poll::Pending) => {
                if self.register(cx) {
                    return Poll::Pending;
                }
                return Poll::Ready(self.cancel());
            }
            // The future is dropped before its output is seen: a joiner may rely on that.
            Ok(Poll::Ready(output)) => match self.drop_future() {
                Ok(()) => Ok(output),
                Err(payload) => {
                    discard(output);
                    Err(payload)
                }
            },
            Err(payload) => Err(payload),
        };
        let result = result.map_err(|payload| JoinError::panicked(meta.id(), payload));
        Poll::Ready(TaskOutput::new(meta, result))
    }
}

/// Drops the future of the application if its poll unwinds.
struct DropOnUnwind<'p, 'a, S: Schedule, F: Future>(Pin<&'p mut TaskFuture<'a, S, F>>);

impl<S: Schedule, F: Future> Drop for DropOnUnwind<'_, '_, S, F> {
    fn drop(&mut self) {
        // A panic of the destructor ends here: if it left this one, the process would be aborted.
        // The task's error is that of the poll.
        if let Err(payload) = self.0.as_mut().drop_future() {
            discard(payload);
        }
    }
}

impl<S: Schedule, F> TaskFuture<'_, S, F> {
    /// Drops the future of the application in place, if it is still there. Err: its destructor
    /// panicked.
    fn discard_future(&mut self) -> Result<(), Payload> {
        // Before the destructor, so that one that panics is not called again.
        if !self.meta.has_future.replace(false) {
            return Ok(());
        }
        // SAFETY: it was there until now, and all other code looks at the flag first.
        catch_unwind(AssertUnwindSafe(|| unsafe {
            ManuallyDrop::drop(&mut self.future);
        }))
    }
}

impl<S: Schedule, F> Drop for TaskFuture<'_, S, F> {
    fn drop(&mut self) {
        if self.meta.has_future.get() {
            let _task = enter_task(self.meta);
            // There is no join handle that this panic could go to. The panic hook has printed it.
            if let Err(payload) = self.discard_future() {
                discard(payload);
            }
        }
        // SAFETY: see the field.
        let sched = unsafe { &*self.sched };
        if let Some(key) = self.meta.owned.take() {
            sched.owned().remove(self.meta.id(), key);
        }
        sched.finished();
    }
}

/// A closure as a future that is ready at its first poll.
pub(super) struct ClosureFuture<F>(Option<F>);

impl<F> ClosureFuture<F> {
    pub(super) fn new(f: F) -> Self {
        Self(Some(f))
    }
}

// The closure is moved out before it is called; it is never pinned.
impl<F> Unpin for ClosureFuture<F> {}

impl<R, F: FnOnce() -> R> Future for ClosureFuture<F> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<R> {
        let f = self.0.take().expect("a closure is ready at its first poll");
        // An executor that the closure runs has its own turns, and no task waits for this poll.
        let _budget = coop::enter_unconstrained();
        Poll::Ready(f())
    }
}

/// The output of a task, which may be dropped unseen. That happens inside the task's context, and
/// a panic of its destructor ends here.
pub(super) struct TaskOutput<T> {
    /// The task. Alive whenever this is dropped: async-task drops the output of a detached task
    /// before it gives up its reference, and `JoinHandle::drop` has a reference of its own.
    meta: NonNull<Meta>,
    /// `None`: taken.
    value: Option<T>,
}

// SAFETY: `meta` is a shared reference to a Sync value.
unsafe impl<T: Send> Send for TaskOutput<T> {}

impl<T> TaskOutput<T> {
    fn new(meta: &Meta, value: T) -> Self {
        Self {
            meta: NonNull::from(meta),
            value: Some(value),
        }
    }

    pub(super) fn into_inner(mut self) -> T {
        self.value.take().expect("taken once, by value")
    }
}

impl<T> Drop for TaskOutput<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // SAFETY: see the field.
            let _task = enter_task(unsafe { self.meta.as_ref() });
            discard(value);
        }
    }
}

impl<T> fmt::Debug for TaskOutput<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskOutput").finish_non_exhaustive()
    }
}
