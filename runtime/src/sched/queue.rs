//! Run queues: many push, many pop, first in first out.
//!
//! The only file that names the queue's implementation, so that another one can be measured
//! against it.

use std::fmt;

use crossbeam_deque::{Injector, Steal, Worker};

/// A queue of tasks that belongs to a server, or to all of them.
///
/// It never belongs to a thread: a worker that blocks strands nothing.
pub(super) struct Queue<T> {
    tasks: Injector<T>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            tasks: Injector::new(),
        }
    }

    /// Puts a task at the back.
    ///
    /// May allocate, so no server does this.
    pub(super) fn push(&self, task: T) {
        self.tasks.push(task);
    }

    /// Takes the task at the front. `None` only when the queue was empty at some moment of the
    /// call: a lost race is tried again.
    pub(super) fn pop(&self) -> Option<T> {
        loop {
            match self.tasks.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    /// As [`pop`](Self::pop), and moves up to `more` of the tasks behind it to the back of `to`,
    /// in their order: one write to the word that all who pop share, for all of them. `batch` is
    /// empty before and after.
    pub(super) fn pop_to(&self, to: &Self, more: usize, batch: &Batch<T>) -> Option<T> {
        let task = loop {
            match self
                .tasks
                .steal_batch_with_limit_and_pop(&batch.0, more + 1)
            {
                Steal::Success(task) => break task,
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        };
        while let Some(task) = batch.0.pop() {
            to.push(task);
        }
        Some(task)
    }

    /// Two loads. A task whose push has begun may count already.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many tasks wait, at some moment of the call.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }
}

/// Where tasks are between two queues. Of one thread.
pub(super) struct Batch<T>(Worker<T>);

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self(Worker::new_fifo())
    }
}

impl<T> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Batch").field(&self.0.len()).finish()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn first_in_first_out() {
        let queue = Queue::new();
        queue.push(1);
        queue.push(2);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), Some(2));
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn each_task_is_popped_once() {
        const TASKS: usize = 20_000;
        let queue = Queue::new();
        let popped: Vec<AtomicUsize> = (0..TASKS).map(|_| AtomicUsize::new(0)).collect();
        let left = AtomicUsize::new(TASKS);
        std::thread::scope(|scope| {
            for half in 0..2 {
                let queue = &queue;
                scope.spawn(move || {
                    for task in (half..TASKS).step_by(2) {
                        queue.push(task);
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    while left.load(Relaxed) > 0 {
                        match queue.pop() {
                            Some(task) => {
                                popped[task].fetch_add(1, Relaxed);
                                left.fetch_sub(1, Relaxed);
                            }
                            None => std::thread::yield_now(),
                        }
                    }
                });
            }
        });
        assert!(popped.iter().all(|count| count.load(Relaxed) == 1));
    }
}
