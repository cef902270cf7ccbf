//! The driver: what wakes the tasks of a runtime for reasons outside of its scheduler.
//!
//! Each runtime has one [`Driver`], and the process has one more for futures that are polled
//! outside of any runtime (timers work on every executor). A driver owns a queue of timers and
//! the thread that fires them. A reactor for I/O belongs here as well: it would share the thread,
//! which would then sleep in `epoll_wait` until the first deadline, where it sleeps on a condition
//! variable today.
//!
//! # The thread
//!
//! The first timer makes the thread. While no timer is armed it sleeps without a timeout, so a
//! runtime whose tasks use no timers pays nothing. An insertion wakes the thread only if the new
//! deadline is earlier than the time until which the thread sleeps. A cancellation does not wake
//! it: the thread then wakes at the deadline that it knew, finds nothing due, and sleeps again.
//! It therefore wakes at most once for each entry.
//!
//! If the system refuses the thread, [`DriverRef::arm`] inserts nothing and returns an error. Later
//! calls try again to make the thread, 1 ms after the first failure and up to 100 ms after later
//! ones, as the worker spawner does. Meanwhile each poll of a future that waits for a deadline
//! sleeps for a moment, and then wakes its own task to be polled again; see
//! [`time::sleep`](crate::time::sleep()). So each future sees its deadline by its own polls, and
//! ends even if no other future is polled.
//!
//! # The end
//!
//! [`Driver::shut_down`] closes the queue and calls every waker that is left in it, on the calling
//! thread. The futures are polled again, find that their entry is gone, and arm a new timer: in
//! the driver of the runtime in which they are polled, or, if that one is closed too, in the
//! driver of the process. So a future of another executor that outlives the runtime in which it
//! was first polled still gets its wake-up.

mod timer;

use std::{
    collections::VecDeque,
    fmt, io,
    panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use self::timer::{Key, Timers};
use crate::{events, panic::discard};

/// The pause after the first failure to make the thread. It doubles with each further failure ...
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// ... up to this.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// The stack of the driver's thread. It runs wakers, and destructors of tasks whose last reference
/// a waker was.
const STACK_SIZE: usize = 128 << 10;

/// The driver of one runtime. Dropping it shuts it down.
pub(crate) struct Driver {
    inner: Arc<Inner>,
}

/// A reference to a driver, for one that arms a timer.
pub(crate) struct DriverRef(Arc<Inner>);

/// There is no thread that would fire a timer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoThread;

/// A timer in the queue of a driver. Dropping it cancels the timer.
pub(crate) struct ArmedTimer {
    /// The driver that has the entry, whichever runtime the future is polled in now.
    driver: Arc<Inner>,
    key: Key,
}

/// Why a driver did not take a timer.
enum Refused {
    /// There is no thread, and the last attempt to make one is too recent or failed just now.
    NoThread,
    /// The driver was shut down. The waker comes back.
    Closed(Waker),
}

struct Inner {
    /// The name of the thread.
    name: String,
    /// Held for a few instructions; never while a waker is called, cloned or dropped.
    state: Mutex<State>,
    /// Wakers whose timer has fired and that are still to be called, in their order. Filled by the
    /// driver's thread under the lock of `state`, and emptied without it, so that firing many
    /// timers does not contend with those that insert others. Not a local of that thread: a waker
    /// may end the runtime, and then wait for a task that waits for the timers behind it.
    fired: Mutex<VecDeque<Waker>>,
    /// Only the driver's thread waits here: for an earlier first deadline, or for the end.
    changed: Condvar,
}

struct State {
    timers: Timers,
    thread: Thread,
    sleep: Sleep,
    /// The driver was shut down: `timers` is empty and takes nothing more.
    closed: bool,
    /// How often the thread woke, for the tests of timers.
    #[cfg(test)]
    wakes: u64,
}

/// What the thread of a driver does.
enum Sleep {
    /// It is awake, or was notified: it looks at the queue before it sleeps again.
    Awake,
    /// It sleeps until then.
    Until(Instant),
    /// It sleeps without a timeout.
    Indefinitely,
}

/// The thread of a driver.
enum Thread {
    /// It was made. `None`: [`Driver::join`] has taken the handle.
    Made(Option<thread::JoinHandle<()>>),
    /// No timer has needed it yet, or the system refused it. It is not tried before `again`.
    Missing {
        again: Instant,
        /// The pause after the next failure.
        pause: Duration,
    },
}

/// The driver for futures that are polled outside of any runtime. It is never shut down.
pub(crate) fn process() -> &'static Driver {
    static PROCESS: OnceLock<Driver> = OnceLock::new();
    PROCESS.get_or_init(|| Driver::new("umcg"))
}

impl Driver {
    /// Another reference, which does not keep the driver from being shut down.
    pub(crate) fn reference(&self) -> DriverRef {
        DriverRef(Arc::clone(&self.inner))
    }

    /// [`DriverRef::arm`].
    pub(crate) fn arm(&self, deadline: Instant, waker: Waker) -> Result<ArmedTimer, NoThread> {
        self.reference().arm(deadline, waker)
    }

    /// A driver without a thread. The names of a runtime's threads begin with `thread_name`.
    pub(crate) fn new(thread_name: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                name: format!("{thread_name}-timer"),
                state: Mutex::new(State {
                    timers: Timers::default(),
                    thread: Thread::Missing {
                        again: Instant::now(),
                        pause: FIRST_RETRY,
                    },
                    sleep: Sleep::Awake,
                    closed: false,
                    #[cfg(test)]
                    wakes: 0,
                }),
                fired: Mutex::new(VecDeque::new()),
                changed: Condvar::new(),
            }),
        }
    }

    /// Takes no more timers, calls the wakers of those that are armed, and has the thread end.
    /// Does not wait for the thread. Idempotent.
    pub(crate) fn shut_down(&self) {
        let timers = {
            let mut state = self.inner.state.lock();
            state.closed = true;
            std::mem::take(&mut state.timers)
        };
        self.inner.changed.notify_one();
        // Here, and not on the driver's thread: that may be the thread which ends the runtime.
        self.inner.wake_fired();
        for waker in timers.into_wakers() {
            wake(waker);
        }
    }

    /// Waits for the end of the thread, after [`shut_down`](Self::shut_down). The driver's own
    /// thread, which a waker may have brought here, does not wait for itself.
    pub(crate) fn join(&self) {
        let handle = match &mut self.inner.state.lock().thread {
            Thread::Made(handle) => handle.take(),
            Thread::Missing { .. } => None,
        };
        if let Some(handle) = handle.filter(|it| it.thread().id() != thread::current().id()) {
            // Its panics were contained one by one.
            let _ = handle.join();
        }
    }

    /// How many timers are armed whose number is at least `number`.
    #[cfg(test)]
    pub(crate) fn armed(&self, number: u64) -> usize {
        self.inner.state.lock().timers.count_from(number)
    }

    /// The number of the next timer.
    #[cfg(test)]
    pub(crate) fn next_number(&self) -> u64 {
        self.inner.state.lock().timers.next_number()
    }

    /// How often the thread woke.
    #[cfg(test)]
    pub(crate) fn wakes(&self) -> u64 {
        self.inner.state.lock().wakes
    }

    /// Whether the thread was made.
    #[cfg(test)]
    pub(crate) fn has_thread(&self) -> bool {
        matches!(self.inner.state.lock().thread, Thread::Made(_))
    }
}

impl DriverRef {
    /// Arms a timer here, or in the driver of the process if this one was shut down.
    ///
    /// # Errors
    ///
    /// The thread of the driver could not be made, now or shortly before. Nothing was inserted, and
    /// nothing will call the waker.
    pub(crate) fn arm(self, deadline: Instant, waker: Waker) -> Result<ArmedTimer, NoThread> {
        match self.0.insert(deadline, waker) {
            Ok(key) => Ok(ArmedTimer {
                driver: self.0,
                key,
            }),
            Err(Refused::NoThread) => Err(NoThread),
            Err(Refused::Closed(waker)) => {
                let inner = Arc::clone(&process().inner);
                match inner.insert(deadline, waker) {
                    Ok(key) => Ok(ArmedTimer { driver: inner, key }),
                    Err(_) => Err(NoThread),
                }
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl ArmedTimer {
    /// Changes which task the timer wakes. False: the timer has fired, or its driver was shut
    /// down.
    pub(crate) fn update(&self, waker: &Waker) -> bool {
        let mut state = self.driver.state.lock();
        match state.timers.waker(self.key) {
            None => return false,
            Some(current) if current.will_wake(waker) => return true,
            Some(_) => drop(state),
        }
        // Cloned and dropped outside of the lock: both may be code of another executor, and a
        // waker may be the last reference to a task, whose destructor is user code.
        let new = waker.clone();
        let mut state = self.driver.state.lock();
        let Some(current) = state.timers.waker(self.key) else {
            return false;
        };
        let replaced = std::mem::replace(current, new);
        drop(state);
        drop(replaced);
        true
    }
}

impl Drop for ArmedTimer {
    fn drop(&mut self) {
        let removed = self.driver.state.lock().timers.remove(self.key);
        // Outside of the lock, as in `update`.
        drop(removed);
    }
}

impl Inner {
    fn insert(self: &Arc<Self>, deadline: Instant, waker: Waker) -> Result<Key, Refused> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(waker));
        }
        if let Thread::Missing { again, pause } = state.thread {
            let now = Instant::now();
            if now < again {
                drop(state);
                return Err(Refused::NoThread);
            }
            match self.start() {
                Ok(handle) => state.thread = Thread::Made(Some(handle)),
                Err(error) => {
                    state.thread = Thread::Missing {
                        again: now + pause,
                        pause: (pause * 2).min(LAST_RETRY),
                    };
                    drop(state);
                    // Outside of the lock: a subscriber may use timers.
                    events::no_timer_thread(&error, pause.as_millis() as u64);
                    return Err(Refused::NoThread);
                }
            }
        }
        let key = state.timers.insert(deadline, waker);
        let notify = match state.sleep {
            Sleep::Awake => false,
            Sleep::Until(until) => deadline < until,
            Sleep::Indefinitely => true,
        };
        if notify {
            state.sleep = Sleep::Awake;
        }
        drop(state);
        if notify {
            self.changed.notify_one();
        }
        Ok(key)
    }

    fn start(self: &Arc<Self>) -> io::Result<thread::JoinHandle<()>> {
        let inner = Arc::clone(self);
        thread::Builder::new()
            .name(self.name.clone())
            .stack_size(STACK_SIZE)
            .spawn(move || inner.run())
    }

    fn run(&self) {
        block_signals();
        // The thread may have been made by a worker, whose pin and policy it would inherit.
        umcg_sys::unmanage_current_thread();
        let mut state = self.state.lock();
        while !state.closed {
            let now = Instant::now();
            if state.timers.take_due(now, &mut self.fired.lock()) {
                drop(state);
                self.wake_fired();
                state = self.state.lock();
                // That took time: others may be due by now.
                continue;
            }
            match state.timers.first_deadline() {
                Some(deadline) => {
                    state.sleep = Sleep::Until(deadline);
                    self.changed.wait_until(&mut state, deadline);
                }
                None => {
                    state.sleep = Sleep::Indefinitely;
                    self.changed.wait(&mut state);
                }
            }
            state.sleep = Sleep::Awake;
            #[cfg(test)]
            {
                state.wakes += 1;
            }
        }
    }

    /// Calls the wakers of the timers that have fired.
    fn wake_fired(&self) {
        loop {
            let waker = self.fired.lock().pop_front();
            match waker {
                Some(waker) => wake(waker),
                None => return,
            }
        }
    }
}

/// Calls a waker. One of another executor may panic: the other timers go on.
fn wake(waker: Waker) {
    discard(catch_unwind(AssertUnwindSafe(|| waker.wake())));
}

// A panic elsewhere cannot leave a driver's state half changed: nothing that can panic runs under
// its lock.
impl UnwindSafe for ArmedTimer {}
impl RefUnwindSafe for ArmedTimer {}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// Blocks all signals on the calling thread, so that their handlers run on the program's own
/// threads.
fn block_signals() {
    // SAFETY: a signal set is plain data and lives across the calls. The old mask is not asked
    // for.
    unsafe {
        let mut signals = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut signals);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
    }
}
