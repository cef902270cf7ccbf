//! Signals that interrupt a worker in its gate.
//!
//! A worker that sleeps in its gate cannot leave it before it is dispatched, so a signal does not end
//! its wait, as it would end a system call with EINTR. The hook tells the scheduler, which may then end
//! the wait by waking the worker.

use std::cell::Cell;

/// A function, and its argument.
type Hook = (fn(*const ()), *const ());

std::thread_local! {
    /// Set by the thread itself.
    static HOOK: Cell<Option<Hook>> = const { Cell::new(None) };
}

/// Has the emulated provider call a function on this thread, with its argument, whenever a signal
/// handler without `SA_RESTART` has run while the thread, a worker, slept in its gate. `None`: no
/// longer.
///
/// The worker is still in its gate then: it has no slot, and somebody may own it already. So the
/// function must not call the provider's `wait` or `checkpoint`, and must neither block nor panic. It
/// may wake servers and queue a worker that it owns.
///
/// A handler with `SA_RESTART` is not reported: the kernel goes on with the sleep.
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
/// umcg_sys::set_interrupt_hook(Some((interrupted, std::ptr::from_ref(&count).cast())));
/// // A `wait` here, which a signal interrupts.
/// umcg_sys::set_interrupt_hook(None);
/// assert_eq!(count.get(), 0);
/// ```
pub fn set_interrupt_hook(hook: Option<Hook>) {
    HOOK.set(hook);
}

/// For a worker in its gate whose sleep was interrupted.
pub(crate) fn call_hook() {
    if let Some((hook, argument)) = HOOK.get() {
        hook(argument);
    }
}
