//! The identity of the thread, or the task, that runs.

use std::{
    cell::RefCell,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use crate::{
    task::{Id, Meta, Name, depth, with_task},
    wait::Parker,
};

/// A thread: one of a [runtime](super), or any other one on which [`current`] was called.
#[derive(Clone)]
pub struct Thread {
    inner: Arc<Inner>,
}

struct Inner {
    id: ThreadId,
    name: Name,
    /// The token that [`park`](super::park) waits for.
    token: Parker,
}

/// The id of a thread. Ids are unique in the process and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThreadId(Id);

/// The [`Thread`] of code that ran on this kernel thread.
struct Seen {
    /// How many tasks that code was inside of.
    depth: usize,
    /// The innermost of these tasks. `None`: the code was in no task.
    task: Option<Id>,
    thread: Thread,
}

thread_local! {
    /// Sorted by depth: a task that is dropped inside of another one's code has an entry of its
    /// own. An entry is stale if another task has run at its depth since.
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
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

    /// Calls `f`, to which this is the current thread. Called once, in the task of this thread.
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        /// Removes the entry of this thread, even when `f` panics. Otherwise the worker would keep
        /// its reference.
        struct Leave(usize);
        impl Drop for Leave {
            fn drop(&mut self) {
                let _ = SEEN.try_with(|seen| seen.borrow_mut().truncate(self.0));
            }
        }

        let entry = Seen {
            depth: depth(),
            task: with_task(Meta::id),
            thread: self,
        };
        let _leave = SEEN.try_with(|seen| {
            let mut seen = seen.borrow_mut();
            seen.push(entry);
            Leave(seen.len() - 1)
        });
        f()
    }

    /// The thread's id.
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.inner.id
    }

    /// The thread's name, if [`Builder::name`](super::Builder::name) gave it one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_ref().map(|name| &***name)
    }

    /// Lets the thread's current or next [`park`](super::park) return.
    ///
    /// Tokens do not add up: several calls before a `park` have the effect of one. Never blocks.
    /// What happened before this call is visible after the `park`.
    pub fn unpark(&self) {
        self.inner.token.unpark();
    }

    pub(super) fn token(&self) -> &Parker {
        &self.inner.token
    }
}

/// The thread that this code runs in.
///
/// In a [thread of a runtime](super), it is that thread. In any other task it is a new one with the
/// name of the task. A closure keeps it to its end; a future may find another one after each
/// suspension. Outside of tasks there is one for each thread of the operating system.
#[must_use]
pub fn current() -> Thread {
    let (depth, task) = (depth(), with_task(Meta::id));
    SEEN.try_with(|seen| {
        let mut seen = seen.borrow_mut();
        while let Some(last) = seen.last() {
            if last.depth < depth {
                break;
            }
            if last.depth == depth && last.task == task {
                return last.thread.clone();
            }
            // Stale.
            seen.pop();
        }
        let thread = Thread::new(with_task(Meta::name_word).flatten());
        seen.push(Seen {
            depth,
            task,
            thread: thread.clone(),
        });
        thread
    })
    // The thread's locals have been destroyed already. Nothing can unpark this one.
    .unwrap_or_else(|_| Thread::new(None))
}

// As in std. A panic cannot leave the token half changed.
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
