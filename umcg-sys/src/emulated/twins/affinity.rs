//! Model twin of `affinity`: there are no CPUs, or one for all.

use super::{
    record::Record,
    registry::{RecordGuard, Registry},
};

impl Registry {
    pub(crate) fn follow_server(&self, _worker: &Record, _server: &RecordGuard<'_>) {}

    pub(crate) fn return_to_server_cpu(&self, _worker: &Record, _server: &RecordGuard<'_>) {}

    pub(crate) fn is_on_cpu_of(&self, _server: &RecordGuard<'_>) -> bool {
        true
    }
}
