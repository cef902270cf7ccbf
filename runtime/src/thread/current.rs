//! Who am I.

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

/// A thread that ran here, or was made up for code that ran here.
struct Seen {
    /// How many tasks that code was inside of.
    depth: usize,
    /// The innermost of them. `None`: no task.
    task: Option<Id>,
    thread: Thread,
}

thread_local! {
    /// By depth: a task that is dropped inside of another one's code has an entry of its own. An
    /// entry is stale if its task is not the one that runs here at that depth by now.
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

    /// Runs `f` as this thread. Called once, in the task of this thread.
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        /// Removes the entry of this thread, even when `f` panics: a worker is not to keep its
        /// reference.
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

/// The thread that this code runs in.
///
/// In a [`thread`](super) of a runtime: that one. In any other task: one made up for the task,
/// unnamed, which for a future lasts until its next suspension. Elsewhere: one made up for
/// the operating system's thread.
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
