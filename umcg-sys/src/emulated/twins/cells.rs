//! Model twin of `helpers::cells`.

use super::sleep_cell::SleepCell;
use crate::sync::Futex32;

/// Where the modelled sentinel, one for all servers, and the modelled monitor sleep.
#[derive(Debug)]
pub(crate) struct HelperCells {
    pub(crate) sentinel: SleepCell,
    pub(crate) monitor: SleepCell,
}

impl HelperCells {
    pub(crate) fn new() -> Self {
        Self {
            sentinel: SleepCell::new(Futex32::new(0)),
            monitor: SleepCell::new(Futex32::new(0)),
        }
    }

    pub(crate) fn wake_sentinel(&self, _cpu: i32) {
        self.sentinel.wake();
    }

    /// Always true, so that the monitor is notified wherever it may have to be.
    pub(crate) fn application_has_work(&self) -> bool {
        true
    }
}
