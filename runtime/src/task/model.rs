//! Model checks of a task's way from spawn to join: abort and join against everything that a worker
//! may be doing.
//!
//! Real code throughout. What async-task does, and our abort flag in its allocation, is a step at
//! a time to the model; the futures here let others run in the middle of a poll, so that an abort
//! comes before, during and after it.

// Counts are std's: the edges that order them are async-task's, which the model does not see.
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use loom::{
    sync::{Condvar, Mutex},
    thread,
};

use super::{Origin, OwnedTasks, Runnable, Schedule, spawn_closure, spawn_future};

/// A queue with one worker, which ends when all tasks have.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    owned: OwnedTasks,
}

struct State {
    ready: VecDeque<Runnable>,
    /// Tasks that have not finished.
    live: usize,
}

impl Queue {
    fn new(tasks: usize) -> Arc<Self> {
        let queue = Arc::new(Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                live: tasks,
            }),
            changed: Condvar::new(),
            owned: OwnedTasks::new(1),
        });
        // It stays: the model cannot see that `Arc` orders its end after everybody's last use.
        std::mem::forget(Arc::clone(&queue));
        queue
    }

    /// Runs tasks until the last one has finished. A task that nobody wakes any more is a
    /// deadlock of the model.
    fn serve(&self) {
        loop {
            let mut state = self.state.lock().unwrap();
            let task = loop {
                if let Some(task) = state.ready.pop_front() {
                    break task;
                }
                if state.live == 0 {
                    return;
                }
                state = self.changed.wait(state).unwrap();
            };
            drop(state);
            task.run();
        }
    }
}

impl Schedule for Queue {
    type Ref = Arc<Self>;

    fn reference(this: &Arc<Self>) -> Arc<Self> {
        Arc::clone(this)
    }

    fn schedule(&self, task: Runnable, _: Origin) {
        self.state.lock().unwrap().ready.push_back(task);
        self.changed.notify_all();
    }

    fn finished(&self) {
        self.state.lock().unwrap().live -= 1;
        self.changed.notify_all();
    }

    fn owned(&self) -> &OwnedTasks {
        &self.owned
    }
}

/// Is ready at its `polls`th poll, and counts its end.
struct Ready {
    polls: usize,
    dropped: Arc<AtomicUsize>,
}

impl Future for Ready {
    type Output = u32;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u32> {
        // In the middle of a poll: after the abort flag was looked at, before the suspension.
        thread::yield_now();
        match self.polls.checked_sub(1) {
            Some(left) => {
                self.polls = left;
                Poll::Pending
            }
            None => Poll::Ready(7),
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

#[test]
fn model_join_against_the_end_of_a_closure() {
    loom::model(|| {
        let queue = Queue::new(1);
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.serve())
        };
        assert_eq!(spawn_closure(&queue, None, || 7).join().unwrap(), 7);
        worker.join().unwrap();
    });
}

/// Aborts a future, which is ready at its first poll or suspends for ever, while a worker runs
/// it; joins. It ends in one way, once, and before the join does.
fn abort(polls: usize) {
    loom::model(move || {
        let queue = Queue::new(1);
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.serve())
        };
        let dropped = Arc::new(AtomicUsize::new(0));
        let task = spawn_future(
            &queue,
            None,
            Ready {
                polls,
                dropped: Arc::clone(&dropped),
            },
        );
        task.abort();
        match task.join() {
            Ok(output) => assert_eq!((output, polls), (7, 0)),
            Err(error) => assert!(error.is_cancelled()),
        }
        assert_eq!(dropped.load(SeqCst), 1);
        worker.join().unwrap();
    });
}

#[test]
fn model_abort_against_a_suspension() {
    abort(usize::MAX);
}

#[test]
fn model_abort_against_the_end() {
    abort(0);
}

#[test]
fn model_detached_tasks_run_on() {
    loom::model(|| {
        let queue = Queue::new(1);
        let done = Arc::new(AtomicUsize::new(0));
        let task = {
            let done = Arc::clone(&done);
            spawn_closure(&queue, None, move || done.fetch_add(1, SeqCst))
        };
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.serve())
        };
        drop(task);
        worker.join().unwrap();
        assert_eq!(done.load(SeqCst), 1);
    });
}
