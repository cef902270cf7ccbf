//! The count of the references that tasks hold to their runtime.
//!
//! Apart from the `Arc` of the runtime, and together one reference of it: see `stock.rs`.

use crossbeam_utils::CachePadded;

use crate::sync::{
    AtomicUsize,
    Ordering::{AcqRel, Relaxed},
};

/// Written by anybody: `add`, with a reference to the `Arc` of its own; `sub`, of what it has. From
/// 0 up one reference of the `Arc` is taken, down to 0 it is given back.
pub(super) struct Refs {
    count: CachePadded<AtomicUsize>,
}

impl Refs {
    pub(super) fn new() -> Self {
        Self {
            count: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    /// Counts `n` more. True: the caller takes a reference of the `Arc` for them, and keeps its
    /// own until it has.
    pub(super) fn add(&self, n: usize) -> bool {
        // Relaxed, as in `Arc`: who makes a reference has one.
        self.count.fetch_add(n, Relaxed) == 0
    }

    /// Counts `n` less, which the caller has. True: it gives the reference of the `Arc` back.
    /// False: `self` may be gone.
    pub(super) fn sub(&self, n: usize) -> bool {
        // AcqRel: all that was done by these references comes before the end of what they refer
        // to. Release pairs with Acquire of the last one, through the `sub`s in between.
        self.count.fetch_sub(n, AcqRel) == n
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::{
        cell::UnsafeCell,
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::{AcqRel, Refs, Relaxed};

    /// What the references refer to, with the count of an `Arc`.
    struct Thing {
        refs: Refs,
        strong: AtomicUsize,
        /// Read by who has a reference, written when the last has gone.
        value: UnsafeCell<u32>,
    }

    impl Thing {
        fn add(&self, n: usize) {
            if self.refs.add(n) {
                assert_ne!(self.strong.fetch_add(1, Relaxed), 0, "raised from the dead");
            }
        }

        fn sub(&self, n: usize) {
            if self.refs.sub(n) {
                self.let_go();
            }
        }

        fn let_go(&self) {
            if self.strong.fetch_sub(1, AcqRel) == 1 {
                self.value.with_mut(|value| {
                    // SAFETY: nobody else has a reference; loom checks it.
                    let value = unsafe { &mut *value };
                    assert_eq!(*value, 7, "it ends once");
                    *value = 0;
                });
            }
        }

        fn read(&self) {
            // SAFETY: the caller has a reference; loom checks it.
            self.value.with(|value| assert_eq!(unsafe { *value }, 7));
        }
    }

    /// Two threads with an `Arc` each make a task and give their `Arc` back before or after the
    /// task ends: the thing lives until the last reference of either kind, and ends once.
    #[test]
    fn it_ends_with_the_last_reference() {
        loom::model(|| {
            let thing = Arc::new(Thing {
                refs: Refs::new(),
                strong: AtomicUsize::new(2),
                value: UnsafeCell::new(7),
            });
            let other = {
                let thing = Arc::clone(&thing);
                thread::spawn(move || {
                    thing.add(2);
                    thing.let_go();
                    thing.read();
                    thing.sub(2);
                })
            };
            thing.add(2);
            thing.sub(1);
            thing.read();
            thing.sub(1);
            thing.let_go();
            other.join().unwrap();
            assert_eq!(thing.strong.load(Relaxed), 0);
            thing.value.with(|value| {
                // SAFETY: the other thread has ended.
                assert_eq!(unsafe { *value }, 0, "nobody let it end");
            });
        });
    }
}
