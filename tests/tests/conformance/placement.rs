//! The CPUs of servers that ask for no particular CPU: each server gets one of its own, as long as
//! there are enough.

use umcg_sys::{Placement, ProviderKind};
use umcg_tests::{
    ProviderUnderTest, Server, ServerGroup, Subprocess, cpu, for_each_provider, isolated,
    providers_under_test, skip,
};

/// Whether the servers of this provider are pinned to CPUs of the provider's choice.
fn chooses(provider: &ProviderUnderTest) -> bool {
    provider.provider.kind() == ProviderKind::Emulated && provider.placement == Placement::Auto
}

/// The CPU of the server with this tid.
fn cpu_of(provider: &ProviderUnderTest, tid: u32) -> usize {
    let count = provider
        .provider
        .counters(tid)
        .expect("a registered server");
    count.cpu.expect("a server that is pinned")
}

/// In a process of its own: one table of CPUs serves the whole process, and other tests have
/// servers too.
#[test]
fn servers_of_one_process_get_different_cpus() {
    isolated(60, || {
        let count = cpu::affinity().len().min(8);
        if count < 2 {
            skip!("this process may use one CPU only");
        }
        for_each_provider(move |harness| {
            if !chooses(harness.under_test()) {
                return;
            }
            // One by one, as independent runtimes start.
            let mut groups: Vec<_> = (0..count).map(|_| ServerGroup::start(harness, 1)).collect();
            let cpu = |group: &ServerGroup| cpu_of(harness.under_test(), group.tid(0));
            let mut cpus: Vec<_> = groups.iter().map(cpu).collect();
            cpus.sort_unstable();
            cpus.dedup();
            assert_eq!(cpus.len(), count, "{cpus:?}");
            if count < cpu::affinity().len() {
                // Some CPUs have no server yet.
                groups.into_iter().for_each(ServerGroup::finish);
                return;
            }
            // The next server gets the CPU that another one has left.
            let left = groups.remove(1);
            let free = cpu(&left);
            left.finish();
            let next = ServerGroup::start(harness, 1);
            assert_eq!(cpu(&next), free, "the CPU that has no server");
            groups.push(next);
            groups.into_iter().for_each(ServerGroup::finish);
        });
    });
}

/// Otherwise many small processes on one machine would all share the first CPU.
#[test]
fn processes_do_not_all_begin_at_the_same_cpu() {
    const SAYS: &str = "the first server is on CPU ";
    if cpu::affinity().len() < 2 {
        skip!("this process may use one CPU only");
    }
    let Some(provider) = providers_under_test().into_iter().find(chooses) else {
        return;
    };
    let mut seen = Vec::new();
    // With two CPUs, one run of this test in 2^39 fails although nothing is wrong.
    for _ in 0..40 {
        let output = Subprocess::new(60).on(&provider).run(|| {
            for_each_provider(|harness| {
                let server = Server::start(harness);
                println!("\n{SAYS}{}.", cpu_of(harness.under_test(), server.tid()));
                server.finish();
            });
        });
        let Some(output) = output else {
            return;
        };
        let cpu = output
            .split_once(SAYS)
            .and_then(|(_, rest)| rest.split_once('.'))
            .unwrap_or_else(|| panic!("the process prints no CPU: {output}"));
        seen.push(cpu.0.to_owned());
        if seen.first() != seen.last() {
            return;
        }
    }
    panic!("the first server is always on the same CPU: {seen:?}");
}
