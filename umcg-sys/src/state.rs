//! The state word, bit by bit.
//!
//! Every UMCG task, server or worker, has one 32-bit state word in user memory.
//! It is shared: the task itself, its server, and whoever plays the kernel (the
//! [provider](crate::Provider)) all change it, always by compare-and-swap, always
//! keeping the bits that are not theirs. A CAS that fails only because bits 8 to 31
//! changed is retried.

/// Bits 0 to 7: one of [`NONE`], [`RUNNING`], [`RUNNABLE`], [`BLOCKED`].
pub const STATE_MASK: u32 = 0xff;

/// Not registered. Set by unregister, and the initial value.
pub const NONE: u32 = 0;

/// The task may use its CPU.
///
/// For a worker: it holds the slot of a server. Entered from [`RUNNABLE`] only, by whoever
/// dispatches it, and (emulated provider) from [`BLOCKED`] when an unblocked worker finds
/// its server idle and takes its slot. Left by the worker itself ([`RUNNABLE`], before
/// `wait`), by a block, or by `preempt`.
///
/// For a server: it runs its scheduler loop. A server is made RUNNING by every event that it
/// has to look at while no worker runs in its slot.
pub const RUNNING: u32 = 1;

/// The task could run and waits to be picked.
///
/// For a worker: somebody owns it (a run queue, an idle pool, the `runnable_ptr` list, the
/// `next_tid` of a running worker), and that owner alone may dispatch it.
///
/// For a server: it drains its lists, or sleeps in `wait`, idle or with a worker in its slot.
pub const RUNNABLE: u32 = 2;

/// The worker sleeps in the kernel and its server was told. Never a server's state.
///
/// Left by the worker alone, on its way out of the kernel.
pub const BLOCKED: u32 = 3;

/// Bits 8 to 15: flags of the provider. Zero in a task that is registered.
pub const FLAG_MASK: u32 = 0xff00;

/// Bit 8, emulated provider only: somebody won the CAS RUNNABLE to RUNNING on this worker
/// and has not yet handed it a slot.
///
/// Set in that CAS by the dispatcher, cleared by the worker as it passes its gate, or by the
/// dispatcher when it gives the claim up. A worker on its way into `wait` that reads RUNNING tells by this bit
/// "somebody picked me already" (go to the gate) from "I never left" (return at once).
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
