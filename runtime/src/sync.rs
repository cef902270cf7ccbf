//! The atomics of what is model-checked, or their twins under `--cfg loom`.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// The shape of loom's.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A thread-local that has no destructor, so that it can be used until the thread's end.
#[cfg(not(loom))]
macro_rules! thread_local_cell {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $value:expr) => {
        std::thread_local! { $(#[$meta])* static $name: $type = const { $value } }
    };
}

/// The threads of a model share the locals of the real thread that runs them, but not loom's.
#[cfg(loom)]
macro_rules! thread_local_cell {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $value:expr) => {
        loom::thread_local! { $(#[$meta])* static $name: $type = $value }
    };
}

pub(crate) use thread_local_cell;
