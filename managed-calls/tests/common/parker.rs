//! A worker that never sleeps in a call if it may sleep elsewhere.

use std::{
    cell::{Cell, RefCell},
    fmt,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use libc::c_int;
use umcg_managed_calls::{
    CurrentWorker, Inherited, ManagedCall, Parked, Readiness, Return, Sleep, Waker, Worker,
    set_current,
};

use super::{UnmanagedAgain, disturb};

/// Whether the handler that a test has installed has `SA_RESTART`. The parker cannot ask which
/// handler has interrupted it.
pub(crate) static RESTARTS: AtomicBool = AtomicBool::new(false);

/// What a worker does when it is about to park for the n-th time, counted from 1. True: it comes
/// back at once, as if an earlier event had woken it.
type BeforePark<'a> = dyn FnMut(u32) -> bool + 'a;

/// A worker that waits for descriptors and times in an epoll instance of its own.
pub(crate) struct Parker<'a> {
    /// Readable once the worker was told to look once more.
    event: OwnedFd,
    /// How often the worker has parked.
    parks: Cell<u32>,
    before_park: RefCell<Box<BeforePark<'a>>>,
}

impl fmt::Debug for Parker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parker")
            .field("parks", &self.parks)
            .finish_non_exhaustive()
    }
}

impl<'a> Parker<'a> {
    pub(crate) fn new(before_park: impl FnMut(u32) -> bool + 'a) -> Self {
        // SAFETY: no memory is passed.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        assert!(event >= 0, "{}", std::io::Error::last_os_error());
        Self {
            // SAFETY: just made, and nobody else's.
            event: unsafe { OwnedFd::from_raw_fd(event) },
            parks: Cell::new(0),
            before_park: RefCell::new(Box::new(before_park)),
        }
    }

    /// Runs `f` as this worker.
    pub(crate) fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        let worker: *const (dyn Worker + '_) = self;
        // SAFETY: the lifetime is taken out of the type only. The worker is taken back below.
        let worker = unsafe {
            std::mem::transmute::<*const (dyn Worker + '_), *const (dyn Worker + 'static)>(worker)
        };
        let current = CurrentWorker::new(NonNull::new(worker.cast_mut()).unwrap());
        // SAFETY: as above.
        unsafe { set_current(Some(NonNull::from(&current))) };
        let _unmanaged = UnmanagedAgain;
        f()
    }

    pub(crate) fn parks(&self) -> u32 {
        self.parks.get()
    }

    /// Takes the wake-up, if there is one.
    fn drain(&self) {
        let mut count = 0_u64;
        // SAFETY: eight live bytes.
        unsafe { libc::read(self.event.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// Whether the worker comes back at once.
    fn about_to_park(&self) -> bool {
        assert!(!umcg_managed_calls::is_managed(), "a call inside of a call");
        self.parks.set(self.parks.get() + 1);
        (self.before_park.borrow_mut())(self.parks.get())
    }
}

impl Worker for Parker<'_> {
    fn enter(&self, _call: ManagedCall, _sleep: Sleep, _how: Return) {
        disturb();
    }

    fn exit(&self, _how: Return) {
        disturb();
    }

    fn passed(&self) {
        disturb();
    }

    fn woke_others(&self) {
        disturb();
    }

    fn park(&self, _call: ManagedCall, fd: c_int, readiness: Readiness) -> Parked {
        if self.about_to_park() {
            disturb();
            return Parked::Woken;
        }
        let Some(epoll) = epoll_of(fd, readiness, self.event.as_raw_fd()) else {
            return Parked::Refused;
        };
        // SAFETY: all zeros are a valid event.
        let mut event: libc::epoll_event = unsafe { std::mem::zeroed() };
        let parked = loop {
            // SAFETY: room for one event.
            let found = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, -1) };
            if found == 1 {
                break Parked::Woken;
            }
            // Only a signal ends the wait with nothing found.
            if !RESTARTS.load(SeqCst) {
                break Parked::Interrupted;
            }
        };
        self.drain();
        disturb();
        parked
    }

    fn park_until(&self, _call: ManagedCall, deadline: u64) -> Parked {
        if self.about_to_park() {
            disturb();
            return Parked::Woken;
        }
        // SAFETY: live times.
        let slept = unsafe {
            let until = libc::timespec {
                tv_sec: (deadline / 1_000_000_000) as libc::time_t,
                tv_nsec: (deadline % 1_000_000_000) as libc::c_long,
            };
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const until,
                ptr::null_mut(),
            )
        };
        disturb();
        if slept == 0 {
            Parked::Woken
        } else {
            Parked::Interrupted
        }
    }

    fn waker(&self) -> Waker {
        Waker {
            call: |event| {
                let one = 1_u64;
                // SAFETY: eight live bytes.
                unsafe { libc::write(event.addr() as c_int, (&raw const one).cast(), 8) };
            },
            argument: ptr::without_provenance(self.event.as_raw_fd() as usize),
        }
    }

    fn yield_now(&self) {
        disturb();
    }

    fn affinity(&self, _mask: &mut [u8]) {}

    fn unmanage(&self) -> fn(Inherited) {
        |_| ()
    }

    fn before_child(&self) {}

    fn after_child(&self) {}
}

/// An epoll instance that reports each of two descriptors once. `None`: one of them cannot be
/// waited for.
fn epoll_of(fd: RawFd, readiness: Readiness, event: RawFd) -> Option<OwnedFd> {
    let ready = match readiness {
        Readiness::Readable => libc::EPOLLIN,
        Readiness::Writable => libc::EPOLLOUT,
    };
    // SAFETY: live events; the results are checked.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        assert!(epoll >= 0, "{}", std::io::Error::last_os_error());
        let epoll = OwnedFd::from_raw_fd(epoll);
        for (fd, ready) in [(fd, ready), (event, libc::EPOLLIN)] {
            let mut interest = libc::epoll_event {
                events: (ready | libc::EPOLLONESHOT) as u32,
                u64: 0,
            };
            let raw = epoll.as_raw_fd();
            if libc::epoll_ctl(raw, libc::EPOLL_CTL_ADD, fd, &raw mut interest) != 0 {
                return None;
            }
        }
        Some(epoll)
    }
}
