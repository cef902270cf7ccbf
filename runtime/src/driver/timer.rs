//! The thread that keeps the timers.
//!
//! Entries are sorted by deadline, ties by number. The thread sleeps until the first deadline,
//! or for good when there is none; whoever enters an earlier one wakes it. An entry that is
//! cancelled does not: the thread wakes at the deadline it knew, finds nothing due, and sleeps
//! on. So it wakes at most once per entry.
//!
//! If the system gives no thread there are no entries, and those that wait help themselves: each
//! of their polls comes back here, and the thread is tried again, after a millisecond at first
//! and up to 100 ms later (the times of the maker of workers). Nobody depends on anybody else's
//! poll in the meantime.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::OnceLock,
    task::Waker,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::events;

/// A thread that could not be made is tried again after this, doubling ...
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// ... up to this.
const LAST_RETRY: Duration = Duration::from_millis(100);

/// The timers of this process.
pub(crate) struct Driver {
    state: Mutex<State>,
    /// For the driver's thread alone: there is a new first deadline.
    earlier: Condvar,
}

struct State {
    timers: BTreeMap<Key, Waker>,
    /// The number of the next entry.
    next: u64,
    thread: Thread,
    /// Until when the thread sleeps. `None`: it is awake, or sleeps for good.
    sleeps_until: Option<Instant>,
    /// How often the thread woke, for the tests of this module.
    #[cfg(test)]
    wakes: u64,
}

/// The thread that keeps the timers.
#[derive(Debug)]
enum Thread {
    /// Made, for good.
    Running,
    /// Not made before `again`, because nobody needed it or the system had none.
    Wanted {
        again: Instant,
        /// How long to let it be after the next failure.
        pause: Duration,
    },
}

/// There is no thread that would keep a timer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoThread;

/// Names an entry. Unique: a number is not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    deadline: Instant,
    number: u64,
}

impl Driver {
    pub(crate) fn get() -> &'static Self {
        static DRIVER: OnceLock<Driver> = OnceLock::new();
        DRIVER.get_or_init(|| Self {
            state: Mutex::new(State {
                timers: BTreeMap::new(),
                next: 0,
                thread: Thread::Wanted {
                    again: Instant::now(),
                    pause: FIRST_RETRY,
                },
                sleeps_until: None,
                #[cfg(test)]
                wakes: 0,
            }),
            earlier: Condvar::new(),
        })
    }

    /// Enters a timer.
    ///
    /// # Errors
    /// The driver's thread could not be made, now or shortly before. The entry is not there
    /// then, and nobody will be woken.
    pub(crate) fn insert(&'static self, deadline: Instant, waker: Waker) -> Result<Key, NoThread> {
        let mut state = self.state.lock();
        if let Thread::Wanted { again, pause } = state.thread {
            let now = Instant::now();
            if now < again {
                return Err(NoThread);
            }
            if let Err(error) = self.start() {
                state.thread = Thread::Wanted {
                    again: now + pause,
                    pause: (pause * 2).min(LAST_RETRY),
                };
                drop(state);
                // Outside of the lock: a subscriber may use timers.
                events::no_timer_thread(&error, pause.as_millis() as u64);
                return Err(NoThread);
            }
            state.thread = Thread::Running;
        }
        let key = Key {
            deadline,
            number: state.next,
        };
        state.next += 1;
        let first = state
            .timers
            .first_key_value()
            .is_none_or(|(first, _)| key < *first);
        state.timers.insert(key, waker);
        // A sleeper that wakes earlier than this anyway is let sleep: after cancellations the
        // first entry may be later than that.
        let notify = first && state.sleeps_until.is_none_or(|until| deadline < until);
        drop(state);
        if notify {
            self.earlier.notify_one();
        }
        Ok(key)
    }

    /// Changes whom an entry wakes. False: it has fired.
    pub(crate) fn update(&self, key: Key, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let replaced = match state.timers.entry(key) {
            Entry::Occupied(entry) if entry.get().will_wake(waker) => return true,
            Entry::Occupied(mut entry) => entry.insert(waker.clone()),
            Entry::Vacant(_) => return false,
        };
        drop(state);
        // May be the last reference to a task, whose destructor is the user's.
        drop(replaced);
        true
    }

    /// Removes an entry, if it has not fired.
    pub(crate) fn remove(&self, key: Key) {
        let removed = self.state.lock().timers.remove(&key);
        // Outside of the lock, as above.
        drop(removed);
    }

    fn start(&'static self) -> io::Result<()> {
        thread::Builder::new()
            .name("umcg-timer".to_owned())
            .stack_size(128 << 10)
            .spawn(move || self.run())
            .map(drop)
    }

    fn run(&self) {
        block_signals();
        // The first timer may be made by a worker.
        umcg_sys::unmanage_current_thread();
        let mut due = Vec::new();
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            while let Some(entry) = state.timers.first_entry() {
                if entry.key().deadline > now {
                    break;
                }
                due.push(entry.remove());
            }
            if !due.is_empty() {
                state.sleeps_until = None;
                drop(state);
                for waker in due.drain(..) {
                    // A waker of a foreign executor may panic; the other timers go on.
                    crate::task::discard(std::panic::catch_unwind(std::panic::AssertUnwindSafe(
                        || waker.wake(),
                    )));
                }
                state = self.state.lock();
                continue;
            }
            let first = state.timers.first_key_value().map(|(key, _)| key.deadline);
            state.sleeps_until = first;
            match first {
                Some(deadline) => {
                    self.earlier.wait_until(&mut state, deadline);
                }
                None => self.earlier.wait(&mut state),
            }
            #[cfg(test)]
            {
                state.wakes += 1;
            }
        }
    }

    /// How many timers are armed.
    #[cfg(test)]
    pub(crate) fn armed(&self, number_at_least: u64) -> usize {
        let state = self.state.lock();
        let ours = |key: &&Key| key.number >= number_at_least;
        state.timers.keys().filter(ours).count()
    }

    #[cfg(test)]
    pub(crate) fn next_number(&self) -> u64 {
        self.state.lock().next
    }

    #[cfg(test)]
    pub(crate) fn wakes(&self) -> u64 {
        self.state.lock().wakes
    }
}

/// Signals are left to the program's own threads.
fn block_signals() {
    // SAFETY: a signal set is plain data, and live; the old one is not wanted.
    unsafe {
        let mut signals = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut signals);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
    }
}
