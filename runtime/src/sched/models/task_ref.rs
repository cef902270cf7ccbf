//! What the references of tasks refer to lives until the last reference of either kind is gone, and
//! ends once.

use loom::{
    cell::UnsafeCell,
    sync::{Arc, atomic::AtomicUsize},
};

use super::{check, start};
use crate::{
    sched::task_ref::count::RefCount,
    sync::Ordering::{AcqRel, Relaxed},
};

/// What the references refer to, with the count of an `Arc`.
struct Thing {
    refs: RefCount,
    strong: AtomicUsize,
    /// Read by holders of a reference, written when the last one is gone.
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
            self.drop_arc();
        }
    }

    fn drop_arc(&self) {
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

/// Two threads with an `Arc` each make tasks and drop their `Arc` before or after the tasks end.
#[test]
fn it_ends_with_the_last_reference() {
    check(|| {
        let thing = Arc::new(Thing {
            refs: RefCount::new(),
            strong: AtomicUsize::new(2),
            value: UnsafeCell::new(7),
        });
        let other = start(&thing, |thing: &Thing| {
            thing.add(2);
            thing.drop_arc();
            thing.read();
            thing.sub(2);
        });
        thing.add(2);
        thing.sub(1);
        thing.read();
        thing.sub(1);
        thing.drop_arc();
        other.join().unwrap();
        assert_eq!(thing.strong.load(Relaxed), 0);
        thing.value.with(|value| {
            // SAFETY: the other thread has ended.
            assert_eq!(unsafe { *value }, 0, "nobody let it end");
        });
    });
}
