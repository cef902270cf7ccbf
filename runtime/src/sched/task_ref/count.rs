//! The count of the references that tasks hold to their runtime.

use std::{ptr::NonNull, sync::Arc};

use crossbeam_utils::CachePadded;

use crate::sync::{
    AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

/// How many references of this kind there are. All of them together hold one reference of the
/// `Arc`: a thread that counts up from 0 takes it, and a thread that counts down to 0 drops it.
pub(in crate::sched) struct RefCount(
    /// Counted up by a thread that has a reference of the `Arc` of its own, counted down by a
    /// thread that has the references.
    CachePadded<AtomicUsize>,
);

impl RefCount {
    pub(in crate::sched) fn new() -> Self {
        Self(CachePadded::new(AtomicUsize::new(0)))
    }

    /// Counts `n` references more. True: the caller takes a reference of the `Arc` for them, and
    /// keeps its own until it has done so.
    pub(in crate::sched) fn add(&self, n: usize) -> bool {
        // Relaxed, as in `Arc`: a thread that makes a reference has one already.
        self.0.fetch_add(n, Relaxed) == 0
    }

    /// Counts `n` references less, which the caller has. True: the caller drops the reference of
    /// the `Arc`. False: `self` may be freed already.
    pub(in crate::sched) fn sub(&self, n: usize) -> bool {
        // AcqRel: everything that was done by these references comes before the end of what they
        // refer to. The Release pairs with the Acquire of the last `sub`, through the ones between.
        self.0.fetch_sub(n, AcqRel) == n
    }
}

/// Something in an `Arc` that has a [`RefCount`] for references to itself.
pub(super) trait Counted {
    fn ref_count(&self) -> &RefCount;
}

/// The address of `this`, from which the `Arc` can be counted up and down again.
///
/// `Arc::as_ptr`, and not a pointer made from a reference to the value: such a pointer may not be
/// used to reach the counts, which are beside the value (provenance).
pub(super) fn address_of<T>(this: &Arc<T>) -> NonNull<T> {
    // SAFETY: the address of a value is not null.
    unsafe { NonNull::new_unchecked(Arc::as_ptr(this).cast_mut()) }
}

/// Counts `n` references to `this` more.
pub(super) fn add<T: Counted>(this: &Arc<T>, n: usize) {
    if this.ref_count().add(n) {
        // SAFETY: the address of an `Arc`, which is alive.
        unsafe { Arc::increment_strong_count(Arc::as_ptr(this)) }
    }
}

/// Counts `n` references to `this` less.
///
/// # Safety
/// `this` is from [`address_of`]. The caller has `n` references, and does not use them, or `this`,
/// afterwards.
pub(super) unsafe fn sub<T: Counted>(this: NonNull<T>, n: usize) {
    // SAFETY: the caller's references keep it alive until they are counted down.
    if unsafe { this.as_ref() }.ref_count().sub(n) {
        // SAFETY: the address is that of the `Arc`. The reference that is dropped is the one that
        // the `add` from 0 took; another thread may have come from 0 since, and has taken its own.
        unsafe { Arc::decrement_strong_count(this.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(RefCount);

    impl Counted for Thing {
        fn ref_count(&self) -> &RefCount {
            &self.0
        }
    }

    /// Small enough for miri, which reports a pointer that may not reach the counts of the `Arc`.
    #[test]
    fn references_together_hold_one_of_the_arc() {
        let thing = Arc::new(Thing(RefCount::new()));
        let raw = address_of(&thing);
        assert_eq!(raw.as_ptr().cast_const(), Arc::as_ptr(&thing));
        add(&thing, 3);
        add(&thing, 2);
        assert_eq!(Arc::strong_count(&thing), 2);
        // SAFETY: three of five references.
        unsafe { sub(raw, 3) };
        assert_eq!(Arc::strong_count(&thing), 2);
        let weak = Arc::downgrade(&thing);
        drop(thing);
        assert!(weak.upgrade().is_some(), "two references are left");
        // SAFETY: the last two.
        unsafe { sub(raw, 2) };
        assert!(weak.upgrade().is_none(), "never freed");
    }
}
