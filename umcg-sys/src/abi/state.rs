//! The state word, bit by bit.
//!
//! Every UMCG task, server or worker, has one 32-bit state word in user memory.
//! It is shared: the task itself, its server, and whoever plays the kernel (the
//! [provider](crate::Provider)) all change it, always by compare-and-swap, always
//! keeping the bits that are not theirs. A CAS that fails only because bits 16 to 31
//! changed is retried; bits 8 to 15 are the provider's and part of what a transition
//! starts from ([`UmcgTask::transition`](crate::UmcgTask::transition)).
//!
//! # Transitions
//!
//! Who makes them stands at the states. `*`: the emulated provider alone.
//!
//! ```text
//! a server
//!
//!             register               begin_drain
//!     NONE -------------> RUNNING ------------------> RUNNABLE
//!       ^                   | ^                          |
//!       '-------------------' '--------------------------'
//!            unregister        any waker, the deadline, an
//!                              error, its slot is its own again
//!
//! a worker
//!
//!             register                  picked
//!     NONE -------------> RUNNABLE ------------------> RUNNING
//!                           ^  ^                        |  |  ^
//!                           |  |  leave, preempt(device)|  |  |
//!                           |  '------------------------'  |  |
//!                           |                              |  |
//!                           |      a block, preempt*       |  |
//!                           |    .-------------------------'  |
//!                           |    v                            |
//!                          BLOCKED ---------------------------'
//!            unblocked; checkpoint*   an idle slot*, take-over*,
//!            and leave_judged*        adoption*, a late mirror*
//!
//!     RUNNING to NONE: unregister. Any to NONE: the thread ends.
//!     RUNNABLE or BLOCKED to RUNNING also with ESRCH: the server is gone, and the worker an
//!     ordinary thread; and RUNNABLE to RUNNING by any other error of its `wait`.
//! ```

/// Bits 0 to 7: one of [`NONE`], [`RUNNING`], [`RUNNABLE`], [`BLOCKED`].
pub const STATE_MASK: u32 = 0xff;

/// Not registered. The initial value; set again by unregister, or by the end of the thread,
/// whatever it was before.
pub const NONE: u32 = 0;

/// The task may use its CPU.
///
/// For a worker: it holds the slot of a server. Entered from [`RUNNABLE`], by whoever
/// dispatches it; by the worker itself in its gate, if a block consumed the `next_tid` in which
/// it was armed; or by its own failed `wait`. With the emulated provider also from [`BLOCKED`]:
/// by an unblocked worker that finds its server idle and takes the slot, or takes the slot over
/// from one that is blocked in it
/// ([`WAIT_TAKE_OVER`](crate::WAIT_TAKE_OVER)); by the monitor, which gives a slot back to one
/// that it finds awake (adoption); and by a worker that was never out of its slot and finds the
/// late mirror of an earlier verdict.
///
/// Left by the worker itself ([`RUNNABLE`], before `wait`; [`NONE`], by unregister), by a block,
/// or by `preempt`.
///
/// For a server: it runs its scheduler loop. Entered by register, and made so by every event that
/// it has to look at while no worker runs in its slot. Left by the server alone.
pub const RUNNING: u32 = 1;

/// The task could run and waits to be picked.
///
/// For a worker: somebody owns it (a run queue, an idle pool, the `runnable_ptr` list, the
/// `next_tid` of a running worker), and that owner alone may dispatch it. Entered by register, by
/// the worker itself before its `wait`, at the end of a block, and (device) by `preempt`.
///
/// For a server: it drains its lists, or sleeps in `wait`, idle or with a worker in its slot.
/// Entered by the server alone.
pub const RUNNABLE: u32 = 2;

/// The worker sleeps in the kernel and its server was told. Never a server's state.
///
/// Entered from [`RUNNING`] only, by the provider. With the emulated one the worker may have
/// woken since and run on, unmanaged: it was preempted, or its system call has returned and it
/// has not come to a checkpoint.
///
/// Left by the worker, on its way out of the kernel or at its checkpoint; and, emulated provider
/// only, by the monitor, which makes it [`RUNNING`] when it adopts the worker.
pub const BLOCKED: u32 = 3;

/// Bits 8 to 15: flags of the provider, of which [`CLAIMED`] is the only one so far. Zero in a
/// task that registers.
pub const FLAG_MASK: u32 = 0xff00;

/// Bit 8, emulated provider only: somebody won the CAS RUNNABLE to RUNNING on this worker
/// and has not yet handed it a slot.
///
/// Set in that CAS by the dispatcher, cleared by the worker as it passes its gate, or by the
/// dispatcher when it gives the claim up. A worker on its way into `wait` that reads RUNNING
/// tells by this bit "somebody picked me already" (go to the gate) from "I never left" (return
/// at once).
pub const CLAIMED: u32 = 1 << 8;

/// Bits 16 to 31 are the application's; the provider keeps them in every transition.
pub const USER_MASK: u32 = 0xffff_0000;

/// The name of the state in bits 0 to 7, for messages.
#[must_use]
pub const fn name(word: u32) -> &'static str {
    match word & STATE_MASK {
        NONE => "NONE",
        RUNNING => "RUNNING",
        RUNNABLE => "RUNNABLE",
        BLOCKED => "BLOCKED",
        _ => "invalid",
    }
}
