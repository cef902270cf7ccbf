//! The sleep cells of the helpers, and the question whether the application has work for a server.

use std::cell::RefCell;

use super::{cpus, sleep_cell::SleepCell};
use crate::{HasWork, sync::Futex32};

thread_local! {
    /// The question that the calling thread registered with, if it is a server.
    static HAS_WORK: RefCell<Option<HasWork>> = const { RefCell::new(None) };
}

/// The sleep cells of all helpers. The monitor's is here, those of the sentinels are in the table
/// of CPUs.
///
/// It has a cache line of its own. It is written whenever the monitor goes to sleep or wakes up,
/// and its neighbours in the registry are read at each look-up.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct HelperCells {
    /// Where the monitor sleeps while no work waits for any server.
    pub(crate) monitor: SleepCell,
}

impl HelperCells {
    pub(crate) const fn new() -> Self {
        Self {
            monitor: SleepCell::new(Futex32::new(0)),
        }
    }

    /// Wakes the sentinel of this CPU if it sleeps. -1 stands for no CPU.
    pub(crate) fn wake_sentinel(&self, cpu: i32) {
        if cpu >= 0 {
            cpus::cpu(cpu as usize).wake();
        }
    }

    /// Asks the application whether it has work for the calling server beyond its lists.
    pub(crate) fn application_has_work(&self) -> bool {
        HAS_WORK
            .try_with(|has_work| has_work.borrow().as_ref().is_some_and(|ask| ask()))
            .unwrap_or(false)
    }
}

/// Sets the question that [`HelperCells::application_has_work`] asks in the calling thread.
pub(crate) fn set_has_work(has_work: Option<HasWork>) {
    // Fails only at the end of a thread, where nobody asks any more.
    let _ = HAS_WORK.try_with(|own| own.replace(has_work));
}
