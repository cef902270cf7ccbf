//! One task of a test, a server or a worker: its `UmcgTask`, and what the test knows about it.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst},
};

use umcg_sys::{List, UmcgTask, state};

use crate::thread_report;

/// What a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Registered without the worker flag.
    Server,
    /// Registered with it.
    Worker,
}

/// The value of [`Record::admission`] before `register` has returned.
pub const PENDING: i32 = -1;

/// A task, and the words about it that the threads of a test share. All of them are lock-free: a
/// worker may take no lock between leaving RUNNING and `wait` (trace B10).
#[repr(C)]
pub struct Record {
    /// The task itself. It is the first field, so that its address is that of the record.
    pub task: UmcgTask,
    /// For messages.
    pub name: String,
    /// Server or worker.
    pub role: Role,
    /// The tid of the server that may take this worker after it yielded, or 0. The server takes it
    /// by a swap.
    pub offered: AtomicU32,
    /// The worker waits in the test's pool. Whoever swaps this to false owns the worker.
    pub parked: AtomicBool,
    /// The worker makes a wait that is expected to fail, so nobody owns it. If it lost its slot
    /// before that call it sleeps there, and its server may take it by a swap.
    pub stranded: AtomicBool,
    /// The last step that the body has come to. It only grows.
    pub step: AtomicU32,
    /// The answer of `register`: [`PENDING`], 0, or the errno.
    pub admission: AtomicI32,
    /// The body is done. `unregister` comes next, and wakes the server.
    pub finishing: AtomicBool,
    /// `unregister` has returned, or the body has ended as an ordinary thread.
    pub exited: AtomicBool,
    /// For servers: how often `wait` has returned.
    pub turns: AtomicU64,
}

impl Record {
    /// A record for a task that is not registered yet.
    #[must_use]
    pub fn new(name: &str, role: Role) -> Self {
        Self {
            task: UmcgTask::new(),
            name: name.to_owned(),
            role,
            offered: AtomicU32::new(0),
            parked: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
            step: AtomicU32::new(0),
            admission: AtomicI32::new(PENDING),
            finishing: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            turns: AtomicU64::new(0),
        }
    }

    /// The first 32 bytes as words of four bytes, read without the accessors: what a kernel or a
    /// debugger sees.
    #[must_use]
    pub fn raw_words(task: &UmcgTask) -> [u32; 8] {
        let base = std::ptr::from_ref(task).cast_mut().cast::<u32>();
        std::array::from_fn(|index| {
            // SAFETY: the task has at least 32 bytes of atomics; an aligned atomic read of four of
            // them is allowed beside any writer.
            unsafe { AtomicU32::from_ptr(base.add(index)) }.load(SeqCst)
        })
    }

    /// The word of `blocked_ptr` or `runnable_ptr`.
    #[must_use]
    pub fn raw_list(task: &UmcgTask, list: List) -> u64 {
        let offset = match list {
            List::Blocked => 16,
            List::Runnable => 24,
        };
        let base = std::ptr::from_ref(task).cast_mut().cast::<u8>();
        // SAFETY: as above; offsets 16 and 24 hold eight bytes and are aligned to eight.
        unsafe { AtomicU64::from_ptr(base.add(offset).cast()) }.load(SeqCst)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.task.state_word().load(SeqCst);
        let tid = self.task.tid();
        write!(
            f,
            "{:?} {:<12} tid {:<7} state {:#010x} {:<8} server {:<7} next {:<7} B {:#x} R {:#x} offered {} parked {} step {} admission {} exited {} turns {} | {}",
            self.role,
            self.name,
            tid,
            word,
            state::name(word),
            self.task.server_tid(),
            self.task.next_tid(),
            Self::raw_list(&self.task, List::Blocked),
            Self::raw_list(&self.task, List::Runnable),
            self.offered.load(SeqCst),
            self.parked.load(SeqCst),
            self.step.load(SeqCst),
            self.admission.load(SeqCst),
            self.exited.load(SeqCst),
            self.turns.load(SeqCst),
            thread_report::of_thread(std::process::id(), tid),
        )
    }
}
