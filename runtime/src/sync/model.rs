//! What model checks run on.

use std::{sync::Arc, time::Duration};

use loom::sync::{Condvar, Mutex};
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

/// An atomic word on which a thread can sleep.
#[derive(Debug)]
pub(crate) struct Futex {
    word: AtomicU32,
    /// As in the kernel, the comparison and going to sleep are one step for a thread that wakes.
    queue: (Mutex<()>, Condvar),
}

impl Futex {
    pub(crate) fn new(value: u32) -> Self {
        Self {
            word: AtomicU32::new(value),
            queue: (Mutex::new(()), Condvar::new()),
        }
    }

    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }

    /// There is no time in a model: it never returns because of `_timeout`.
    pub(crate) fn wait(&self, expected: u32, _timeout: Option<Duration>) {
        let queue = self.queue.0.lock().unwrap();
        if self.word.load(Ordering::Acquire) == expected {
            drop(self.queue.1.wait(queue).unwrap());
        }
    }

    pub(crate) fn wake_one(&self) {
        let _queue = self.queue.0.lock().unwrap();
        self.queue.1.notify_all();
    }
}

/// The threads of a model share the locals of the real thread that runs them, but not loom's.
macro_rules! thread_local_cell {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $value:expr) => {
        loom::thread_local! {
            $(#[$meta])*
            static $name: $type = $value
        }
    };
}

pub(crate) use thread_local_cell;

/// Leaks a reference: loom cannot see that `Arc` orders the end of its value after everybody's
/// last use of it.
pub(crate) fn keep_in_models<T>(value: &Arc<T>) {
    std::mem::forget(Arc::clone(value));
}

/// Lets another thread of the model go on.
pub(crate) fn pause() {
    loom::thread::yield_now();
}
