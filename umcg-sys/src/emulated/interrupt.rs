//! Signals that interrupt a worker in its gate.
//!
//! A worker that sleeps in its gate cannot leave it before it is dispatched, so a signal does not
//! end its wait, as it would end a system call with EINTR. The hook tells the scheduler, which may
//! then end the wait by waking the worker.

use std::cell::Cell;

/// What a thread calls when a signal handler has interrupted its sleep in the gate.
#[derive(Clone, Copy, Debug)]
pub struct InterruptHook {
    /// The function.
    pub call: fn(*const ()),
    /// Its argument.
    pub argument: *const (),
    /// Whether a handler with `SA_RESTART` counts as well. The kernel restarts some calls after
    /// such a handler, as `recv`, and others never, as `nanosleep` (signal(7)).
    pub even_if_restarted: bool,
}

std::thread_local! {
    /// Set by the thread itself.
    static HOOK: Cell<Option<InterruptHook>> = const { Cell::new(None) };
}

/// Has the emulated provider call a function on this thread, with its argument, whenever a signal
/// handler has run while the thread, a worker, slept in its gate. `None`: no longer.
///
/// The worker is still in its gate then: it has no slot, and somebody may own it already. So the
/// function must not call the provider's `wait` or `checkpoint`, and must neither block nor panic.
/// It may wake servers and queue a worker that it owns.
///
/// # Examples
///
/// ```
/// fn interrupted(count: *const ()) {
///     // SAFETY: the hook's argument, below.
///     let count = unsafe { &*count.cast::<std::cell::Cell<u32>>() };
///     count.set(count.get() + 1);
/// }
/// let count = std::cell::Cell::new(0_u32);
/// umcg_sys::set_interrupt_hook(Some(umcg_sys::InterruptHook {
///     call: interrupted,
///     argument: std::ptr::from_ref(&count).cast(),
///     even_if_restarted: false,
/// }));
/// // A `wait` here, which a signal interrupts.
/// umcg_sys::set_interrupt_hook(None);
/// assert_eq!(count.get(), 0);
/// ```
pub fn set_interrupt_hook(hook: Option<InterruptHook>) {
    HOOK.set(hook);
}

/// Whether the calling thread's sleep is to end after every handler.
pub(crate) fn ends_every_sleep() -> bool {
    HOOK.get().is_some_and(|hook| hook.even_if_restarted)
}

/// For a worker in its gate whose sleep was interrupted.
pub(crate) fn call_hook() {
    if let Some(hook) = HOOK.get() {
        (hook.call)(hook.argument);
    }
}
