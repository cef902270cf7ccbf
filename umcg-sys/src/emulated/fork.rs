//! A forked child inherits memory, thread-locals included, but none of the threads: a page that
//! the kernel wipes on fork tells it from its parent.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

struct Mark(*mut AtomicU32);

// SAFETY: one atomic word that is never unmapped.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

static MARK: OnceLock<Option<Mark>> = OnceLock::new();

/// Sets the mark. False: the kernel has no MADV_WIPEONFORK (before 4.14), or no memory.
pub(crate) fn mark_parent() -> bool {
    MARK.get_or_init(|| {
        // SAFETY: a new private anonymous page.
        let page = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: our page.
        if unsafe { libc::madvise(page, 4096, libc::MADV_WIPEONFORK) } != 0 {
            return None;
        }
        let mark = Mark(page.cast());
        // SAFETY: a live, aligned word.
        unsafe { &*mark.0 }.store(1, Relaxed);
        Some(mark)
    })
    .is_some()
}

/// Whether this is a forked child of the process that set the mark.
pub(crate) fn in_child() -> bool {
    match MARK.get() {
        // SAFETY: a live, aligned word.
        Some(Some(mark)) => unsafe { &*mark.0 }.load(Relaxed) == 0,
        _ => false,
    }
}
