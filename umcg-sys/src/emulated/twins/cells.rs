//! Model twin of `helpers::cells`: where the modelled sentinel and the modelled monitor sleep.

use super::sleep_cell::SleepCell;
use crate::sync::Futex32;

/// One sentinel for all servers, and the monitor.
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

    /// Always: the application may have work.
    pub(crate) fn application_has_work(&self) -> bool {
        true
    }
}
