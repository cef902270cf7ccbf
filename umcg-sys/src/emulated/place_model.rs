//! The model's twin of `place`: no CPUs; the helpers' beds, which the models sleep in.

use super::{
    bed::Bed,
    record::Record,
    world::{Pin, World},
};

/// Where the modelled sentinel and the modelled monitor sleep.
#[derive(Debug)]
pub(crate) struct Beds {
    pub(crate) sentinel: Bed,
    pub(crate) monitor: Bed,
}

impl Beds {
    pub(crate) fn new() -> Self {
        Self {
            sentinel: Bed::new(),
            monitor: Bed::new(),
        }
    }
}

impl World {
    pub(crate) fn take_place(&self, _worker: &Record, _server: &Pin<'_>) {}

    pub(crate) fn check_place(&self, _worker: &Record, _server: &Pin<'_>) {}

    pub(crate) fn is_on_cpu_of(&self, _server: &Pin<'_>) -> bool {
        true
    }

    pub(crate) fn rouse(&self, _server: &Record) {
        self.beds().sentinel.rouse();
    }

    pub(crate) fn watch_if_work(&self, server: &Pin<'_>) {
        self.watch(server);
    }

    pub(crate) fn watch(&self, _server: &Record) {
        self.beds().monitor.rouse();
    }
}
