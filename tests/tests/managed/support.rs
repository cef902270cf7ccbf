//! What the tests of managed calls share.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use umcg::{Runtime, RuntimeMetrics};
use umcg_tests::{
    proc, signals,
    threads::{self, Thread},
};

/// Whether this runtime manages calls. A test of something that only managed calls do returns at
/// once if not: `UMCG_MANAGED_CALLS` is 0, or the kernel reports every block.
pub(crate) fn managed(runtime: &Runtime) -> bool {
    let metrics = runtime.metrics();
    let text = metrics.provider_description();
    let says = if metrics.managed_calls() {
        "managed calls: on"
    } else {
        "managed calls: off"
    };
    assert!(
        text.contains(says),
        "the description does not say so: {text}"
    );
    metrics.managed_calls()
}

/// How many blocks the runtime has seen: those that workers announced or spent in their gates,
/// and those that somebody else noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) announced: u64,
    pub(crate) noticed: u64,
}

impl Blocks {
    pub(crate) fn of(metrics: &RuntimeMetrics) -> Self {
        let counters = metrics.provider();
        Self {
            announced: counters.blocks_announced + metrics.parked_blocks_count(),
            noticed: counters.blocks_kernel
                + counters.blocks_sentinel
                + counters.blocks_monitor
                + counters.blocks_sibling,
        }
    }

    /// What has been added since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            announced: self.announced - before.announced,
            noticed: self.noticed - before.noticed,
        }
    }
}

/// Where a thread writes its id, for others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tid(Arc<AtomicU32>);

impl Tid {
    pub(crate) fn tell(&self) {
        self.0.store(umcg_sys::gettid(), SeqCst);
    }

    /// Sends a signal to the thread.
    pub(crate) fn send(&self, signal: i32) {
        signals::send(self.0.load(SeqCst), signal);
    }

    /// The id that the thread has told. For `managed_order`.
    #[allow(dead_code)]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(SeqCst)
    }

    /// The state of the thread, and how often it has slept. `managed_order` wants to know.
    #[allow(dead_code)]
    pub(crate) fn look(&self) -> Option<Thread> {
        threads::look(self.0.load(SeqCst))
    }

    /// Whether the thread has told its id, and sleeps in the kernel.
    pub(crate) fn asleep(&self) -> bool {
        let tid = self.0.load(SeqCst);
        tid != 0 && proc::asleep(tid)
    }
}

/// Lets other threads of this CPU run, and keeps the slot: the system call itself, which is no
/// yield of the worker.
pub(crate) fn yield_cpu() {
    // SAFETY: no arguments.
    unsafe {
        libc::syscall(libc::SYS_sched_yield);
    }
}

/// `recv` of one byte. It sleeps until there is one.
pub(crate) fn receive(socket: &impl AsRawFd) -> io::Result<u8> {
    let mut byte = 0_u8;
    // SAFETY: room for one byte.
    let received = unsafe { libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, 0) };
    match received {
        1 => Ok(byte),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Forks. `child` runs in the child, may make system calls and use memory that exists, and must not
/// return.
pub(crate) fn fork(child: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the promise of the caller.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        // SAFETY: ends the process.
        unsafe { libc::_exit(125) };
    }
    assert!(pid > 0, "fork: {}", io::Error::last_os_error());
    pid
}
