//! Which CPU a server gets, and how its workers follow it there.
//!
//! The provider does without whatever the system refuses: the kernel then places the threads, and
//! the monitor sees the blocks. No call fails because of that. So it is noted, and `describe` says
//! it ([`lacks`]).
//!
//! All words here are Relaxed: they are hints and statistics, and order nothing.

use std::{
    io,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{
    helpers::{cpus, sentinel},
    os,
    packed::Index,
    record::Record,
    registry::{REGISTRY, RecordGuard, Registry},
};
use crate::Placement;

/// The lock of the CPU table. It is held while a CPU is chosen, so that the servers of all runtimes
/// of a process spread over the machine.
static TABLE: Mutex<()> = Mutex::new(());

fn table() -> MutexGuard<'static, ()> {
    TABLE.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Something that the system refused, or took away, after the self-test had found that it works. A
/// bit of [`LACKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// A server or a worker could not be pinned.
    Pin = 1,
    /// A sentinel could not be made SCHED_IDLE.
    Sentinel = 2,
    /// A CPU is not in the cpuset any more.
    Cpu = 4,
}

/// Everything that was refused so far, as bits of [`Lack`]. A bit is never cleared, because a
/// refusal long ago may be the reason why a server has no sentinel now.
static LACKS: AtomicU32 = AtomicU32::new(0);

impl Lack {
    /// Notes it in [`LACKS`].
    fn note(self) {
        // Mostly the bit is set already, and a dispatch of each worker may come here.
        if LACKS.load(Relaxed) & self as u32 == 0 {
            LACKS.fetch_or(self as u32, Relaxed);
        }
    }
}

/// What this process has to do without, as the end of a sentence; empty if there is nothing.
pub(crate) fn lacks() -> String {
    sentence(LACKS.load(Relaxed), NO_SLICES.load(Relaxed) != 0)
}

fn sentence(lacks: u32, no_slices: bool) -> String {
    let mut text = String::new();
    for (lack, says) in [
        (
            Lack::Pin,
            "; sched_setaffinity was refused: servers and workers that came then are not pinned, \
             and the monitor thread sees their blocks",
        ),
        (
            Lack::Sentinel,
            "; SCHED_IDLE was refused: servers that came then have no sentinel, and the monitor \
             thread sees their blocks",
        ),
        (
            Lack::Cpu,
            "; a CPU was taken away: its servers are not pinned any more, and the monitor thread \
             sees their blocks",
        ),
    ] {
        if lacks & lack as u32 != 0 {
            text.push_str(says);
        }
    }
    if no_slices {
        text.push_str(
            "; workers have no time slice of 1 ms (Linux before 6.12, or refused): they wait \
             longer for their turn on busy CPUs",
        );
    }
    text
}

/// Pins the calling thread, a server, to a CPU, with a sentinel that watches its slot. `None`: the
/// server is not pinned, and only the monitor watches it. [`unpin_server`] undoes this.
///
/// # Errors
/// EINVAL: the CPU is not in the thread's affinity mask. EAGAIN: there is no thread for the
/// sentinel, or 64 servers are pinned to that CPU already.
pub(crate) fn pin_server(server: Index, placement: Placement) -> io::Result<Option<usize>> {
    let _table = table();
    let mask = os::CpuSet::of(0).unwrap_or_else(|_| os::original_mask().clone());
    let number = match placement {
        Placement::Unpinned => return Ok(None),
        Placement::Cpu(number) if mask.contains(number) => number,
        Placement::Cpu(_) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        Placement::Auto => choose(&mask),
    };
    // If a sandbox refuses this, the server can only be unpinned.
    if let Err(error) = os::CpuSet::only(number).apply(0) {
        return if placement == Placement::Auto {
            Lack::Pin.note();
            Ok(None)
        } else {
            Err(error)
        };
    }
    let cpu = cpus::cpu(number);
    if !matches!(sentinel::self_test(number), sentinel::Confirmation::None(_)) {
        match cpu.attach(number, server) {
            // There is no thread, or no place for another server.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM)) => {
                return Err(error);
            }
            // A sandbox that was entered after the self-test refuses SCHED_IDLE, with whatever
            // errno. Then there is no sentinel, and the monitor sees the blocks.
            Err(_) => Lack::Sentinel.note(),
            Ok(()) => {}
        }
    }
    cpu.enter();
    Ok(Some(number))
}

/// The CPU of the mask to which the fewest servers of this process are pinned. Which one of several
/// equal CPUs depends on the process. If it were always the first, the containers of one host would
/// crowd there.
fn choose(mask: &os::CpuSet) -> usize {
    let cpus: Vec<usize> = mask.iter().collect();
    let start = process_offset() % cpus.len().max(1);
    (0..cpus.len())
        .map(|i| cpus[(start + i) % cpus.len()])
        .min_by_key(|&number| cpus::cpu(number).pinned())
        .unwrap_or(0)
}

/// A random number that stays the same in one process.
fn process_offset() -> usize {
    use std::{
        collections::hash_map::RandomState,
        hash::{BuildHasher, Hasher},
        sync::OnceLock,
    };
    static OFFSET: OnceLock<usize> = OnceLock::new();
    *OFFSET.get_or_init(|| RandomState::new().build_hasher().finish() as usize)
}

/// Takes a server from its CPU, if it still has one. The thread keeps its affinity.
pub(crate) fn unpin_server(server: Index) {
    // A swap, because another thread may be in `give_up_cpu`: one of the two gets the number.
    let Ok(number) = usize::try_from(REGISTRY.record(server).cpu.swap(-1, Relaxed)) else {
        return;
    };
    let _table = table();
    cpus::cpu(number).detach(server);
    cpus::cpu(number).exit();
}

impl Registry {
    /// Moves a worker to its server's CPU, and gives it the policy that suits that CPU. A
    /// dispatcher does this while the worker sleeps in its gate, where it costs 0.4 us; moving a
    /// running thread costs 50 us (trace B9). Also for the calling worker itself.
    pub(crate) fn follow_server(&self, worker: &Record, server: &RecordGuard<'_>) {
        let tid = worker.tid.load(Relaxed);
        let cpu = server.cpu.load(Relaxed);
        if worker.cpu.load(Relaxed) != cpu {
            let moved = if cpu >= 0 {
                os::CpuSet::only(cpu as usize).apply(tid)
            } else {
                os::original_mask().apply(tid)
            };
            match moved {
                Ok(()) => worker.cpu.store(cpu, Relaxed),
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    give_up_cpu(server, cpu);
                    // The worker may still be pinned to another server's CPU. If this fails too,
                    // the kernel has moved the worker to a CPU on which it may run.
                    let _ = os::original_mask().apply(tid);
                    worker.cpu.store(-1, Relaxed);
                }
                // A sandbox refuses it. The worker runs where it is.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => Lack::Pin.note(),
                // The thread has just ended.
                Err(_) => {}
            }
        }
        // Beside a busy process a SCHED_BATCH thread that wakes up waits for the next tick of that
        // process, up to 4 ms; a SCHED_OTHER thread runs at once (trace B3).
        let contended = server.contended.load(Relaxed);
        if worker.sched_other.load(Relaxed) != contended {
            worker.sched_other.store(contended, Relaxed);
            let policy = if contended != 0 {
                libc::SCHED_OTHER
            } else {
                libc::SCHED_BATCH
            };
            let _ = os::change_policy(tid, policy);
        }
    }

    /// Moves the calling worker back to its server's CPU. It may have been judged while it was
    /// awake because it had moved itself, or had been moved, to another CPU.
    pub(crate) fn return_to_server_cpu(&self, worker: &Record, server: &RecordGuard<'_>) {
        let cpu = server.cpu.load(Relaxed);
        if cpu >= 0 && os::this_cpu() != cpu as usize {
            worker.cpu.store(-1, Relaxed);
            self.follow_server(worker, server);
        }
    }

    /// Whether the caller runs on the CPU that this server and its workers are pinned to.
    pub(crate) fn is_on_cpu_of(&self, server: &RecordGuard<'_>) -> bool {
        usize::try_from(server.cpu.load(Relaxed)).is_ok_and(|cpu| os::this_cpu() == cpu)
    }
}

/// The CPU of a server is not in the cpuset any more. The server is unpinned from here on, and the
/// monitor sees its blocks.
fn give_up_cpu(server: &RecordGuard<'_>, cpu: i32) {
    let Ok(number) = usize::try_from(cpu) else {
        // It was lost before.
        return;
    };
    if server
        .cpu
        .compare_exchange(cpu, -1, Relaxed, Relaxed)
        .is_ok()
    {
        Lack::Cpu.note();
        cpus::cpu(number).detach(server.index());
        cpus::cpu(number).exit();
        let _ = os::original_mask().apply(server.tid.load(Relaxed));
    }
}

/// 1 if a worker found that the kernel takes no slice for SCHED_BATCH threads.
pub(crate) static NO_SLICES: AtomicU32 = AtomicU32::new(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_said_and_nothing_else() {
        assert_eq!(sentence(0, false), "");
        let all = [
            (Lack::Pin, "sched_setaffinity was refused"),
            (Lack::Sentinel, "SCHED_IDLE was refused"),
            (Lack::Cpu, "a CPU was taken away"),
        ];
        for (lack, says) in all {
            let text = sentence(lack as u32, false);
            for (other, words) in all {
                assert_eq!(text.contains(words), other == lack, "{says}: {text}");
            }
        }
        assert!(sentence(0, true).contains("no time slice"));
    }
}
