//! The thread that keeps the timers.
//!
//! Entries are sorted by deadline, ties by number. The thread sleeps until the first deadline,
//! or for good when there is none; whoever enters an earlier one wakes it. An entry that is
//! cancelled does not: the thread wakes at the deadline it knew, finds nothing due, and sleeps
//! on. So it wakes at most once per entry.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::OnceLock,
    task::Waker,
    thread,
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

/// The timers of this process.
pub(super) struct Driver {
    state: Mutex<State>,
    /// For the driver's thread alone: there is a new first deadline.
    earlier: Condvar,
}

struct State {
    timers: BTreeMap<Key, Waker>,
    /// The number of the next entry.
    next: u64,
    /// The thread was made. False after a failure, which the next entry tries again.
    running: bool,
    /// Until when the thread sleeps. `None`: it is awake, or sleeps for good.
    sleeps_until: Option<Instant>,
    /// How often the thread woke, for the tests of this module.
    #[cfg(test)]
    wakes: u64,
}

/// Names an entry. Unique: a number is not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    deadline: Instant,
    number: u64,
}

impl Driver {
    pub(super) fn get() -> &'static Self {
        static DRIVER: OnceLock<Driver> = OnceLock::new();
        DRIVER.get_or_init(|| Self {
            state: Mutex::new(State {
                timers: BTreeMap::new(),
                next: 0,
                running: false,
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
    /// The driver's thread could not be made. The entry is not there then.
    pub(super) fn insert(&'static self, deadline: Instant, waker: Waker) -> io::Result<Key> {
        let mut state = self.state.lock();
        if !state.running {
            self.start()?;
            state.running = true;
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
    pub(super) fn update(&self, key: Key, waker: &Waker) -> bool {
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
    pub(super) fn remove(&self, key: Key) {
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
        be_an_ordinary_thread();
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
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
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
    pub(super) fn armed(&self, number_at_least: u64) -> usize {
        let state = self.state.lock();
        let ours = |key: &&Key| key.number >= number_at_least;
        state.timers.keys().filter(ours).count()
    }

    #[cfg(test)]
    pub(super) fn next_number(&self) -> u64 {
        self.state.lock().next
    }

    #[cfg(test)]
    pub(super) fn wakes(&self) -> u64 {
        self.state.lock().wakes
    }
}

/// The first timer may be made by a worker, which is pinned to a CPU and scheduled as batch
/// work, and a thread inherits both. The main thread is neither.
fn be_an_ordinary_thread() {
    // SAFETY: plain system calls on valid buffers of the right size. Each may be refused, which
    // costs latency and nothing else. Signals are left to the program's own threads.
    unsafe {
        let mut signals = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut signals);
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());

        let mut cpus = std::mem::zeroed::<libc::cpu_set_t>();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(libc::getpid(), size, &mut cpus) == 0 {
            libc::sched_setaffinity(0, size, &cpus);
        }
        let param = std::mem::zeroed::<libc::sched_param>();
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &param);
    }
}
