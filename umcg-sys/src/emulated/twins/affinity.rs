//! Model twin of `affinity`: all threads run on one CPU, and no thread is moved.

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
