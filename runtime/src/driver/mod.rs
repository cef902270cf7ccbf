//! What wakes tasks from outside of the scheduler: timers.

pub(crate) mod timer;
