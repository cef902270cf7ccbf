//! The references that tasks hold to their runtime, and each worker's stock of them.
//!
//! A task may outlive its runtime: a waker somewhere else keeps it. So each holds a reference to
//! [`Shared`], which it takes when it is made and gives back when it is freed. Were these counted
//! in the `Arc`, each task would write twice to a line of memory that all CPUs share
//! (benches/SCALING.md). So there is a count of their own ([`Refs`](super::refs::Refs)), which
//! together holds *one* reference of the `Arc`, and each worker keeps a stock of counted ones that
//! it takes from and gives to without writing to anything shared.

use std::{cell::Cell, fmt, ops::Deref, ptr::NonNull, sync::Arc};

use super::{Shared, worker};

/// So many at a time move between a worker's stock and the count that all share, which is written
/// once in so many tasks; a worker has twice as many at most.
const BATCH: usize = 64;

/// Counts `n` references of tasks more.
fn add(shared: &Arc<Shared>, n: usize) {
    if shared.refs.add(n) {
        // SAFETY: `shared` is such an Arc, and lives.
        unsafe { Arc::increment_strong_count(Arc::as_ptr(shared)) }
    }
}

/// Gives `n` of them back.
///
/// # Safety
/// The caller has them; `shared` may be gone afterwards.
unsafe fn sub(shared: NonNull<Shared>, n: usize) {
    // SAFETY: alive until they are counted down.
    if unsafe { shared.as_ref() }.refs.sub(n) {
        // SAFETY: the reference that the `add` from 0 took. Another may have come from 0 since,
        // and has taken its own.
        unsafe { Arc::decrement_strong_count(shared.as_ptr()) }
    }
}

/// A task's reference to its runtime.
pub(crate) struct TaskRef(NonNull<Shared>);

// SAFETY: a counted reference, as an `Arc` of `Shared`, which is Send and Sync.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// From the stock, on a worker of that runtime.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        if worker::with_current(shared, |worker| worker.stock.take(shared)).is_none() {
            add(shared, 1);
        }
        Self(NonNull::from(&**shared))
    }
}

impl Deref for TaskRef {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: it is counted.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if worker::with_current(self, |worker| worker.stock.put()).is_none() {
            // SAFETY: it is counted, and not used any more.
            unsafe { sub(self.0, 1) };
        }
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRef").finish_non_exhaustive()
    }
}

/// The references that a worker has ready for the tasks that it makes, and keeps from those that
/// it frees. For its own thread.
pub(super) struct Stock {
    shared: NonNull<Shared>,
    /// Counted in `Refs`, and in no task.
    count: Cell<usize>,
}

impl Stock {
    /// An empty one.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: NonNull::from(&**shared),
            count: Cell::new(0),
        }
    }

    /// Takes one out. `shared`: whose stock it is.
    fn take(&self, shared: &Arc<Shared>) {
        let mut count = self.count.get();
        if count == 0 {
            add(shared, BATCH);
            count = BATCH;
        }
        self.count.set(count - 1);
    }

    /// Puts one in, that is counted.
    fn put(&self) {
        let mut count = self.count.get() + 1;
        if count == 2 * BATCH {
            // SAFETY: of the stock. The worker has a reference to the Arc of its own.
            unsafe { sub(self.shared, BATCH) };
            count -= BATCH;
        }
        self.count.set(count);
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let count = self.count.get();
        if count > 0 {
            // SAFETY: of the stock, which ends here.
            unsafe { sub(self.shared, count) };
        }
    }
}

impl fmt::Debug for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock")
            .field("count", &self.count.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{Arc, mpsc},
        task::{Poll, Waker},
    };

    /// Tasks are made and freed inside and outside, a waker outlives the runtime: what the
    /// runtime's threads share is freed with the last reference.
    #[test]
    fn the_last_task_frees_the_runtime() {
        let runtime = crate::Builder::new().servers(2).build().expect("a runtime");
        let shared = Arc::downgrade(runtime.handle().shared());
        let (tell, told) = mpsc::channel::<Waker>();
        let kept = runtime.spawn(async move {
            for _ in 0..1000 {
                drop(crate::spawn(async {}));
            }
            poll_fn::<(), _>(|cx| {
                let _ = tell.send(cx.waker().clone());
                Poll::Pending
            })
            .await;
        });
        let others: Vec<_> = (0..1000).map(|_| runtime.spawn_blocking(|| ())).collect();
        let waker = told.recv().expect("a waker");
        for other in others {
            other.join().expect("the task");
        }
        drop(kept);
        drop(runtime);
        assert!(shared.upgrade().is_some(), "the task refers to it");
        waker.wake_by_ref();
        drop(waker);
        assert!(shared.upgrade().is_none(), "never freed");
    }
}
