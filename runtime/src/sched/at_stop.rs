//! What else keeps jobs that a runtime's end is the end of.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::Shared;

/// Something that hands tasks to a runtime one after the other.
pub(crate) trait Stops: Send + Sync {
    /// Drops what it has not handed over, one by one: another thread may come for the rest. Called
    /// once the runtime stops; from then on the implementor keeps nothing new.
    fn runtime_stops(&self);

    /// Whether there is something left to drop.
    fn is_left(&self) -> bool;
}

/// Those of one runtime.
pub(super) struct AtStop(Mutex<Vec<Weak<dyn Stops>>>);

impl AtStop {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Calls them, without the lock.
    pub(super) fn run(&self) {
        for stops in self.all() {
            stops.runtime_stops();
        }
    }

    /// Whether there is something left to do.
    pub(super) fn is_left(&self) -> bool {
        self.all().iter().any(|stops| stops.is_left())
    }

    fn all(&self) -> Vec<Arc<dyn Stops>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl Shared {
    /// Calls it when this runtime stops, if it is still there. To be followed by a look at
    /// [`is_stopping`](Self::is_stopping).
    pub(crate) fn call_at_stop(&self, what: &Arc<dyn Stops>) {
        let mut all = self.at_stop.0.lock();
        if all.len() == all.capacity() {
            all.retain(|stops| stops.strong_count() > 0);
        }
        all.push(Arc::downgrade(what));
    }
}

impl fmt::Debug for AtStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AtStop").field(&self.0.lock().len()).finish()
    }
}
