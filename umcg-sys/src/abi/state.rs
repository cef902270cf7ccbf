//! The state word, bit by bit.
//!
//! Each UMCG task, server or worker, has one 32-bit state word in user memory. Several threads
//! change it: the task itself, its server, and the [provider](crate::Provider), which plays the
//! kernel. All of them use compare-and-swap (CAS), and keep the bits that are not theirs. A CAS
//! that fails only because bits 16 to 31 changed is repeated. Bits 8 to 15 belong to the provider
//! and are part of what a transition starts from
//! ([`UmcgTask::transition`](crate::UmcgTask::transition)).
//!
//! # Transitions
//!
//! The documentation of each state says who makes the transition. `*` marks those of the emulated
//! provider alone.
//!
//! ```text
//! a server
//!
//!             register               begin_drain
//!     NONE -------------> RUNNING ------------------> RUNNABLE
//!       ^                   | ^                          |
//!       '-------------------' '--------------------------'
//!            unregister        a waker, the deadline, an error,
//!                              or the slot is its own again
//!
//! a worker
//!
//!             register                  picked
//!     NONE -------------> RUNNABLE ------------------> RUNNING
//!                           ^  ^                        |  |  ^
//!                           |  | leave, preempt (device)|  |  |
//!                           |  '------------------------'  |  |
//!                           |                              |  |
//!                           |      a block, preempt*       |  |
//!                           |    .-------------------------'  |
//!                           |    v                            |
//!                          BLOCKED ---------------------------'
//!            unblocked; checkpoint*   an idle slot*, take-over*,
//!            and leave_judged*        adoption*, a late report*
//! ```
//!
//! Not in the picture:
//!
//! * RUNNING to NONE by unregister, and any state to NONE when the thread ends.
//! * RUNNABLE or BLOCKED to RUNNING when a call of a worker fails with ESRCH because its server is
//!   gone. The worker is an ordinary thread then.
//! * RUNNABLE to RUNNING when a `wait` fails with another error.

/// Bits 0 to 7: one of [`NONE`], [`RUNNING`], [`RUNNABLE`], [`BLOCKED`].
pub const STATE_MASK: u32 = 0xff;

/// The task is not registered.
///
/// This is the initial value. Unregister sets it again, and so does the end of the thread, whatever
/// the state was before.
pub const NONE: u32 = 0;

/// The task may use its CPU.
///
/// *A worker* in this state holds the slot of a server. It gets there:
///
/// * from [`RUNNABLE`]: by the thread that dispatches it; by itself in its gate, if it was armed as
///   the spare of a worker that blocked; or by its own `wait` if that fails.
/// * from [`BLOCKED`], with the emulated provider: by itself, when it unblocks and takes the slot
///   of its idle server, or takes the slot over from a worker that is blocked in it
///   ([`WAIT_TAKE_OVER`](crate::WAIT_TAKE_OVER)); by the monitor, which adopts it because it is
///   awake; or by itself, when it never lost its slot and finds the late report of an earlier
///   verdict.
///
/// It leaves this state by itself (to [`RUNNABLE`] before `wait`, to [`NONE`] by unregister), by a
/// block, or by `preempt`.
///
/// *A server* in this state runs its scheduler loop. It gets there by register, and by each event
/// that it has to look at while no worker runs in its slot. Only the server itself leaves this
/// state.
pub const RUNNING: u32 = 1;

/// The task could run, and waits to be picked.
///
/// *A worker* in this state has exactly one owner, who alone may dispatch it: a run queue, an idle
/// pool, the `runnable_ptr` list, or the `next_tid` of a running worker. It gets there by register,
/// by itself before its `wait`, at the end of a block, and on the device by `preempt`.
///
/// *A server* in this state drains its lists, or sleeps in `wait`, either idle or with a worker in
/// its slot. Only the server itself enters this state.
pub const RUNNABLE: u32 = 2;

/// The worker sleeps in the kernel, and its server was told. A server never has this state.
///
/// The provider sets it, and only from [`RUNNING`]. With the emulated provider the worker may run
/// although it has this state, unmanaged: it was preempted, or its system call has returned and it
/// has not made a checkpoint yet.
///
/// The worker leaves this state on its way out of the kernel, or at its checkpoint. With the
/// emulated provider the monitor may make it [`RUNNING`], by adoption.
pub const BLOCKED: u32 = 3;

/// Bits 8 to 15: flags of the provider. [`CLAIMED`] is the only one so far. A task that registers
/// must have zeros here.
pub const FLAG_MASK: u32 = 0xff00;

/// Bit 8, emulated provider only: a dispatcher has won the CAS of this worker from RUNNABLE to
/// RUNNING, and has not given it a slot yet.
///
/// The dispatcher sets it in that CAS. The worker clears it when it passes its gate, or the
/// dispatcher when it gives the claim up. A worker on its way into `wait` that finds RUNNING needs
/// this bit: with it the worker has been picked already, and goes to its gate; without it the
/// worker never left RUNNING, and returns at once.
pub const CLAIMED: u32 = 1 << 8;

/// Bits 16 to 31 belong to the application. The provider keeps them in every transition.
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
