//! Telling a forked child from its parent.
//!
//! A child inherits all memory, thread-locals included, which say that its thread is a server or a
//! worker; but it inherits none of the other threads, and no registration. A page that the kernel
//! fills with zeros on fork shows the difference.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// A word in a page of its own, which is never unmapped. It is 1 in the process that made it, and 0
/// in a forked child.
struct Mark(*mut AtomicU32);

// SAFETY: an atomic word that is never unmapped.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

/// The mark of this process; `None` if it could not be made.
static MARK: OnceLock<Option<Mark>> = OnceLock::new();

/// Makes the mark, once in a process. False: the kernel is older than 4.14 and has no
/// MADV_WIPEONFORK, or there is no memory.
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
        // SAFETY: the page that was mapped above.
        if unsafe { libc::madvise(page, 4096, libc::MADV_WIPEONFORK) } != 0 {
            return None;
        }
        let mark = Mark(page.cast());
        // Relaxed: a thread that reads the word has first read MARK, whose initialisation comes
        // after this. SAFETY: a live, aligned word.
        unsafe { &*mark.0 }.store(1, Relaxed);
        Some(mark)
    })
    .is_some()
}

/// Whether this is a forked child of the process that made the mark.
pub(crate) fn in_child() -> bool {
    match MARK.get() {
        // Relaxed: the word changes only by a fork, and a child begins after that.
        // SAFETY: a live, aligned word.
        Some(Some(mark)) => unsafe { &*mark.0 }.load(Relaxed) == 0,
        _ => false,
    }
}
