//! Where the helpers sleep, and what the calling server's application says about waiting work.

use std::cell::RefCell;

use super::{cpus, sleep_cell::SleepCell};
use crate::{HasWork, sync::Futex32};

thread_local! {
    /// The question for more work that the calling thread registered with, if it is a server.
    static HAS_WORK: RefCell<Option<HasWork>> = const { RefCell::new(None) };
}

/// The sleep cells of all helpers. The monitor's is here; those of the sentinels are in the table
/// of CPUs.
///
/// On a cache line of its own: it is written when the monitor goes to sleep and wakes up, and its
/// neighbours in the registry are read at each look-up.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct HelperCells {
    pub(crate) monitor: SleepCell,
}

impl HelperCells {
    pub(crate) const fn new() -> Self {
        Self {
            monitor: SleepCell::new(Futex32::new(0)),
        }
    }

    /// Wakes the sentinel of this CPU if it sleeps; -1 = no CPU.
    pub(crate) fn wake_sentinel(&self, cpu: i32) {
        if cpu >= 0 {
            cpus::cpu(cpu as usize).wake();
        }
    }

    /// Whether the application has work for the calling server beyond its lists.
    pub(crate) fn application_has_work(&self) -> bool {
        HAS_WORK
            .try_with(|has_work| has_work.borrow().as_ref().is_some_and(|ask| ask()))
            .unwrap_or(false)
    }
}

/// The question that [`HelperCells::application_has_work`] asks from now on in this thread.
pub(crate) fn set_has_work(has_work: Option<HasWork>) {
    // Fails in a thread that ends: nobody asks any more.
    let _ = HAS_WORK.try_with(|own| own.replace(has_work));
}
