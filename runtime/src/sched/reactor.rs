//! Workers that wait for a descriptor without sleeping in the call.
//!
//! *Problem.* A worker that sleeps in `recv` is woken by the kernel as soon as data arrives. On a
//! busy server it then has no slot: it queues up and sleeps a second time, until it is picked.
//! Under load this is a second context switch for each block, which a plain thread does not have.
//!
//! *Mechanism.* If somebody else would run meanwhile, the worker does not make the call. It arms
//! its descriptor in the runtime's epoll instance, and sleeps in its gate ([`WorkerThread::park`]
//! in `worker/managed.rs`). Readiness is found by those who run anyway ([`Reactor::poll`], which
//! never sleeps): a worker that is about to hand its slot on, and a server that is awake. They
//! resume the worker, in the order in which the kernel reports the descriptors. So it is woken
//! once, when it is picked, and repeats a call that cannot sleep.
//!
//! While a server sleeps without a worker in its slot, nobody may come by. Then the runtime's
//! poller, a thread of its own, sleeps in `epoll_wait` in their place ([`Reactor::ensure_polled`]).
//! As soon as it finds all servers busy it leaves the events to them, and sleeps on its parker
//! until a server has nothing to do again.
//!
//! Sleeps go the same way. Their deadlines are in a heap that is looked at whenever the descriptors
//! are, and a timer of the kernel's ends the poller's sleep for the first of them.
//!
//! *Why nothing is missed.* A worker counts itself as parked before it gives its slot away, and a
//! server that goes to sleep without a worker in its slot enters that state before it looks at the
//! count; both pass a SeqCst fence in between. So either the server sees the count and has the
//! poller poll, or it has not gone to sleep yet when the worker gives its slot away, and it, or the
//! workers that it dispatches, poll. A worker in the slot that blocks without having said so counts
//! as a block which matters, because [`RunQueues::has_work`](super::run_queue::RunQueues::has_work)
//! says so while workers are parked. One that computes for long is seen by its server's deadline,
//! after the time slice.
//!
//! *Cost.* One `epoll_ctl` for each wait, and a part of an `epoll_wait`, in place of a context
//! switch.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
};

use parking_lot::Mutex;

use super::{Shared, clock::now_ns};
use crate::{
    panic::AbortIfPanic,
    wait::{ManagedWait, Parker},
};

/// While workers wait for the slot anyway, those who run look for events this often.
const POLL_INTERVAL_NS: u64 = 50_000;

/// A look that has not ended after this long does not keep others from looking.
const STALE_LOOK_NS: u64 = 1_000_000;

/// How many events one look takes. Those that are left are found by the next one.
const EVENTS: usize = 64;

/// The token of the events that end the poller's sleep: that of the timer, and the end. No worker
/// has this index.
const WAKE: u64 = u64::MAX;

/// How many workers may sleep here at a time. Others sleep in their calls, so that the heap need
/// not grow: a worker that goes to sleep does not allocate.
const SLEEPERS: usize = 4096;

/// See the module page.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    /// Ends the poller's sleep at the first deadline. Readable from then on until the poller sets
    /// it anew, so that no other look at the events can take the wake-up away from the poller.
    timer: OwnedFd,
    /// Ends the poller's sleep. Readable from [`stop`](Self::stop) on.
    stop: OwnedFd,
    /// The deadlines, CLOCK_MONOTONIC ns, and whose they are. A worker that a signal woke leaves
    /// its entry behind; it is then woken once for nothing. Never waited for: whoever finds the
    /// lock taken does without, so that a worker which the kernel stopped with it holds nobody up.
    sleepers: Mutex<BinaryHeap<Reverse<(u64, u32)>>>,
    /// The first of them; `u64::MAX`: there is none. Written with the lock held.
    first_deadline: AtomicU64,
    stopping: AtomicBool,
    /// Somebody looks for events. Whoever finds this set leaves the events to them.
    polling: AtomicBool,
    /// When somebody last looked, CLOCK_MONOTONIC ns.
    polled: AtomicU64,
    /// Where the poller sleeps while nobody needs it. Owned by the poller.
    poller: Parker,
}

impl Reactor {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers; both results are checked and owned by nobody else.
        let (epoll, timer, stop) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_CLOEXEC | libc::TFD_NONBLOCK,
                ))?,
                owned(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?,
            )
        };
        let this = Self {
            epoll,
            timer,
            stop,
            sleepers: Mutex::new(BinaryHeap::with_capacity(SLEEPERS)),
            first_deadline: AtomicU64::new(u64::MAX),
            stopping: AtomicBool::new(false),
            polling: AtomicBool::new(false),
            polled: AtomicU64::new(0),
            poller: Parker::new(),
        };
        for wakes in [&this.timer, &this.stop] {
            this.control(libc::EPOLL_CTL_ADD, wakes.as_raw_fd(), libc::EPOLLIN, WAKE)?;
        }
        Ok(this)
    }

    /// Reports once that `fd` is ready: the parker of the worker `index` is unparked, which may
    /// have gone on meanwhile. False: the descriptor cannot be waited for here.
    pub(super) fn arm(&self, fd: RawFd, writable: bool, index: u32) -> bool {
        let direction = if writable {
            libc::EPOLLOUT
        } else {
            libc::EPOLLIN | libc::EPOLLRDHUP
        };
        let events = direction | libc::EPOLLONESHOT;
        // Mostly the descriptor was waited for before. After a close and a new descriptor with the
        // same number it has to be added.
        self.control(libc::EPOLL_CTL_MOD, fd, events, index.into())
            .or_else(|_| self.control(libc::EPOLL_CTL_ADD, fd, events, index.into()))
            .is_ok()
    }

    fn control(&self, what: i32, fd: RawFd, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: a live event.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd, &raw mut event) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Has the poller wait for events and for the first deadline, because a server sleeps. Never
    /// blocks.
    pub(super) fn ensure_polled(&self) {
        // The poller may be asleep already, since before that deadline was added.
        self.set_timer();
        self.poller.unpark();
    }

    /// Has the poller end. Called when nobody is left whom it could resume.
    pub(super) fn stop(&self) {
        // Release: pairs with the Acquire in `run_poller`.
        self.stopping.store(true, Release);
        let one = 1_u64;
        // SAFETY: eight live bytes, and an open descriptor.
        unsafe { libc::write(self.stop.as_raw_fd(), ptr::from_ref(&one).cast(), 8) };
        self.poller.unpark();
    }

    /// Unparks the parker of the worker `index` at `deadline`, or soon after. False: there is no
    /// place, or somebody else is at the heap.
    pub(super) fn arm_deadline(&self, deadline: u64, index: u32) -> bool {
        let Some(mut sleepers) = self.sleepers.try_lock() else {
            return false;
        };
        if sleepers.len() == SLEEPERS {
            return false;
        }
        sleepers.push(Reverse((deadline, index)));
        self.note_first(&sleepers);
        true
    }

    fn note_first(&self, sleepers: &BinaryHeap<Reverse<(u64, u32)>>) {
        let first = sleepers
            .peek()
            .map_or(u64::MAX, |Reverse((first, _))| *first);
        // SeqCst: the poller reads it after it has entered its sleep's last look; see
        // `ensure_polled`.
        self.first_deadline.store(first, SeqCst);
    }

    /// Ends the poller's next sleep, or this one, at the first deadline. Without one, never.
    fn set_timer(&self) {
        let mut first = self.first_deadline.load(SeqCst);
        loop {
            self.set_timer_to(first);
            // Another thread may have set the timer for a newer first deadline in between. Whoever
            // sets it last has read the newest one, since each of them looks again afterwards.
            let now_first = self.first_deadline.load(SeqCst);
            if now_first == first {
                return;
            }
            first = now_first;
        }
    }

    fn set_timer_to(&self, deadline: u64) {
        // Zero disarms the timer.
        let deadline = if deadline == u64::MAX {
            0
        } else {
            deadline.max(1)
        };
        let until = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: (deadline / 1_000_000_000) as libc::time_t,
                tv_nsec: (deadline % 1_000_000_000) as libc::c_long,
            },
        };
        // SAFETY: a live time.
        unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const until,
                ptr::null_mut(),
            )
        };
    }

    /// Resumes the workers whose deadlines have passed.
    fn fire(&self, shared: &Shared, now: u64) {
        // Relaxed: a deadline that is missed here is found by the next look.
        if self.first_deadline.load(Relaxed) > now {
            return;
        }
        let Some(mut sleepers) = self.sleepers.try_lock() else {
            return;
        };
        while let Some(&Reverse((deadline, index))) = sleepers.peek() {
            if deadline > now {
                break;
            }
            sleepers.pop();
            shared.arena.get(index).io_parker().unpark();
        }
        self.note_first(&sleepers);
    }

    /// Looks for events, for `timeout` milliseconds at most; -1: until there is one.
    fn wait(&self, shared: &Shared, timeout: i32) -> usize {
        // SAFETY: all-zero events are valid.
        let mut events: [libc::epoll_event; EVENTS] = unsafe { mem::zeroed() };
        // SAFETY: a live buffer of the given length.
        let found = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as i32,
                timeout,
            )
        };
        // EINTR: the caller comes again.
        let found = usize::try_from(found).unwrap_or(0);
        for event in &events[..found] {
            let token = event.u64;
            if let Ok(index) = u32::try_from(token) {
                // The worker waits, or a token is left for its next wait, which then ends early.
                shared.arena.get(index).io_parker().unpark();
            }
        }
        found
    }

    /// Looks for events without sleeping, and resumes the workers that waited for them. `hungry`:
    /// the caller has nobody to hand its slot to. Otherwise it looks only every now and then.
    pub(super) fn poll(&self, shared: &Shared, hungry: bool) {
        // Relaxed, here and below: two looks at once are of no use, and no harm.
        let now = now_ns();
        let since = now.saturating_sub(self.polled.load(Relaxed));
        if !hungry && since < POLL_INTERVAL_NS {
            return;
        }
        // Acquire and Release: events are reported in the order in which they are found. A thread
        // that was stopped in the middle of its look, by a signal handler that sleeps, holds nobody
        // up for long.
        if self.polling.swap(true, Acquire) && since < STALE_LOOK_NS {
            return;
        }
        self.polled.store(now, Relaxed);
        self.fire(shared, now);
        self.wait(shared, 0);
        self.polling.store(false, Release);
    }
}

/// # Safety
/// `fd` is the result of a call that makes a descriptor.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open, and the caller's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Shared {
    /// The reactor, if workers are parked in it.
    pub(super) fn busy_reactor(&self) -> Option<&Reactor> {
        self.reactor
            .as_ref()
            .filter(|_| self.run_queues.parked.load(Relaxed) > 0)
    }

    /// For a server that sleeps without a worker in its slot, after a SeqCst fence.
    pub(super) fn leave_events_to_poller(&self) {
        if let Some(reactor) = &self.reactor {
            // The state of the server, its fence, then this; see the module page.
            if self.run_queues.parked.load(SeqCst) > 0 {
                reactor.ensure_polled();
            }
        }
    }

    /// Whether a server sleeps without a worker that runs: none is in its slot, or one that sleeps.
    pub(super) fn needs_poller(&self) -> bool {
        self.idle_servers.any_asleep() || self.run_queues.sleepers.any()
    }

    /// Has the poller end, if there is one.
    pub(super) fn stop_poller(&self) {
        if let Some(reactor) = &self.reactor {
            reactor.stop();
        }
    }

    /// The loop of the poller.
    pub(super) fn run_poller(self: &Arc<Self>) {
        let guard = AbortIfPanic("the poller");
        self.begin_thread();
        if let Some(reactor) = &self.reactor {
            // Acquire: pairs with the Release in `Reactor::stop`.
            while !reactor.stopping.load(Acquire) {
                ManagedWait::begin().park(&reactor.poller);
                // Before the first look the server that asked may be awake again.
                while !reactor.stopping.load(Acquire) && self.needs_poller() {
                    reactor.set_timer();
                    reactor.wait(self, -1);
                    reactor.fire(self, now_ns());
                }
            }
        }
        guard.disarm();
        self.lifecycle.remove_thread();
    }
}
