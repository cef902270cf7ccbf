//! Making tasks.

use std::{future::Future, sync::Arc};

use async_task::{ScheduleInfo, WithInfo};

use super::{
    future::{ClosureFuture, TaskFuture},
    header::{Meta, Name, Origin, Runnable, Schedule},
    join_handle::JoinHandle,
};

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

/// [`spawn_closure`] for a closure that borrows. `origin` is Spawn or Fork.
///
/// # Safety
///
/// Whatever `F` or `R` borrows outlives every *value* of these types inside the task: the caller
/// waits until the closure was called or dropped, and its result taken or dropped. A closure that
/// is cancelled is dropped without being called, on any thread. So the caller waits for a drop
/// guard inside the closure. The allocation of the task may remain, without such a value in it.
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
