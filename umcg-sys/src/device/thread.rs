//! The registration of the calling thread, and what happens when the thread ends.

use std::{
    cell::{Cell, RefCell},
    mem::{MaybeUninit, size_of},
    ptr::NonNull,
};

use super::{Device, NODE};
use crate::{Call, Error, UmcgTask, emulated::fork};

/// The calling thread's registration.
#[derive(Clone, Copy)]
pub(super) struct Own {
    /// The registered task, or `None` if the thread is not registered.
    pub(super) task: Option<NonNull<UmcgTask>>,
    /// A worker, else a server. Without meaning if `task` is `None`.
    pub(super) worker: bool,
    /// `SERVERS_GONE` at the time when this worker last knew that its own server was alive.
    pub(super) gone_seen: u64,
    /// The worker's server is gone, and the worker is an ordinary thread. Once set, it stays.
    pub(super) detached: bool,
}

const NOBODY: Own = Own {
    task: None,
    worker: false,
    gone_seen: 0,
    detached: false,
};

thread_local! {
    /// Empty again once the thread is an ordinary one.
    pub(super) static OWN: Cell<Own> = const { Cell::new(NOBODY) };
    static END: End = const { End { mask: RefCell::new(None) } };
}

/// Its destructor runs when the thread ends.
struct End {
    /// The affinity mask that a pinned server had before it registered.
    mask: RefCell<Option<libc::cpu_set_t>>,
}

impl Drop for End {
    fn drop(&mut self) {
        let own = OWN.replace(NOBODY);
        if own.task.is_some() && !fork::in_child() {
            if let Some(node) = NODE.get() {
                // This fails if a worker ends in the middle of a wait. The kernel sees the end of
                // the thread by itself.
                let _ = Device { node }.leave(own);
            }
        }
    }
}

pub(super) fn enter(own: Own) {
    OWN.set(own);
    // The first use registers the destructor. At the very end of a thread the destructor may have
    // run already. The kernel still sees the thread exit then; only the links are not waited for.
    let _ = END.try_with(|_| ());
}

pub(super) fn leave() {
    OWN.set(NOBODY);
}

pub(super) fn remember_mask(mask: libc::cpu_set_t) {
    let _ = END.try_with(|end| end.mask.replace(Some(mask)));
}

pub(super) fn give_mask_back() {
    let _ = END.try_with(|end| {
        if let Some(mask) = end.mask.take() {
            set_affinity(&mask);
        }
    });
}

pub(super) fn set_affinity(mask: &libc::cpu_set_t) -> bool {
    // SAFETY: `mask` is a live mask of the given size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), mask) == 0 }
}

/// Pins the calling thread to `cpu` and returns the mask that it had before.
pub(super) fn pin_to(cpu: usize) -> Result<libc::cpu_set_t, Error> {
    let refused = |why| Error::new(Call::Register, libc::EINVAL, why);
    let mut before = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: there is room for a mask of the given size, and all zeroes is a valid mask.
    let before = unsafe {
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), before.as_mut_ptr()) != 0 {
            return Err(refused("the affinity mask cannot be read"));
        }
        before.assume_init()
    };
    // SAFETY: `cpu` is in range, and the mask is initialized.
    if cpu >= libc::CPU_SETSIZE as usize || !unsafe { libc::CPU_ISSET(cpu, &before) } {
        return Err(refused("the CPU is not in the affinity mask"));
    }
    // SAFETY: all zeroes is an empty mask, and `cpu` is in range.
    let only = unsafe {
        let mut only = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
        libc::CPU_SET(cpu, &mut only);
        only
    };
    if set_affinity(&only) {
        Ok(before)
    } else {
        Err(refused("the kernel refuses this CPU"))
    }
}
