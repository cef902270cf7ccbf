//! A server that starves gets a worker, also if one of its workers had asked for one before.

use loom::sync::Arc;

use super::{check, start};
use crate::sched::{idle::IdleServers, spawner::request::WorkerRequest};

/// A worker has requested a spare when its server begins to starve. The worker spawner, which is
/// just taking that request, sees that the server starves, or is woken once more.
#[test]
fn a_server_that_starves_is_seen_or_its_request_is_new() {
    check(|| {
        let shared = Arc::new((WorkerRequest::new(), IdleServers::new(1)));
        let (request, idle_servers) = &*shared;
        assert!(request.make(), "the worker's");
        let server = start(&shared, |(request, idle_servers)| {
            idle_servers.enter_starved(0, None);
            request.make()
        });
        let (made, starves) = request.take(|| idle_servers.is_starved(0));
        assert!(made);
        let new = server.join().unwrap();
        assert!(starves || new, "it starves, and nobody knows");
    });
}
