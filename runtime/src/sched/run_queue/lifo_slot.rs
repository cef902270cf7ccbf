//! The slot for the task that was woken or spawned last.
//!
//! A task that wakes another one and then waits for its answer wants that one to run next, while
//! its data is in the cache. So the woken task goes into the slot, and the slot comes before the
//! run queue.
//!
//! The slot belongs to the *server*. The worker that filled it may block; the server's next worker
//! finds the task. (In tokio the slot belongs to a thread, and a task was stranded in it behind a
//! thread that blocked: tokio#4941.)
//!
//! The slot is one word, and each step swaps it. So a task has one owner at any time: whichever
//! thread got its pointer out. `models/lifo_slot.rs` checks that, and that a task is not stranded
//! when its server goes to sleep.

use std::{fmt, marker::PhantomData, ptr, ptr::NonNull};

use crate::{
    sync::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire, SeqCst},
    },
    task::Runnable,
};

/// A value that fits into one pointer.
///
/// # Safety
/// `from_raw` gives back what `into_raw` took.
pub(in crate::sched) unsafe trait OneWord: Sized {
    fn into_raw(self) -> NonNull<()>;

    /// # Safety
    /// `raw` came from `into_raw`, and is given back once.
    unsafe fn from_raw(raw: NonNull<()>) -> Self;
}

// SAFETY: async-task's own pair of functions.
unsafe impl OneWord for Runnable {
    fn into_raw(self) -> NonNull<()> {
        Self::into_raw(self)
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::from_raw(raw) }
    }
}

/// A place for at most one task.
pub(in crate::sched) struct LifoSlot<T: OneWord> {
    /// Null, or a pointer from `into_raw`, which the slot owns.
    raw: AtomicPtr<()>,
    /// The slot drops a `T`.
    owns: PhantomData<T>,
}

// SAFETY: the slot moves a T from one thread to another, and never shares one.
unsafe impl<T: OneWord + Send> Sync for LifoSlot<T> {}
// SAFETY: as above.
unsafe impl<T: OneWord + Send> Send for LifoSlot<T> {}

impl<T: OneWord> LifoSlot<T> {
    pub(in crate::sched) fn new() -> Self {
        Self {
            raw: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }

    /// Puts `task` in. Returns the task that was there.
    pub(in crate::sched) fn put(&self, task: T) -> Option<T> {
        // Release: publishes the task to the thread that takes it. Acquire: reads the task that was
        // there. Both pair with this swap in another thread, and with the one in `take`.
        let previous = self.raw.swap(task.into_raw().as_ptr(), AcqRel);
        // SAFETY: it was swapped out, so nobody else has it.
        NonNull::new(previous).map(|raw| unsafe { T::from_raw(raw) })
    }

    /// Takes the task.
    pub(in crate::sched) fn take(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // Acquire: pairs with the Release of `put`.
        let raw = self.raw.swap(ptr::null_mut(), Acquire);
        // SAFETY: it was swapped out, so nobody else has it.
        NonNull::new(raw).map(|raw| unsafe { T::from_raw(raw) })
    }

    /// A number that tells the task in the slot from the next one, except that the next one may
    /// have got the same memory. 0: empty.
    pub(in crate::sched) fn address(&self) -> usize {
        self.raw.load(SeqCst).addr()
    }

    pub(in crate::sched) fn is_empty(&self) -> bool {
        // SeqCst: a server that is about to idle reads this in its last look, after the fence of
        // `IdleServers::enter_idle`. That fence pairs with the pusher's, between `put` and `claim`.
        self.raw.load(SeqCst).is_null()
    }
}

impl<T: OneWord> Drop for LifoSlot<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T: OneWord> fmt::Debug for LifoSlot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LifoSlot")
            .field("is_empty", &self.is_empty())
            .finish_non_exhaustive()
    }
}

/// The tests put boxes in.
#[cfg(test)]
mod boxed {
    use super::*;

    // SAFETY: Box's own pair of functions.
    unsafe impl<V> OneWord for Box<V> {
        fn into_raw(self) -> NonNull<()> {
            NonNull::from(Box::leak(self)).cast()
        }

        unsafe fn from_raw(raw: NonNull<()>) -> Self {
            // SAFETY: the caller's promise.
            unsafe { Self::from_raw(raw.cast().as_ptr()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn last_in_wins_and_the_one_before_comes_out() {
        let slot = LifoSlot::new();
        assert!(slot.put(Box::new(1)).is_none());
        assert_eq!(slot.put(Box::new(2)), Some(Box::new(1)));
        assert_eq!(slot.take(), Some(Box::new(2)));
        assert!(slot.take().is_none());
    }

    #[test]
    fn dropping_the_slot_drops_the_task() {
        let witness = Arc::new(());
        let slot = LifoSlot::new();
        slot.put(Box::new(Arc::clone(&witness)));
        drop(slot);
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
