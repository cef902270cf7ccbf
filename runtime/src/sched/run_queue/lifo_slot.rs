//! The slot for the task that was woken last.
//!
//! A task that wakes another and then waits for its answer wants that one next, while its data
//! is in the cache. The slot belongs to the *server*: the worker that filled it may block, and
//! the server's next worker finds the task (tokio's slot belongs to a thread, and a task was
//! stranded in it behind one that blocked: tokio#4941).
//!
//! One word, three steps, all of them a swap: so there is one owner at any time, whoever got
//! the pointer out.

use std::{fmt, ptr, ptr::NonNull};

use crate::sync::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, SeqCst},
};

/// What fits into one pointer.
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
#[cfg(not(loom))]
unsafe impl OneWord for crate::task::Runnable {
    fn into_raw(self) -> NonNull<()> {
        Self::into_raw(self)
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::from_raw(raw) }
    }
}

/// At most one task.
pub(in crate::sched) struct LifoSlot<T: OneWord> {
    /// Null, or what `into_raw` gave: the slot owns it.
    raw: AtomicPtr<()>,
    owns: std::marker::PhantomData<T>,
}

// SAFETY: the slot hands a T from one thread to another and never shares one.
unsafe impl<T: OneWord + Send> Sync for LifoSlot<T> {}
// SAFETY: as above.
unsafe impl<T: OneWord + Send> Send for LifoSlot<T> {}

impl<T: OneWord> LifoSlot<T> {
    pub(in crate::sched) fn new() -> Self {
        Self {
            raw: AtomicPtr::new(ptr::null_mut()),
            owns: std::marker::PhantomData,
        }
    }

    /// Puts `task` in; the one that was there comes out.
    pub(in crate::sched) fn put(&self, task: T) -> Option<T> {
        // AcqRel: publishes the task to whoever takes it and acquires the one that was there;
        // pairs with itself and with `take`.
        let previous = self.raw.swap(task.into_raw().as_ptr(), AcqRel);
        // SAFETY: swapped out: nobody else has it.
        NonNull::new(previous).map(|raw| unsafe { T::from_raw(raw) })
    }

    /// Takes the task.
    pub(in crate::sched) fn take(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // Acquire: pairs with the AcqRel of `put`.
        let raw = self.raw.swap(ptr::null_mut(), Acquire);
        // SAFETY: swapped out: nobody else has it.
        NonNull::new(raw).map(|raw| unsafe { T::from_raw(raw) })
    }

    /// Something that tells one task from the next, mostly; 0: empty.
    #[cfg(not(loom))]
    pub(in crate::sched) fn address(&self) -> usize {
        self.raw.load(SeqCst).addr()
    }

    pub(in crate::sched) fn is_empty(&self) -> bool {
        // SeqCst: read by a server that is about to idle, after its fence.
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

#[cfg(all(test, not(loom)))]
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

#[cfg(all(test, loom))]
mod model {
    use loom::{
        sync::{Arc, atomic::AtomicBool},
        thread,
    };

    use super::*;
    use crate::{sched::idle::IdleServers, sync::fence};

    /// A worker that was blocked, and runs unmanaged, puts a task into the slot of its server
    /// while that one goes to sleep: the server sees it in its last look, or is woken.
    #[test]
    fn a_task_is_not_stranded_when_its_server_falls_asleep() {
        loom::model(|| {
            let shared = Arc::new((LifoSlot::new(), IdleServers::new(1), AtomicBool::new(false)));
            let worker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (slot, idle_servers, woken) = &*shared;
                    assert!(slot.put(Box::new(7)).is_none());
                    fence(SeqCst);
                    if !idle_servers.is_awake(0) && idle_servers.claim(|| true).is_some() {
                        woken.store(true, SeqCst);
                    }
                })
            };
            let (slot, idle_servers, woken) = &*shared;
            let mut taken = slot.take();
            if taken.is_none() {
                idle_servers.enter_idle(0, None);
                if !slot.is_empty() {
                    idle_servers.answer(idle_servers.wake_up(0));
                    taken = slot.take();
                    assert!(taken.is_some(), "nobody else takes it");
                }
            }
            worker.join().unwrap();
            assert!(
                taken.is_some() || woken.load(SeqCst),
                "the task is in the slot, and its server sleeps"
            );
        });
    }

    /// Two workers of one server, one of them unmanaged, and the server's next one: what goes
    /// in comes out once.
    #[test]
    fn each_task_comes_out_once() {
        loom::model(|| {
            let slot = Arc::new(LifoSlot::new());
            let threads: Vec<_> = (1..3)
                .map(|task| {
                    let slot = Arc::clone(&slot);
                    thread::spawn(move || slot.put(Box::new(task)).map_or(0, |task| *task))
                })
                .collect();
            let mut sum = slot.take().map_or(0, |task| *task);
            for thread in threads {
                sum += thread.join().unwrap();
            }
            sum += slot.take().map_or(0, |task| *task);
            assert_eq!(sum, 3);
        });
    }
}
