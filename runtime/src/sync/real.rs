//! What the runtime runs on.

use std::time::Duration;

pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// In the shape of loom's.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// An atomic word on which a thread can sleep.
#[derive(Debug)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    /// The word.
    pub(crate) const fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Sleeps while the word is `expected`, at most for `timeout`. May return early without a
    /// reason, so the caller looks at its condition again.
    pub(crate) fn wait(&self, expected: u32, timeout: Option<Duration>) {
        let timeout = timeout.map(|left| libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        // SAFETY: the word outlives the call, and the timeout is null or a valid timespec. Every
        // outcome (woken, value changed, EINTR, ETIMEDOUT) means the same: look again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                expected,
                timeout
                    .as_ref()
                    .map_or(std::ptr::null(), std::ptr::from_ref),
            );
        }
    }

    /// Wakes a thread that sleeps on the word, if there is one.
    pub(crate) fn wake_one(&self) {
        // SAFETY: a wake does not touch the memory; an address without sleepers is no error.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            );
        }
    }
}

/// Declares a thread-local without a destructor, which can be used until the thread's end.
macro_rules! thread_local_cell {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $value:expr) => {
        std::thread_local! {
            $(#[$meta])*
            static $name: $type = const { $value }
        }
    };
}

pub(crate) use thread_local_cell;

/// An object that model checks keep; here it is dropped as usual.
pub(crate) fn keep_in_models<T>(_: &std::sync::Arc<T>) {}

/// Lets another thread finish the few instructions that the caller waits for.
pub(crate) fn pause() {
    std::thread::yield_now();
}
