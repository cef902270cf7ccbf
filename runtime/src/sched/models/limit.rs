//! A worker spawner that is refused a place learns of it when there is room.

use loom::sync::Arc;

use super::{check, start};
use crate::sched::spawner::limit::{Place, WorkerLimit};

/// The worker spawner asks for a place beyond the limit while a worker begins managed blocking,
/// which makes room: the spawner gets the place, or the worker is told to wake it.
#[test]
fn room_is_seen_or_said() {
    check(|| {
        let limit = Arc::new(WorkerLimit::new(1));
        assert_eq!(limit.reserve(), Place::Taken(1));
        let worker = start(&limit, WorkerLimit::begin_managed_blocking);
        let place = limit.reserve();
        let told = worker.join().unwrap();
        assert!(
            told || matches!(place, Place::Taken(2)),
            "refused, and nobody says that there is room now"
        );
    });
}
