//! The references that tasks hold to their runtime, and each worker's stock of them.
//!
//! A task may outlive its runtime, because a waker somewhere else keeps it. So each task holds a
//! reference to [`Shared`], which it takes when it is made and gives back when it is freed. If the
//! `Arc` counted these references, each task would write twice to a cache line that all CPUs share;
//! with many short tasks that line was the bottleneck.
//!
//! So tasks have a count of their own ([`RefCount`]), and each worker keeps a stock of references
//! that are counted already. A worker takes the references of the tasks that it makes from its
//! stock, and puts those of the tasks that it frees into it, without a write to anything shared.
//! The count is written when the stock runs empty or full, once in many tasks.

pub(in crate::sched) mod count;

use std::{cell::Cell, fmt, ops::Deref, ptr::NonNull, sync::Arc};

use self::count::{Counted, RefCount, add, address_of, sub};
use super::{Shared, worker::current};

/// How many references move between a worker's stock and the shared count at a time. A stock holds
/// less than twice as many.
const BATCH: usize = 64;

impl Counted for Shared {
    fn ref_count(&self) -> &RefCount {
        &self.task_refs
    }
}

/// A task's reference to its runtime.
pub(crate) struct TaskRef(
    /// From [`address_of`], and counted.
    NonNull<Shared>,
);

// SAFETY: a counted reference, like an `Arc` of `Shared`, which is Send and Sync.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// Taken from the stock if the calling thread is a worker of this runtime.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        if current::with_worker(shared, |worker| worker.stock.take(shared)).is_none() {
            add(shared, 1);
        }
        Self(address_of(shared))
    }
}

impl Deref for TaskRef {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        // SAFETY: this reference is counted, so the value is alive.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        if current::with_worker(self, |worker| worker.stock.put()).is_none() {
            // SAFETY: this reference is counted, and not used after this.
            unsafe { sub(self.0, 1) };
        }
    }
}

impl fmt::Debug for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskRef").finish_non_exhaustive()
    }
}

/// References that a worker has ready for the tasks that it makes, and keeps from those that it
/// frees. Used by the worker's thread only.
pub(super) struct Stock {
    /// From [`address_of`]. The worker has an `Arc` of it.
    shared: NonNull<Shared>,
    /// How many references are in the stock: counted in [`RefCount`], and held by no task.
    count: Cell<usize>,
}

impl Stock {
    /// An empty stock.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: address_of(shared),
            count: Cell::new(0),
        }
    }

    /// Takes one reference out. `shared` is what the stock was made with.
    fn take(&self, shared: &Arc<Shared>) {
        let mut count = self.count.get();
        if count == 0 {
            add(shared, BATCH);
            count = BATCH;
        }
        self.count.set(count - 1);
    }

    /// Puts a counted reference in.
    fn put(&self) {
        let mut count = self.count.get() + 1;
        if count == 2 * BATCH {
            // SAFETY: these references are in the stock. The worker has an `Arc` of its own.
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
            // SAFETY: these references are in the stock, which ends here.
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

    use super::*;

    /// A task's reference, made outside of the runtime, points where the `Arc` does.
    #[test]
    #[cfg_attr(miri, ignore = "miri has no futex with a server behind it")]
    fn a_reference_has_the_address_of_the_arc() {
        let runtime = crate::testing::runtime();
        let shared = runtime.shared();
        let reference = TaskRef::new(shared);
        assert_eq!(reference.0.as_ptr().cast_const(), Arc::as_ptr(shared));
        let others = Arc::strong_count(shared);
        let second = TaskRef::new(shared);
        assert_eq!(Arc::strong_count(shared), others, "they hold one together");
        drop((reference, second));
    }

    /// Tasks are made and freed inside and outside of the runtime, and a waker outlives it: what
    /// the threads of the runtime share is freed with the last reference.
    #[test]
    #[cfg_attr(miri, ignore = "miri has no futex with a server behind it")]
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
