//! The one way to sleep in a wait of the runtime's own.

use std::{cell::Cell, marker::PhantomData, time::Instant};

use super::{Parker, with_worker};
use crate::sync::thread_local_cell;

thread_local_cell! {
    /// A [`ManagedWait`] of this thread has told the scheduler.
    static WAITING: Cell<bool> = Cell::new(false)
}

/// A wait of the runtime's own, from [`begin`](Self::begin) to its drop; see the module page.
///
/// Nothing but the wait itself happens in between: the worker does not count against
/// `max_workers`, and must not run code of the application.
#[derive(Debug)]
#[must_use = "the wait is over when this is dropped"]
pub(crate) struct ManagedWait {
    /// This one told the scheduler, and must tell it the end. False on threads that are no
    /// workers, and inside another managed wait: a subscriber of the runtime's events may wait
    /// where a timer's thread could not be made.
    told: bool,
    /// The end is told on the same thread.
    not_send: PhantomData<*mut ()>,
}

impl ManagedWait {
    /// The wait begins.
    pub(crate) fn begin() -> Self {
        let told = with_worker(|worker| {
            let told = !WAITING.with(|waiting| waiting.replace(true));
            if told {
                worker.begin_managed_blocking();
            }
            told
        });
        Self {
            told: told.unwrap_or(false),
            not_send: PhantomData,
        }
    }

    /// Sleeps until `parker` has its token, and takes it. One thread at a time, the owner of the
    /// parker, may call this.
    pub(crate) fn park(&self, parker: &Parker) {
        if parker.prepare_park() {
            return;
        }
        with_worker(|worker| worker.sleep(parker, None));
        while !parker.take_token() {
            parker.sleep_on_futex(None);
        }
    }

    /// Sleeps until `parker` has its token, but not beyond `deadline` (`None`: no limit). True: the
    /// token was there, and was taken. For the owner of the parker.
    pub(crate) fn park_until(&self, parker: &Parker, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.park(parker);
            return true;
        };
        let left = || {
            Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
        };
        if parker.prepare_park() {
            return true;
        }
        while left().is_some() {
            with_worker(|worker| worker.sleep(parker, Some(deadline)));
            if parker.take_token() {
                return true;
            }
            // A driver that is shut down calls all of its wakers, before their time.
            if let Some(left) = left() {
                parker.undo_expire();
                parker.sleep_on_futex(Some(left));
            }
        }
        parker.leave()
    }

    /// Sleeps until `waits` is false. Whoever makes it so unparks `parker` afterwards. For the
    /// owner of the parker.
    pub(crate) fn park_while(&self, parker: &Parker, waits: impl Fn() -> bool) {
        while waits() {
            self.park(parker);
        }
    }

    /// Calls `f`, which blocks in the operating system for something that is about to happen: the
    /// end of a thread. The slot is not handed over by the worker itself; its provider sees the
    /// block.
    pub(crate) fn in_system<R>(&self, f: impl FnOnce() -> R) -> R {
        f()
    }
}

impl Drop for ManagedWait {
    fn drop(&mut self) {
        if self.told {
            WAITING.with(|waiting| waiting.set(false));
            with_worker(|worker| worker.end_managed_blocking());
        }
    }
}
