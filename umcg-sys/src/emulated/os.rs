//! Wrappers of system calls: affinity, scheduling policy, time slices, signals, the state of a
//! thread. Nothing here belongs to the protocol.

use std::{io, mem, sync::OnceLock};

/// One more than the largest CPU number that is handled.
pub(crate) const MAX_CPUS: usize = 4096;

/// A set of CPU numbers below [`MAX_CPUS`], a bit for each: the layout of the system calls. The
/// type of libc, `cpu_set_t`, ends at 1024.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CpuSet([u64; MAX_CPUS / 64]);

impl CpuSet {
    fn empty() -> Self {
        Self([0; MAX_CPUS / 64])
    }

    /// The set of one CPU.
    pub(crate) fn only(cpu: usize) -> Self {
        let mut set = Self::empty();
        set.0[cpu / 64] |= 1 << (cpu % 64);
        set
    }

    pub(crate) fn contains(&self, cpu: usize) -> bool {
        cpu < MAX_CPUS && self.0[cpu / 64] & (1 << (cpu % 64)) != 0
    }

    /// The CPU numbers, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..MAX_CPUS).filter(|&cpu| self.contains(cpu))
    }

    /// Writes the set into `bytes`, in the layout of the system calls.
    pub(crate) fn copy_to(&self, bytes: &mut [u8]) {
        let set = self.0.iter().flat_map(|word| word.to_ne_bytes());
        for (byte, of_set) in bytes.iter_mut().zip(set.chain(std::iter::repeat(0))) {
            *byte = of_set;
        }
    }

    /// The affinity mask of a thread; 0 is the calling one.
    pub(crate) fn of(tid: u32) -> io::Result<Self> {
        let mut set = Self::empty();
        // SAFETY: a live buffer of the given size, and the kernel writes no more than that.
        let result = unsafe {
            libc::syscall(
                libc::SYS_sched_getaffinity,
                tid,
                mem::size_of_val(&set.0),
                &raw mut set.0,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(set)
        }
    }

    /// Makes this the affinity mask of a thread; 0 is the calling one. Async-signal-safe, since it
    /// is one system call.
    pub(crate) fn apply(&self, tid: u32) -> io::Result<()> {
        // SAFETY: a live buffer of the given size, which the kernel only reads.
        let result = unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                tid,
                mem::size_of_val(&self.0),
                &raw const self.0,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// The affinity mask of the first thread that called this, before any thread was pinned. Child
/// processes and threads that are not pinned any more get it back.
pub(crate) fn original_mask() -> &'static CpuSet {
    static MASK: OnceLock<CpuSet> = OnceLock::new();
    MASK.get_or_init(|| CpuSet::of(0).unwrap_or_else(|_| CpuSet::only(0)))
}

/// The CPU that the caller runs on right now.
pub(crate) fn this_cpu() -> usize {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() }.max(0) as usize
}

/// Gives a thread a scheduling policy, with priority 0. A `tid` of 0 is the calling thread.
pub(crate) fn set_policy(tid: u32, policy: i32) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: a live parameter block.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setscheduler, tid, policy, &raw const param) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The calling thread's policy.
pub(crate) fn policy() -> i32 {
    // SAFETY: no pointers; 0 is the caller.
    unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) as i32 }
}

/// `struct sched_attr` of sched_setattr(2), in its first version. `runtime` is the time slice of a
/// SCHED_OTHER or SCHED_BATCH thread, in nanoseconds.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The time slice of workers and servers, in nanoseconds.
///
/// Measured beside another busy process (Linux 6.18, 250 Hz, a default slice of 1.4 ms): with a
/// slice of 1 ms a worker gets its turn within 0.1 ms, where SCHED_BATCH with the default slice
/// takes 4 ms (trace B3). Spawning and joining a thread takes 0.33 ms with slices of 1 ms, 0.52 ms
/// with the default slice for servers, and 0.64 ms with the shortest slice, 0.1 ms.
pub(crate) const SLICE_NS: u64 = 1_000_000;

/// Makes the calling thread SCHED_BATCH with a slice of [`SLICE_NS`]. Workers then do not preempt
/// each other, preempt the sentinel, and get their turn beside other processes. Keeps the nice
/// value.
///
/// `Ok(false)`: the thread is SCHED_BATCH, and has no slice because the kernel is older than 6.12
/// or a sandbox refused it.
pub(crate) fn become_worker() -> io::Result<bool> {
    // SAFETY: the calling thread's nice value.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_BATCH as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: SLICE_NS,
        deadline: 0,
        period: 0,
    };
    // SAFETY: a live attribute block of the size that it names.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 {
        return Ok(slices_work());
    }
    set_policy(0, libc::SCHED_BATCH).map(|()| false)
}

/// Gives a worker another policy, with its slice and nice value.
pub(crate) fn change_policy(tid: u32, policy: i32) -> io::Result<()> {
    let mut attr = attributes(tid).ok_or_else(io::Error::last_os_error)?;
    attr.size = size_of::<SchedAttr>() as u32;
    attr.policy = policy as u32;
    attr.runtime = SLICE_NS;
    // SAFETY: a live attribute block of the size that it names.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const attr, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The scheduling attributes of a thread; 0 is the calling one.
fn attributes(tid: u32) -> Option<SchedAttr> {
    // SAFETY: an all-zero attribute block is valid, and the call fills it.
    let mut attr: SchedAttr = unsafe { mem::zeroed() };
    let size = size_of::<SchedAttr>();
    // SAFETY: a live buffer of the given size.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, tid, &raw mut attr, size, 0) };
    (result == 0).then_some(attr)
}

/// The calling thread's time slice in nanoseconds; 0 if the kernel has none for it.
pub(crate) fn slice() -> u64 {
    attributes(0).map_or(0, |attr| attr.runtime)
}

/// Gives the calling thread a time slice in nanoseconds, if its policy has slices; 0 is the
/// kernel's default. If this is refused the thread keeps its slice, and switches are slower.
pub(crate) fn set_slice(ns: u64) {
    let Some(mut attr) = attributes(0) else {
        return;
    };
    if !matches!(attr.policy as i32, libc::SCHED_OTHER | libc::SCHED_BATCH) {
        return;
    }
    attr.size = size_of::<SchedAttr>() as u32;
    attr.runtime = ns;
    // SAFETY: a live attribute block of the size that it names.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

/// Whether the kernel takes the slice of a SCHED_OTHER or SCHED_BATCH thread from `sched_runtime`,
/// as it does since 6.12. Older kernels ignore it without an error. Found out once, in a thread
/// that has asked for a slice.
fn slices_work() -> bool {
    static WORK: OnceLock<bool> = OnceLock::new();
    *WORK.get_or_init(|| slice() == SLICE_NS)
}

/// Blocks all signals in the calling thread, and returns the old mask. A thread that is started now
/// begins with all signals blocked.
pub(crate) fn block_signals() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid, and the calls write to live sets.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        let mut old: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        old
    }
}

/// Restores the signal mask that [`block_signals`] returned.
pub(crate) fn restore_signals(old: &libc::sigset_t) {
    // SAFETY: a set from `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, core::ptr::null_mut()) };
}

/// Starts a helper thread, with all signals blocked from its first instruction on, because a signal
/// handler of the application must not run at a sentinel's priority (trace A5).
pub(crate) fn start_helper(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<std::thread::JoinHandle<()>> {
    let old = block_signals();
    let handle = std::thread::Builder::new()
        .name(name)
        .stack_size(64 * 1024)
        .spawn(body);
    restore_signals(&old);
    handle
}

/// Sleeps for this many nanoseconds. A signal ends the sleep early.
pub(crate) fn nap(ns: u64) {
    let time = libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: a live timespec. A null pointer means that the remaining time is not wanted.
    unsafe { libc::nanosleep(&raw const time, core::ptr::null_mut()) };
}

/// Sets the calling thread's timer slack to 1 ns. With the default of 50 us each nap would last up
/// to 50 us longer, because the kernel coalesces timers.
pub(crate) fn sharp_timers() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}

/// What another thread does, according to `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadState {
    /// S, D, T or t: it sleeps, or is stopped.
    Asleep,
    /// Any other state: it runs, waits for a CPU, or has ended.
    Awake,
    /// Not known: there is no `/proc`, no free descriptor, or no such thread.
    Unknown,
}

/// Reads the state in `/proc/self/task/TID/stat`. Opening, reading and closing it takes 2.7 us and
/// allocates nothing. Descriptors are not kept, since one for each worker would be too many (trace
/// B5).
pub(crate) fn thread_state(tid: u32) -> ThreadState {
    let mut path = [0_u8; 48];
    {
        use std::io::Write;
        let mut rest = &mut path[..47];
        if write!(rest, "/proc/self/task/{tid}/stat").is_err() {
            return ThreadState::Unknown;
        }
    }
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return ThreadState::Unknown;
    }
    let mut text = [0_u8; 128];
    // SAFETY: an open descriptor and a live buffer.
    let length = unsafe { libc::read(fd, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: a descriptor that was opened above and is used nowhere else.
    unsafe { libc::close(fd) };
    // "TID (name) STATE ...". The name may contain any bytes, also ')', so the last ')' counts. A
    // name has at most 15 bytes, so its end is in the buffer.
    let text = &text[..length.max(0) as usize];
    let Some(end) = text.iter().rposition(|&byte| byte == b')') else {
        return ThreadState::Unknown;
    };
    match text.get(end + 2) {
        Some(b'S' | b'D' | b'T' | b't') => ThreadState::Asleep,
        Some(_) => ThreadState::Awake,
        None => ThreadState::Unknown,
    }
}

/// The CPU time of a thread of this process, in nanoseconds. Needs neither `/proc` nor a
/// descriptor.
pub(crate) fn cpu_time(tid: u32) -> Option<u64> {
    // The clock id of a thread's CPU clock: ~tid << 3, with the bits "of one thread" (4) and "as
    // the scheduler counts" (2).
    let clock = ((!(tid as i32)) << 3) | 6;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a live timespec. For a clock that does not exist the call fails.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (result == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// How often the calling thread lost its CPU although it could have run on, for example by
/// `sched_yield`; 0 if the kernel does not say.
pub(crate) fn times_switched_away() -> u64 {
    // SAFETY: an all-zero `rusage` is valid, and the call fills a live one.
    let (result, usage) = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        (libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), usage)
    };
    if result == 0 {
        usage.ru_nivcsw as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_reads_asleep_and_a_spinner_awake() {
        let (tids, told) = std::sync::mpsc::channel();
        let (done, until) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            tids.send(crate::gettid()).unwrap();
            let _ = until.recv();
        });
        let tid = told.recv().unwrap();
        let begin = std::time::Instant::now();
        while thread_state(tid) != ThreadState::Asleep {
            assert!(
                begin.elapsed().as_secs() < 10,
                "a thread in recv never reads as asleep"
            );
            std::thread::yield_now();
        }
        drop(done);
        sleeper.join().unwrap();
        assert_eq!(thread_state(crate::gettid()), ThreadState::Awake);
        assert_eq!(thread_state(0x3f_fffe), ThreadState::Unknown);
    }

    #[test]
    fn cpu_time_of_this_thread_advances() {
        let before = cpu_time(crate::gettid()).unwrap();
        let mut after = before;
        while after == before {
            after = cpu_time(crate::gettid()).unwrap();
        }
        assert!(after > before);
    }

    #[test]
    fn the_mask_holds_the_cpu_we_run_on() {
        let mask = CpuSet::of(0).unwrap();
        assert!(mask.contains(this_cpu()) || mask.iter().count() > 1);
        assert!(CpuSet::only(63).contains(63) && !CpuSet::only(63).contains(64));
    }
}
