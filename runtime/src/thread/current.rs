//! Who am I.

use std::{
    cell::RefCell,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use crate::{
    context,
    task::{Id, Meta, Name},
    wait::Parker,
};

/// A thread of a runtime, or any other thread that asked for its [`current`] one.
#[derive(Clone)]
pub struct Thread {
    inner: Arc<Inner>,
}

struct Inner {
    id: ThreadId,
    name: Name,
    /// The token of `park`.
    token: Parker,
}

/// A thread's id: unique in the process, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(Id);

/// The thread that runs here, with the task it belongs to (`None`: no task). It is stale when
/// another task runs here by now.
struct Seen {
    task: Option<Id>,
    thread: Thread,
}

thread_local! {
    static CURRENT: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

impl Thread {
    pub(crate) fn new(name: Name) -> Self {
        Self {
            inner: Arc::new(Inner {
                id: ThreadId(Id::next()),
                name,
                token: Parker::new(),
            }),
        }
    }

    /// Runs `f` as this thread. Called once, in the task of this thread.
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        /// What was current before comes back, even when `f` panics. Not much to restore on a
        /// worker, whose tasks follow one another; but the reference must not stay.
        struct Leave(Option<Seen>);
        impl Drop for Leave {
            fn drop(&mut self) {
                drop(replace(self.0.take()));
            }
        }

        let _leave = Leave(replace(Some(Seen {
            task: context::with_task(Meta::id),
            thread: self,
        })));
        f()
    }

    /// The thread's id.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.inner.id
    }

    /// The thread's name, if it was given one by [`Builder::name`](super::Builder::name).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_ref().map(|name| &***name)
    }

    /// Lets the thread's current or next [`park`](super::park) return.
    ///
    /// Tokens do not add up. Never blocks. What happened before this is seen after the `park`.
    pub fn unpark(&self) {
        self.inner.token.unpark();
    }

    pub(super) fn token(&self) -> &Parker {
        &self.inner.token
    }
}

/// Keeps what is current on this thread, for the time that another task's code runs inside of this
/// one's.
pub(crate) fn keep_current() -> KeepCurrent {
    KeepCurrent(replace(None))
}

/// See [`keep_current`].
pub(crate) struct KeepCurrent(Option<Seen>);

impl Drop for KeepCurrent {
    fn drop(&mut self) {
        drop(replace(self.0.take()));
    }
}

fn replace(seen: Option<Seen>) -> Option<Seen> {
    CURRENT
        .try_with(|current| current.replace(seen))
        .ok()
        .flatten()
}

/// The thread that this code runs in.
///
/// In a [`thread`](super) of a runtime: that one. In any other task: one made up for the task,
/// unnamed, which for a future lasts until its next suspension. Elsewhere: one made up for
/// the operating system's thread.
#[must_use]
pub fn current() -> Thread {
    let task = context::with_task(Meta::id);
    CURRENT
        .try_with(|current| {
            let mut current = current.borrow_mut();
            match &*current {
                Some(seen) if seen.task == task => seen.thread.clone(),
                _ => {
                    let thread = Thread::new(context::with_task(Meta::name_word).flatten());
                    let stale = current.replace(Seen {
                        task,
                        thread: thread.clone(),
                    });
                    drop(stale);
                    thread
                }
            }
        })
        // While the thread is torn down: one that nobody can unpark, as std's would be.
        .unwrap_or_else(|_| Thread::new(None))
}

// As std's. A token does not stop half-way.
impl UnwindSafe for Thread {}
impl RefUnwindSafe for Thread {}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{task::spawn_closure, testing::ManualSched};

    #[test]
    fn worker_keeps_nothing_of_a_thread_that_is_done() {
        let sched = ManualSched::new();
        let thread = Thread::new(None);
        let theirs = thread.clone();
        drop(spawn_closure(&sched, None, move || theirs.run(|| ())));
        sched.run_all();
        assert_eq!(Arc::strong_count(&thread.inner), 1);
    }
}
