//! Which descriptors workers wait for elsewhere than in the call itself.
//!
//! *Problem.* A worker that finds nothing to receive may leave the wait to its scheduler and sleep
//! there ([`Worker::park`](crate::Worker::park)): it is woken when the descriptor is ready, and
//! repeats a call that cannot sleep. But a descriptor is only a number. If another thread closes it
//! while the worker sleeps, and a third one opens something else that gets the same number, the
//! worker would take a stranger's bytes. The kernel's own `recv` does not: it keeps the open file
//! for as long as it sleeps.
//!
//! *Mechanism.* A table has one word for each descriptor. It is 0, or the address of the one
//! [`Waiter`] of that descriptor, with the bit [`BUSY`] while somebody works with it. The worker
//! sets `BUSY` while it repeats its call. A thread that closes the descriptor sets it too,
//! duplicates the descriptor for the worker, takes the word to 0, and only then closes. From there
//! on the worker's descriptor is the duplicate, which it closes in the end. A worker that finds
//! another one's word does not wait here but in the call, as it would without a scheduler. A worker
//! that has waited here and has to go on waiting in the call makes that call on a duplicate, too.
//!
//! *Why it is correct.* `BUSY` excludes a repeated call and a close from each other, so a call is
//! made either before the close, on the old file, or after it, on the duplicate, which is the same
//! file. The thread that closes touches the waiter only while it has `BUSY`, and the waiter, which
//! is on its worker's stack, does not end before the word is no longer its own and without `BUSY`.
//!
//! *Children.* The table is empty in a forked child, whose descriptors and memory are its own. The
//! child of a `vfork` has descriptors of its own but shares the memory, so a close compares process
//! ids before it touches a waiter.
//!
//! *What is left.* A close that is not seen (a raw system call, or inside libc, as in `fclose`)
//! leaves the worker with the number, and takes its registration with epoll away: if the other end
//! then says nothing, the worker sleeps on, as it would in the kernel, but it may also miss that
//! the other end has gone. Programs that close a descriptor under another thread in that way had a
//! race before, since a call may just be about to begin.

use std::{
    cell::Cell,
    sync::atomic::{
        AtomicI32, AtomicPtr, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use libc::{c_int, pid_t};

use crate::{
    Waker,
    raw::raw,
    worker::{errno, set_errno},
};

/// The worker's descriptor was closed, and there is no duplicate: a number that no descriptor has.
const CLOSED: c_int = -2;

/// Descriptors from this number on are not in the table. The memory of the table, 8 bytes each, is
/// used page by page as descriptors are waited for.
const DESCRIPTORS: usize = 1 << 20;

/// Somebody works with the waiter: its worker repeats a call, or another thread closes the
/// descriptor.
const BUSY: usize = 1;

/// The first word of the table; null: none was made. Written by [`prepare`].
static TABLE: AtomicPtr<AtomicUsize> = AtomicPtr::new(std::ptr::null_mut());

/// The word behind those of the descriptors: the id of the process that waits, or 0. In the mapping
/// of the table, so that it is 0 in a forked child.
const PROCESS: usize = DESCRIPTORS;

/// Makes the table. Without one, for lack of memory, no worker waits elsewhere than in its calls.
pub(crate) fn prepare() {
    if !TABLE.load(Relaxed).is_null() {
        return;
    }
    // SAFETY: a new private mapping, which is zero: words of value 0. It stays to the process's
    // end.
    let table = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            TABLE_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if table == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the mapping from above.
    if unsafe { libc::madvise(table, TABLE_SIZE, libc::MADV_WIPEONFORK) } == 0 {
        // Release: pairs with the Acquire in `word`.
        TABLE.store(table.cast(), Release);
        if let Some(process) = word_at(PROCESS) {
            process.store(getpid(), Relaxed);
        }
    }
}

const TABLE_SIZE: usize = (DESCRIPTORS + 1) * size_of::<AtomicUsize>();

/// The word of a descriptor.
#[inline(always)]
fn word(fd: c_int) -> Option<&'static AtomicUsize> {
    word_at(usize::try_from(fd).ok().filter(|&fd| fd < DESCRIPTORS)?)
}

#[inline(always)]
fn word_at(index: usize) -> Option<&'static AtomicUsize> {
    // Acquire: pairs with the Release in `prepare`.
    let table = TABLE.load(Acquire);
    if table.is_null() {
        return None;
    }
    // SAFETY: below the table's length, and the table is never unmapped.
    Some(unsafe { &*table.add(index) })
}

/// A worker that waits for a descriptor elsewhere than in the call.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// The descriptor as the program knows it.
    fd: c_int,
    /// The worker's thread.
    tid: pid_t,
    /// Has the worker look once more.
    waker: Waker,
    /// The duplicate that a thread left which closed `fd`, or that the worker has made itself; -1:
    /// nobody has; [`CLOSED`]: there was no descriptor for one. Written once, with `BUSY`.
    duplicate: AtomicI32,
    /// This waiter is in the table, as far as its worker knows.
    listed: Cell<bool>,
    /// The worker has set `BUSY` and repeats its call. Still true when the waiter is dropped
    /// because the thread was cancelled in that call.
    calling: Cell<bool>,
}

impl Waiter {
    /// A waiter for `fd`, which is in no table yet.
    pub(crate) fn new(fd: c_int, waker: Waker) -> Self {
        Self {
            fd,
            tid: gettid(),
            waker,
            duplicate: AtomicI32::new(-1),
            listed: Cell::new(false),
            calling: Cell::new(false),
        }
    }

    /// Enters the table. False: another worker waits for the descriptor already, or it is not in
    /// the table. The waiter must not be moved until it is dropped.
    pub(crate) fn enter(&self) -> bool {
        let own = getpid();
        let is_own = word_at(PROCESS).is_some_and(|process| {
            // Relaxed: compared with the caller's own. 0: in a forked child.
            process
                .compare_exchange(0, own, Relaxed, Relaxed)
                .map_or_else(|process| process == own, |_| true)
        });
        if !is_own {
            // The child of a `vfork`.
            return false;
        }
        let entered = word(self.fd).is_some_and(|word| {
            // Release: the waiter's fields; pairs with the Acquire in `before_close`.
            word.compare_exchange(0, self.address(), AcqRel, Relaxed)
                .is_ok()
        });
        self.listed.set(entered);
        entered
    }

    /// The descriptor as the program knew it.
    pub(crate) fn fd(&self) -> c_int {
        self.fd
    }

    /// The same, unless it was closed meanwhile, as far as the worker knows.
    pub(crate) fn original(&self) -> Option<c_int> {
        self.listed.get().then_some(self.fd)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }

    /// Calls `f` with the descriptor of the file that the worker waits for, while nobody can close
    /// it under the call.
    pub(crate) fn attempt<R>(&self, f: impl FnOnce(c_int) -> R) -> R {
        // Before the lock: a signal handler may close the descriptor right after it.
        OWN.set(self.address());
        let locked = self.lock();
        self.calling.set(locked.is_some());
        let result = f(self.current());
        self.calling.set(false);
        if let Some(word) = locked {
            // Release: pairs with the Acquire of the thread that closes next.
            word.store(self.address(), Release);
        }
        OWN.set(0);
        result
    }

    /// The descriptor of the file: `fd`, or the duplicate once `fd` was closed.
    fn current(&self) -> c_int {
        // Relaxed: `lock` has ordered it.
        match self.duplicate.load(Relaxed) {
            -1 => self.fd,
            duplicate => duplicate,
        }
    }

    /// Gives the worker, which has waited already, a descriptor of its own for a call that may
    /// sleep. Otherwise the descriptor could be closed, and its number be reused, before that call
    /// begins, while the program has been waiting in its call all the time.
    pub(crate) fn keep_file(&self) {
        self.attempt(|fd| {
            // Relaxed: `lock` has ordered it.
            if self.duplicate.load(Relaxed) == -1 {
                // SAFETY: no pointers.
                let duplicate = unsafe { raw!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 3) };
                // Without a free descriptor the call has the program's one: -1 says so.
                self.duplicate.store(duplicate as c_int, Relaxed);
            }
        });
    }

    /// The duplicate, if the descriptor was closed meanwhile, for a call that may sleep. The number
    /// is valid until the waiter is dropped. `None`: the descriptor is the program's.
    pub(crate) fn leave(&self) -> Option<c_int> {
        OWN.set(self.address());
        let locked = if self.calling.get() {
            word(self.fd)
        } else {
            self.lock()
        };
        if let Some(word) = locked {
            // Release: pairs with the Acquire of a thread that looks next.
            word.store(0, Release);
            self.listed.set(false);
        }
        OWN.set(0);
        // Relaxed: as in `current`.
        let duplicate = self.duplicate.load(Relaxed);
        (duplicate != -1).then_some(duplicate)
    }

    /// Sets `BUSY`. `None`: this waiter is not in the table, or no longer.
    fn lock(&self) -> Option<&'static AtomicUsize> {
        if !self.listed.get() {
            return None;
        }
        let word = word(self.fd)?;
        loop {
            // Acquire: what the thread that closed has written; pairs with its Release.
            let seen = word.load(Acquire);
            if seen == self.address() {
                if word
                    .compare_exchange(seen, seen | BUSY, AcqRel, Relaxed)
                    .is_ok()
                {
                    return Some(word);
                }
            } else if seen == self.address() | BUSY {
                // Between two system calls of the thread that closes.
                give_way();
            } else {
                // The descriptor was closed, and the number may be somebody else's.
                self.listed.set(false);
                return None;
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(duplicate) = self.leave() {
            let before = errno();
            // SAFETY: this waiter's own descriptor.
            unsafe { raw!(libc::SYS_close, duplicate) };
            set_errno(before);
        }
    }
}

/// Whether a worker waits for `fd` elsewhere than in the call.
#[inline(always)]
pub(crate) fn is_waited_for(fd: c_int) -> bool {
    // Relaxed: a worker that enters at this moment is one that calls after the close.
    word(fd).is_some_and(|word| word.load(Relaxed) != 0)
}

/// Gives the worker that waits for `fd`, if there is one, a descriptor of its own for the file.
/// `fd` is about to be closed by the calling thread.
#[cold]
pub(crate) fn before_close(fd: c_int) {
    let Some(word) = word(fd) else { return };
    if word_at(PROCESS).is_none_or(|process| process.load(Relaxed) != getpid()) {
        // The child of a `vfork`: the descriptor is another process's.
        return;
    }
    loop {
        // Acquire: pairs with the Release in `enter`, and in `attempt`.
        let seen = word.load(Acquire);
        if seen == 0 {
            return;
        }
        if seen & BUSY == 0 {
            if word
                .compare_exchange(seen, seen | BUSY, AcqRel, Relaxed)
                .is_err()
            {
                continue;
            }
            // SAFETY: the waiter is not dropped while the word is its own with BUSY.
            let waiter = unsafe { &*std::ptr::with_exposed_provenance::<Waiter>(seen) };
            if waiter.tid == gettid() {
                // A signal handler on the worker's own thread closes what the worker waits for;
                // `after_close` wakes the worker.
                // Whatever the handler's program expects, it is not to get the old file.
                word.store(seen, Release);
                return;
            }
            let before = errno();
            // SAFETY: no pointers.
            let duplicate = unsafe { raw!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 3) };
            set_errno(before);
            // Without a free descriptor the worker's call fails with EBADF.
            let duplicate = match duplicate as c_int {
                -1 => CLOSED,
                duplicate => duplicate,
            };
            waiter.duplicate.store(duplicate, Relaxed);
            // Its epoll registration may go, or be another worker's next: it looks for itself.
            (waiter.waker.call)(waiter.waker.argument);
            // Release: the duplicate; pairs with the Acquire in `lock`. From here on the waiter may
            // be gone.
            word.store(0, Release);
            return;
        }
        if is_own_waiter(seen) {
            // A signal handler that interrupted the worker's repeated call.
            return;
        }
        give_way();
    }
}

/// `fd` was closed by the calling thread. Wakes a worker that waits for the number: it may have
/// begun to wait just before the close, or be the one that a signal handler of this thread has
/// interrupted. It then learns from its call what became of the descriptor.
#[cold]
pub(crate) fn after_close(fd: c_int) {
    let Some(word) = word(fd) else { return };
    if word_at(PROCESS).is_none_or(|process| process.load(Relaxed) != getpid()) {
        return;
    }
    loop {
        // Acquire: as in `before_close`.
        let seen = word.load(Acquire);
        if seen == 0 || (seen & BUSY != 0 && is_own_waiter(seen)) {
            return;
        }
        if seen & BUSY == 0
            && word
                .compare_exchange(seen, seen | BUSY, AcqRel, Relaxed)
                .is_ok()
        {
            // SAFETY: as in `before_close`.
            let waiter = unsafe { &*std::ptr::with_exposed_provenance::<Waiter>(seen) };
            (waiter.waker.call)(waiter.waker.argument);
            // Release: pairs with the Acquire in `lock`.
            word.store(seen, Release);
            return;
        }
        give_way();
    }
}

/// [`after_close`] for all descriptors from `first` to `last`.
pub(crate) fn after_close_range(first: u32, last: u32) {
    for_each_waited_for(first, last, after_close);
}

/// [`before_close`] for all descriptors from `first` to `last`.
pub(crate) fn before_close_range(first: u32, last: u32) {
    for_each_waited_for(first, last, before_close);
}

fn for_each_waited_for(first: u32, last: u32, f: impl Fn(c_int)) {
    if TABLE.load(Acquire).is_null() {
        return;
    }
    // SAFETY: a live limit.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        u32::try_from(limit.rlim_max).unwrap_or(u32::MAX)
    };
    for fd in first..=last.min(limit).min(DESCRIPTORS as u32 - 1) {
        if is_waited_for(fd as c_int) {
            f(fd as c_int);
        }
    }
}

thread_local! {
    /// The waiter with which this thread repeats a call; 0: none.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

fn is_own_waiter(word: usize) -> bool {
    OWN.get() == word & !BUSY
}

fn getpid() -> usize {
    // SAFETY: no arguments.
    unsafe { raw!(libc::SYS_getpid) as usize }
}

fn gettid() -> pid_t {
    // SAFETY: no arguments.
    unsafe { raw!(libc::SYS_gettid) as pid_t }
}

fn give_way() {
    // SAFETY: no arguments.
    unsafe { raw!(libc::SYS_sched_yield) };
}
