//! A set of tasks that are joined in the order in which they finish.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Relaxed},
        },
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use parking_lot::Mutex;
use slab::Slab;

use super::{
    abort::AbortHandle,
    coop,
    error::JoinError,
    id::Id,
    join_handle::JoinHandle,
    spawn::{spawn_closure, spawn_future},
};
use crate::{Handle, block_on::block_on, sched::context};

/// Tasks with the same type of output, joined in the order in which they finish.
///
/// Dropping the set aborts all tasks that are still in it. [`detach_all`](Self::detach_all) lets
/// them continue to run.
///
/// # Examples
///
/// ```
/// use umcg::JoinSet;
///
/// # umcg::Runtime::new().unwrap().block_on(async {
/// let mut set = JoinSet::new();
/// for i in 0..10 {
///     set.spawn(async move { i });
/// }
/// let mut seen = Vec::new();
/// while let Some(result) = set.join_next().await {
///     seen.push(result.unwrap());
/// }
/// seen.sort();
/// assert_eq!(seen, (0..10).collect::<Vec<_>>());
/// # });
/// ```
pub struct JoinSet<T> {
    /// The tasks that were not joined yet.
    entries: Slab<Entry<T>>,
    /// What their wakers share with the set.
    woken: Arc<Woken>,
}

struct Entry<T> {
    handle: JoinHandle<T>,
    /// What the task wakes when it is done. Made of `notify`.
    waker: Waker,
    notify: Arc<Notify>,
}

/// What the wakers of the tasks share with the set.
struct Woken {
    /// Held for a few instructions, never while a waker is called.
    inner: Mutex<Inner>,
}

struct Inner {
    /// The keys of the entries that may be done. A key may be stale: its entry has been removed, or
    /// is that of another task, which is then polled once too often.
    keys: VecDeque<usize>,
    /// The task that waits for the next result.
    joiner: Option<Waker>,
}

/// The waker of one task.
struct Notify {
    key: usize,
    /// The key is in the list. Set by the waker; cleared by the set before it polls the task.
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for Notify {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel: pairs with the swap in `poll_entry`, so that the poll after it sees what was done
        // before this wake.
        if self.queued.swap(true, AcqRel) {
            return;
        }
        let joiner = {
            let mut inner = self.woken.inner.lock();
            inner.keys.push_back(self.key);
            inner.joiner.take()
        };
        if let Some(joiner) = joiner {
            joiner.wake();
        }
    }
}

impl<T> JoinSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: Slab::new(),
            woken: Arc::new(Woken {
                inner: Mutex::new(Inner {
                    keys: VecDeque::new(),
                    joiner: None,
                }),
            }),
        }
    }

    /// The number of tasks in the set, done or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no task in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asks all tasks to end; see [`AbortHandle::abort`]. They stay in the set until they are
    /// joined.
    pub fn abort_all(&mut self) {
        for (_, entry) in &self.entries {
            entry.handle.abort();
        }
    }

    /// Takes all tasks out of the set, and lets them continue to run.
    pub fn detach_all(&mut self) {
        self.entries.clear();
    }
}

impl<T: Send + 'static> JoinSet<T> {
    /// Spawns a future on the current runtime into the set.
    ///
    /// # Panics
    ///
    /// Outside of a runtime; [`spawn_on`](Self::spawn_on) names one.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        let task = context::with_current("umcg::JoinSet::spawn", |runtime| {
            spawn_future(runtime, None, future)
        });
        self.insert(task)
    }

    /// Spawns a future on a given runtime into the set.
    pub fn spawn_on<F>(&mut self, future: F, handle: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.insert(spawn_future(handle.shared(), None, future))
    }

    /// Spawns a closure on the current runtime into the set.
    ///
    /// # Panics
    ///
    /// Outside of a runtime; [`spawn_blocking_on`](Self::spawn_blocking_on) names one.
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, f: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let task = context::with_current("umcg::JoinSet::spawn_blocking", |runtime| {
            spawn_closure(runtime, None, f)
        });
        self.insert(task)
    }

    /// Spawns a closure on a given runtime into the set.
    pub fn spawn_blocking_on<F>(&mut self, f: F, handle: &Handle) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
    {
        self.insert(spawn_closure(handle.shared(), None, f))
    }

    /// Waits for the next task that is done. `None`: the set is empty.
    ///
    /// Cancel safe: if this future is dropped before it is ready, nothing is lost from the set.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if that task panicked or was cancelled.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|cx| self.poll_join_next(cx)).await
    }

    /// [`join_next`](Self::join_next) with the task's id.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if that task panicked or was cancelled; it has the id as well.
    pub async fn join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        poll_fn(|cx| self.poll_join_next_with_id(cx)).await
    }

    /// [`join_next`](Self::join_next), blocking the calling thread.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if that task panicked or was cancelled.
    pub fn join_next_blocking(&mut self) -> Option<Result<T, JoinError>> {
        block_on(self.join_next())
    }

    /// Joins a task that is done already. `None`: there is none now. Does not wait.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if that task panicked or was cancelled.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.try_join_next_with_id()
            .map(|result| result.map(|(_, output)| output))
    }

    /// [`try_join_next`](Self::try_join_next) with the task's id.
    ///
    /// # Errors
    ///
    /// [`JoinError`] if that task panicked or was cancelled; it has the id as well.
    pub fn try_join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        match self.poll_woken() {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Waits for all tasks, and returns their outputs in the order in which they finished.
    ///
    /// # Panics
    ///
    /// With the first panic of a task, or if a task was cancelled. The other tasks are aborted
    /// then.
    pub async fn join_all(mut self) -> Vec<T> {
        let mut outputs = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            match result.map_err(JoinError::try_into_panic) {
                Ok(output) => outputs.push(output),
                Err(Ok(payload)) => resume_unwind(payload),
                Err(Err(cancelled)) => panic!("{cancelled}"),
            }
        }
        outputs
    }

    /// Aborts all tasks and waits until they are done. Their outputs and panics are dropped.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// Polls for the next task that is done. `Ready(None)`: the set is empty.
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        self.poll_join_next_with_id(cx)
            .map(|next| next.map(|result| result.map(|(_, output)| output)))
    }

    /// [`poll_join_next`](Self::poll_join_next) with the task's id.
    pub fn poll_join_next_with_id(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<(Id, T), JoinError>>> {
        let proceed = ready!(coop::poll_proceed(cx));
        loop {
            if let Poll::Ready(result) = self.poll_woken() {
                proceed.made_progress();
                return Poll::Ready(Some(result));
            }
            if self.entries.is_empty() {
                proceed.made_progress();
                return Poll::Ready(None);
            }
            let replaced = {
                let mut inner = self.woken.inner.lock();
                if !inner.keys.is_empty() {
                    // A task has finished between the last look and this lock.
                    continue;
                }
                match &inner.joiner {
                    Some(joiner) if joiner.will_wake(cx.waker()) => None,
                    _ => inner.joiner.replace(cx.waker().clone()),
                }
            };
            drop(replaced);
            return Poll::Pending;
        }
    }

    /// Polls the tasks that were woken until one is done.
    fn poll_woken(&mut self) -> Poll<Result<(Id, T), JoinError>> {
        loop {
            let Some(key) = self.woken.inner.lock().keys.pop_front() else {
                return Poll::Pending;
            };
            if let Poll::Ready(result) = self.poll_entry(key) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_entry(&mut self, key: usize) -> Poll<Result<(Id, T), JoinError>> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Poll::Pending;
        };
        // AcqRel: pairs with the swap in `wake_by_ref`. Before the poll, so that a wake during the
        // poll is not lost.
        entry.notify.queued.swap(false, AcqRel);
        let id = entry.handle.id();
        let mut cx = Context::from_waker(&entry.waker);
        // The set takes from the budget of the task, once for each result.
        entry.handle.poll_output(&mut cx).map(|result| {
            self.entries.remove(key);
            result.map(|output| (id, output))
        })
    }

    fn insert(&mut self, handle: JoinHandle<T>) -> AbortHandle {
        let abort = handle.abort_handle();
        let vacant = self.entries.vacant_entry();
        let notify = Arc::new(Notify {
            key: vacant.key(),
            queued: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        let waker = Waker::from(Arc::clone(&notify));
        vacant.insert(Entry {
            handle,
            waker,
            notify: Arc::clone(&notify),
        });
        // The first join polls the task, which also tells the task what to wake.
        notify.queued.store(true, Relaxed);
        self.woken.inner.lock().keys.push_back(notify.key);
        abort
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Spawns the futures on the current runtime; panics outside of one.
impl<T, F> FromIterator<F> for JoinSet<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut set = Self::new();
        set.extend(futures);
        set
    }
}

/// Spawns the futures on the current runtime; panics outside of one.
impl<T, F> Extend<F> for JoinSet<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    #[track_caller]
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        for future in futures {
            self.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests;
