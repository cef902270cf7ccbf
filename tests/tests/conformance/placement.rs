//! Where servers go that do not say where: each to a CPU of its own, as long as there are some.

use umcg_sys::{Placement, ProviderKind};
use umcg_tests::{Fleet, Server, Subject, child, fault::apart, on_each, proc, skip, subjects};

/// Whether the servers of this subject are pinned to CPUs of the provider's choice.
fn chooses(subject: &Subject) -> bool {
    subject.provider.kind() == ProviderKind::Emulated && subject.placement == Placement::Auto
}

/// The CPU of that server.
fn cpu_of(subject: &Subject, tid: u32) -> usize {
    let count = subject.provider.counters(tid).expect("a registered server");
    count.cpu.expect("a server that is pinned")
}

/// In a process of its own: the table of CPUs is the process's, and other tests have servers, too.
#[test]
fn servers_of_one_process_get_different_cpus() {
    apart(60, || {
        let count = proc::affinity().len().min(8);
        if count < 2 {
            skip!("this process may use one CPU only");
        }
        on_each(move |stage| {
            if !chooses(stage.subject()) {
                return;
            }
            // One by one, as independent runtimes come.
            let mut fleets: Vec<_> = (0..count).map(|_| Fleet::start(stage, 1)).collect();
            let cpu = |fleet: &Fleet| cpu_of(stage.subject(), fleet.tid(0));
            let mut cpus: Vec<_> = fleets.iter().map(cpu).collect();
            cpus.sort_unstable();
            cpus.dedup();
            assert_eq!(cpus.len(), count, "{cpus:?}");
            if count < proc::affinity().len() {
                // There are others that are free.
                fleets.into_iter().for_each(Fleet::finish);
                return;
            }
            // The next one goes where one has left.
            let left = fleets.remove(1);
            let free = cpu(&left);
            left.finish();
            let next = Fleet::start(stage, 1);
            assert_eq!(cpu(&next), free, "the CPU that has no server");
            fleets.push(next);
            fleets.into_iter().for_each(Fleet::finish);
        });
    });
}

/// Many small processes on one machine would meet on the first CPU otherwise.
#[test]
fn processes_do_not_all_begin_at_the_same_cpu() {
    const BODY: &str = "first";
    const SAYS: &str = "the first server is on CPU ";
    if child::is_child(BODY) {
        on_each(|stage| {
            if chooses(stage.subject()) {
                let server = Server::start(stage);
                println!("\n{SAYS}{}.", cpu_of(stage.subject(), server.tid()));
                server.finish();
            }
        });
        return;
    }
    if proc::affinity().len() < 2 {
        skip!("this process may use one CPU only");
    }
    let Some(subject) = subjects().into_iter().find(chooses) else {
        return;
    };
    let test = "placement::processes_do_not_all_begin_at_the_same_cpu";
    let mut seen = Vec::new();
    // With two CPUs one attempt in 2^39 fails.
    for _ in 0..40 {
        let output = child::assert_success(child::start_on(&subject, test, BODY));
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let cpu = output
            .split_once(SAYS)
            .and_then(|(_, rest)| rest.split_once('.'))
            .unwrap_or_else(|| panic!("the child says nothing: {output}"));
        seen.push(cpu.0.to_owned());
        if seen.first() != seen.last() {
            return;
        }
    }
    panic!("all of them: {seen:?}");
}
