//! The queues of tasks: any thread pushes, any worker pops, first in, first out.
//!
//! This is the only file that names the implementation of the queues, so that another one can be
//! measured against it.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use crossbeam_deque::{Injector, Steal, Worker};
use crossbeam_queue::ArrayQueue;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

/// How many tasks fit into the ring of a server's run queue: 4 KiB, which are touched when it is
/// made. More tasks wait only in a burst.
const RING: usize = 256;

/// A list with room for more tasks than this, 32 KiB, gives its memory back when it is empty.
const KEPT: usize = 4096;

/// The queue of tasks from threads outside the runtime. It belongs to all servers and is unbounded.
///
/// It has no lock. That is safe here, because no server stops a thread outside the runtime in the
/// middle of a push: see [`ServerQueue`].
pub(in crate::sched) struct InjectorQueue<T> {
    /// The queue itself.
    tasks: Injector<T>,
}

impl<T> InjectorQueue<T> {
    pub(in crate::sched) fn new() -> Self {
        Self {
            tasks: Injector::new(),
        }
    }

    /// Puts a task at the back. This may allocate, so servers never do it.
    pub(in crate::sched) fn push(&self, task: T) {
        self.tasks.push(task);
    }

    /// Takes the task at the front. `None`: the queue was empty at some moment of the call. After a
    /// lost race it tries again.
    pub(in crate::sched) fn pop(&self) -> Option<T> {
        loop {
            match self.tasks.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => std::hint::spin_loop(),
            }
        }
    }

    /// As [`pop`](Self::pop), and moves some of the tasks behind it to the back of `to`, in their
    /// order: one of `shares` equal shares of all tasks, at most `limit`. For all of them together
    /// it writes once to the word that all poppers share. `batch` is empty before and after.
    pub(in crate::sched) fn pop_share(
        &self,
        to: &ServerQueue<T>,
        shares: usize,
        limit: usize,
        batch: &Batch<T>,
    ) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let more = (self.len() / shares).min(limit);
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
        batch.empty_into(to);
        Some(task)
    }

    /// Two loads. A task whose push has begun may count already.
    pub(in crate::sched) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// How many tasks were queued at some moment of the call.
    pub(in crate::sched) fn len(&self) -> usize {
        self.tasks.len()
    }
}

/// The run queue of a server: a ring of fixed size, and behind it a list for what does not fit.
///
/// The list has a lock, for a reason. In an unbounded queue without locks a popper spins while a
/// pusher has claimed a place and not filled it yet. On the device provider the kernel may stop the
/// pusher right there (it touched a page that was not present), until its server picks it. But that
/// server waits for the worker that spins: neither moves on. With a lock the popper sleeps, and the
/// server picks the pusher. The ring has no lock, but no page of it is missing either.
///
/// A pusher tries the ring only while the list is empty, and no task moves from the list to the
/// ring. So tasks come out in the order in which they were pushed, except for a task whose pusher
/// was stopped between its look at the list and its push into the ring.
pub(in crate::sched) struct ServerQueue<T> {
    /// The front of the queue, in fixed memory.
    ring: ArrayQueue<T>,
    /// What did not fit into the ring.
    overflow: CachePadded<Overflow<T>>,
}

/// The list behind the ring of a [`ServerQueue`].
struct Overflow<T> {
    /// The list itself, the oldest task first.
    tasks: Mutex<VecDeque<T>>,
    /// The length of `tasks`, for those that do not hold the lock. Written under it.
    len: AtomicUsize,
}

impl<T> Overflow<T> {
    fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    fn push(&self, task: T) {
        let mut tasks = self.tasks.lock();
        tasks.push_back(task);
        self.len.store(tasks.len(), SeqCst);
    }

    /// Takes the first task, and moves up to `more` of those behind it into the batch.
    fn pop(&self, more: usize, batch: Option<&Batch<T>>) -> Option<T> {
        let mut tasks = self.tasks.lock();
        let first = tasks.pop_front();
        if let Some(batch) = batch {
            let more = more.min(tasks.len());
            tasks.drain(..more).for_each(|task| batch.0.push(task));
        }
        self.len.store(tasks.len(), SeqCst);
        // The memory of a burst is given back, outside the lock.
        let spent = (tasks.is_empty() && tasks.capacity() > KEPT).then(|| mem::take(&mut *tasks));
        drop(tasks);
        drop(spent);
        first
    }
}

impl<T> ServerQueue<T> {
    pub(in crate::sched) fn new() -> Self {
        Self {
            ring: ArrayQueue::new(RING),
            overflow: CachePadded::new(Overflow {
                tasks: Mutex::new(VecDeque::new()),
                len: AtomicUsize::new(0),
            }),
        }
    }

    /// Puts a task at the back. This may allocate and wait for a lock, so servers never do it.
    pub(in crate::sched) fn push(&self, task: T) {
        let task = if self.overflow.len() == 0 {
            match self.ring.push(task) {
                Ok(()) => return,
                Err(task) => task,
            }
        } else {
            task
        };
        self.overflow.push(task);
    }

    /// Takes the task at the front. `None`: each task that was there when the call began has been
    /// taken by somebody else. This may wait for a lock.
    pub(in crate::sched) fn pop(&self) -> Option<T> {
        self.ring.pop().or_else(|| {
            if self.overflow.len() == 0 {
                None
            } else {
                self.overflow.pop(0, None)
            }
        })
    }

    /// As [`InjectorQueue::pop_share`].
    pub(in crate::sched) fn pop_share(
        &self,
        to: &Self,
        shares: usize,
        limit: usize,
        batch: &Batch<T>,
    ) -> Option<T> {
        if let Some(task) = self.ring.pop() {
            for _ in 0..(self.ring.len() / shares).min(limit) {
                let Some(next) = self.ring.pop() else { break };
                to.push(next);
            }
            return Some(task);
        }
        match self.overflow.len() {
            0 => None,
            len => {
                let task = self.overflow.pop((len / shares).min(limit), Some(batch));
                batch.empty_into(to);
                task
            }
        }
    }

    /// Whether each task that was there when the call began has been taken by somebody. It only
    /// loads. A task whose push has begun may count already.
    pub(in crate::sched) fn is_empty(&self) -> bool {
        self.ring.is_empty() && self.overflow.len() == 0
    }

    /// About how many tasks are queued. It only loads.
    pub(in crate::sched) fn len(&self) -> usize {
        self.ring.len() + self.overflow.len()
    }
}

impl<T> fmt::Debug for ServerQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerQueue")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Where tasks are on their way from one queue to another. Used by one thread.
pub(in crate::sched) struct Batch<T>(Worker<T>);

impl<T> Batch<T> {
    fn empty_into(&self, to: &ServerQueue<T>) {
        while let Some(task) = self.0.pop() {
            to.push(task);
        }
    }
}

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

impl<T> fmt::Debug for InjectorQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectorQueue")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn first_in_first_out_beyond_the_ring() {
        let queue = ServerQueue::new();
        let mut next = 0;
        // It is filled beyond the ring, emptied by half, and filled again.
        for round in 1..=3 {
            for task in (round - 1) * 2 * RING..round * 2 * RING {
                queue.push(task);
            }
            assert_eq!(queue.len(), 2 * RING * round - next);
            for _ in 0..RING + RING / 2 {
                assert_eq!(queue.pop(), Some(next));
                next += 1;
            }
        }
        while let Some(task) = queue.pop() {
            assert_eq!(task, next);
            next += 1;
        }
        assert_eq!(next, 6 * RING);
        assert!(queue.is_empty());
    }

    /// A share of the injector, and of a run queue whose tasks are in the ring, or behind it too.
    #[test]
    fn a_share_comes_in_order() {
        fn check(total: usize, len: usize, share: impl Fn(&ServerQueue<usize>) -> Option<usize>) {
            let own = ServerQueue::new();
            let mut seen = vec![share(&own).expect("a task")];
            assert!(own.len() <= 32 && own.len() <= len / 2, "{}", own.len());
            seen.extend(std::iter::from_fn(|| own.pop()));
            seen.extend(std::iter::from_fn(|| share(&own).or_else(|| own.pop())));
            seen.sort_unstable();
            assert_eq!(seen, (0..total).collect::<Vec<_>>());
        }
        let batch = Batch::default();
        for total in [1, 2, 40, 1000] {
            let injector = InjectorQueue::new();
            (0..total).for_each(|task| injector.push(task));
            check(total, total, |own| injector.pop_share(own, 2, 32, &batch));
            let other = ServerQueue::new();
            (0..total).for_each(|task| other.push(task));
            check(total, total, |own| other.pop_share(own, 2, 32, &batch));
        }
        let (injector, own) = (InjectorQueue::new(), ServerQueue::new());
        (0..100).for_each(|task| injector.push(task));
        let first = injector.pop_share(&own, 2, 10, &batch);
        assert_eq!(first, Some(0));
        let moved: Vec<_> = std::iter::from_fn(|| own.pop()).collect();
        assert_eq!(moved, (1..=moved.len()).collect::<Vec<_>>());
        assert!(!moved.is_empty() && moved.len() <= 10);
    }

    #[test]
    fn each_task_is_popped_once() {
        const TASKS: usize = 20_000;
        let queue = ServerQueue::new();
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
