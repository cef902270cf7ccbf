//! The same work alone and beside one busy process, in the same rounds (target P9).

use super::{blocking, executor, files, threads};
use crate::{
    report::Row,
    runner::{Effort, Group},
    system::Systems,
};

/// The systems that are measured: this project, and those that its users come from.
const SHOWN: [&str; 9] = [
    "umcg",
    "umcg::thread",
    "umcg::thread, one server",
    "tokio",
    "tokio spawn_blocking",
    "threadpool(512)",
    "std thread",
    "std::thread",
    "std threads",
];

pub(super) fn run(systems: &Systems, effort: &Effort) -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut groups = vec![files::warm(systems, folder.path())];
    groups.extend(executor::targeted(systems, effort));
    groups.extend(threads::groups());
    beside(groups, effort)
}

/// The groups that block. They are a set of their own, because their peers keep some hundred
/// threads, which may make each switch in the other set slower.
pub(super) fn blocking(systems: &Systems, effort: &Effort) -> Vec<Row> {
    beside(blocking::groups(systems, effort), effort)
}

fn beside(groups: Vec<Group<'static>>, effort: &Effort) -> Vec<Row> {
    groups
        .into_iter()
        .flat_map(|mut group| {
            group.keep(&SHOWN);
            group.run_beside(effort)
        })
        .collect()
}
