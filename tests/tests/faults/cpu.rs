//! The CPUs are few, change, are refused, or are used by others.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use umcg::Runtime;
use umcg_sys::{ProviderChoice, ProviderKind};
use umcg_tests::{
    BlockerGate,
    cpu::{self, BusyProcess},
    eventually, isolated, proc,
    runtime::{assert_blocks_are_seen, default_runtime, run_mixed_tasks, runtime_with},
    seccomp, skip, threads,
};

#[test]
fn a_mask_of_one_cpu_gives_one_server_and_works() {
    isolated(60, || {
        let cpus = cpu::affinity();
        let last = *cpus.last().expect("a CPU");
        cpu::set_affinity(0, &[last]).expect("a CPU of the mask");
        let runtime = Runtime::new().expect("a runtime");
        if env::var_os("UMCG_SERVERS").is_none() {
            assert_eq!(
                runtime.metrics().servers().len(),
                1,
                "one server a CPU of the mask"
            );
        }
        run_mixed_tasks(&runtime, 100);
        assert_blocks_are_seen(&runtime);
        drop(runtime);
        // More servers than CPUs are permitted.
        let crowded = runtime_with(3);
        run_mixed_tasks(&crowded, 100);
        assert_blocks_are_seen(&crowded);
    });
}

#[test]
fn the_mask_shrinks_and_widens_while_work_goes_on() {
    isolated(60, || {
        let cpus = cpu::affinity();
        if cpus.len() < 2 {
            skip!("a mask of one CPU cannot shrink");
        }
        let runtime = default_runtime();
        run_mixed_tasks(&runtime, 50);
        for mask in [
            &cpus[..1],
            &cpus[1..2],
            &cpus[..],
            &cpus[1..],
            &cpus[..1],
            &cpus[..],
        ] {
            let handle = runtime.handle().clone();
            let gate = Arc::new(BlockerGate::new());
            let blocked = Arc::clone(&gate);
            let before = handle.spawn_blocking(move || blocked.wait());
            eventually("it is blocked", || gate.waiting() == 1);
            cpu::set_affinity_of_all_threads(mask);
            run_mixed_tasks(&runtime, 100);
            assert_blocks_are_seen(&runtime);
            gate.open();
            before.join().expect("blocked across the change");
        }
    });
}

#[test]
fn a_mask_that_changes_under_load_loses_nothing() {
    isolated(60, || {
        let cpus = cpu::affinity();
        if cpus.len() < 2 {
            skip!("a mask of one CPU cannot shrink");
        }
        let runtime = default_runtime();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let other = thread::spawn(move || {
            let mut changes = 0;
            while !stopped.load(SeqCst) {
                cpu::set_affinity_of_all_threads(&cpus[changes % cpus.len()..][..1]);
                changes += 1;
                thread::sleep(Duration::from_millis(2));
            }
            cpu::set_affinity_of_all_threads(&cpus);
        });
        for _ in 0..10 {
            run_mixed_tasks(&runtime, 60);
        }
        stop.store(true, SeqCst);
        other.join().unwrap();
        run_mixed_tasks(&runtime, 60);
        assert_blocks_are_seen(&runtime);
    });
}

/// A provider that works without something says so in its description. This asserts it for the
/// emulated provider, as it is now; others do without these calls.
fn is_said(says: &str) {
    let choice = ProviderChoice::from_env().expect("UMCG_PROVIDER");
    let selected = umcg_sys::select(choice.unwrap_or_default()).expect("a provider");
    if selected.provider.kind() == ProviderKind::Emulated {
        let text = selected.provider.describe();
        assert!(
            text.contains(says),
            "the description lacks {says:?}: {text}"
        );
    }
}

/// Refuses these system calls after a runtime was built and before others are. The provider then
/// describes itself with `says`.
fn refused(calls: &[i64], says: &str) {
    refused_with(libc::EPERM, calls, says);
}

fn refused_with(errno: i32, calls: &[i64], says: &str) {
    let early = default_runtime();
    if let Err(error) = seccomp::refuse_with(errno, calls) {
        skip!("no seccomp filter here: {error}");
    }
    run_mixed_tasks(&early, 100);
    assert_blocks_are_seen(&early);
    // A second runtime is built under the filter, while the first one is still there.
    let late = default_runtime();
    run_mixed_tasks(&late, 100);
    assert_blocks_are_seen(&late);
    drop(early);
    drop(late);
    // The third runtime finds nothing left of the others that it could use.
    eventually("the sentinels are gone", || {
        threads::named("umcg-sentinel") == 0
    });
    let last = default_runtime();
    run_mixed_tasks(&last, 100);
    assert_blocks_are_seen(&last);
    is_said(says);
}

/// The filter is installed first, before the provider has tried anything.
fn refused_from_the_start(calls: &[i64], says: &str) {
    if let Err(error) = seccomp::refuse(calls) {
        skip!("no seccomp filter here: {error}");
    }
    for servers in [1, 2, 3] {
        let runtime = runtime_with(servers);
        run_mixed_tasks(&runtime, 100);
        assert_blocks_are_seen(&runtime);
        is_said(says);
    }
}

#[test]
fn affinity_refused() {
    isolated(60, || {
        refused_from_the_start(seccomp::AFFINITY, "sched_setaffinity is refused");
        in_the_metrics("without sentinels (sched_setaffinity is refused");
    });
}

#[test]
fn affinity_refused_later() {
    isolated(60, || {
        refused(seccomp::AFFINITY, "sched_setaffinity was refused");
    });
}

#[test]
fn policy_refused() {
    isolated(60, || {
        refused_from_the_start(seccomp::POLICY, "SCHED_IDLE is refused");
        in_the_metrics("without sentinels (SCHED_IDLE is refused");
        let cpus = cpu::affinity();
        if cpus.len() > 1 {
            let metrics = runtime_with(2).metrics();
            let servers = metrics.servers();
            let differ = servers[0].cpu().is_none() || servers[0].cpu() != servers[1].cpu();
            assert!(differ, "servers without sentinels share a CPU: {servers:?}");
        }
    });
}

#[test]
fn policy_refused_later() {
    isolated(60, || refused(seccomp::POLICY, "SCHED_IDLE was refused"));
}

/// A filter may return any errno.
#[test]
fn policy_refused_later_with_another_errno() {
    isolated(60, || {
        refused_with(libc::ENOSYS, seccomp::POLICY, "SCHED_IDLE was refused");
    });
}

/// The CPUs are taken away, as when the cpuset moves to other CPUs: no mask that was valid before
/// is valid now, and not all workers notice at once.
#[test]
fn all_cpus_of_the_old_mask_taken_away() {
    isolated(60, || {
        let early = default_runtime();
        // These workers have their CPU already.
        run_mixed_tasks(&early, 100);
        if let Err(error) = seccomp::refuse_with(libc::EINVAL, seccomp::AFFINITY) {
            skip!("no seccomp filter here: {error}");
        }
        // The same workers, and some that are made after the filter was installed.
        for _ in 0..3 {
            let gate = Arc::new(BlockerGate::new());
            let blocked: Vec<_> = (0..40)
                .map(|_| {
                    let gate = Arc::clone(&gate);
                    early.spawn_blocking(move || gate.wait())
                })
                .collect();
            eventually("all are blocked", || gate.waiting() == 40);
            gate.open();
            for handle in blocked {
                handle.join().expect("it ends");
            }
            run_mixed_tasks(&early, 200);
        }
        is_said("a CPU was taken away");
        let late = default_runtime();
        run_mixed_tasks(&late, 100);
        assert_blocks_are_seen(&late);
    });
}

#[test]
fn slices_refused() {
    isolated(60, || {
        refused_from_the_start(seccomp::ATTRIBUTES, "no time slice of 1 ms");
    });
}

#[test]
fn all_scheduling_calls_refused() {
    isolated(60, || {
        let all = [seccomp::AFFINITY, seccomp::POLICY, seccomp::ATTRIBUTES].concat();
        refused_from_the_start(&all, "sched_setaffinity is refused");
        is_said("no time slice of 1 ms");
    });
}

#[test]
fn all_scheduling_calls_refused_later() {
    isolated(60, || {
        let all = [seccomp::AFFINITY, seccomp::POLICY, seccomp::ATTRIBUTES].concat();
        refused(&all, "sched_setaffinity was refused");
    });
}

/// The same for the metrics of a runtime.
fn in_the_metrics(says: &str) {
    let metrics = default_runtime().metrics();
    if metrics.provider_kind() == ProviderKind::Emulated {
        let text = metrics.provider_description();
        assert!(
            text.contains(says),
            "the description lacks {says:?}: {text}"
        );
    }
}

/// Trace B2. The sentinel shares the CPU with a loop of `sched_yield`, and leaves most of the CPU
/// to the loop.
#[test]
fn a_loop_of_sched_yield_keeps_most_of_its_cpu() {
    isolated(60, || {
        let runtime = runtime_with(1);
        // CPU times are compared, because other processes may want this CPU too.
        let (own, sentinels) = runtime
            .spawn_blocking(|| {
                let before = (thread_time(), sentinel_time());
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(400) {
                    thread::yield_now();
                }
                (thread_time() - before.0, sentinel_time() - before.1)
            })
            .join()
            .unwrap();
        // On a machine at rest the sentinel takes a twentieth. A sentinel that spins would take ten
        // times as much as the loop.
        assert!(
            sentinels < own / 2,
            "{own:?} for the loop, {sentinels:?} for the sentinel"
        );
    });
}

/// The CPU time of all sentinels of this process.
fn sentinel_time() -> Duration {
    let nanoseconds = proc::threads()
        .into_iter()
        .filter(|&tid| proc::status(tid, "Name").is_some_and(|n| n.starts_with("umcg-sentinel")))
        .filter_map(|tid| {
            let stat = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanoseconds)
}

fn thread_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a live place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn tasks_that_move_and_change_themselves_do_no_harm() {
    isolated(60, || {
        let cpus = cpu::affinity();
        let runtime = default_runtime();
        let handles: Vec<_> = (0..120_usize)
            .map(|i| {
                let cpus = cpus.clone();
                runtime.spawn_blocking(move || {
                    match i % 6 {
                        0 => cpu::set_affinity(0, &cpus[..1]).unwrap(),
                        1 => cpu::set_affinity(0, &cpus[cpus.len() - 1..]).unwrap(),
                        2 => cpu::set_affinity(0, &cpus).unwrap(),
                        // This is refused to a worker that an earlier task has made SCHED_IDLE: an
                        // unprivileged thread cannot leave that policy.
                        3 => drop(cpu::set_policy(libc::SCHED_OTHER)),
                        4 => cpu::set_policy(libc::SCHED_IDLE).unwrap(),
                        // Raising the niceness is always permitted.
                        // SAFETY: plain values; 0 is the calling thread.
                        _ => unsafe { _ = libc::setpriority(libc::PRIO_PROCESS, 0, 10) },
                    }
                    thread::sleep(Duration::from_millis(2));
                    i
                })
            })
            .collect();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i);
        }
        run_mixed_tasks(&runtime, 100);
        assert_blocks_are_seen(&runtime);
    });
}

#[test]
fn a_busy_foreign_process_delays_and_stops_nothing() {
    isolated(60, || {
        let cpus = cpu::affinity();
        // The server has no choice but to share this CPU.
        cpu::set_affinity(0, &cpus[..1]).expect("a CPU of the mask");
        let runtime = runtime_with(1);
        let Ok(_busy) = BusyProcess::on(cpus[0]) else {
            skip!("no shell to keep a CPU busy");
        };
        let begun = Instant::now();
        // Each task must be seen as blocked before the next one starts. If each took the bound of
        // the monitor, 200 of them would take the whole time limit.
        let handles: Vec<_> = (0..200_u64)
            .map(|i| {
                runtime.spawn_blocking(move || {
                    thread::sleep(Duration::from_millis(20));
                    i
                })
            })
            .collect();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i as u64);
        }
        // One after another they would take 4 s.
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_blocks_are_seen(&runtime);
    });
}

/// Runs tasks that block for a moment until one of them is on a worker with this policy. The time
/// slice must still be the worker's, if the kernel has time slices.
fn comes_to_policy(runtime: &Runtime, policy: i32, what: &str) {
    let own_slice = runtime.spawn_blocking(cpu::slice).join().unwrap();
    eventually(what, || {
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                runtime.spawn_blocking(|| {
                    // Longer than the monitor looks away: it needs two looks at a worker that
                    // sleeps.
                    thread::sleep(Duration::from_millis(3));
                    umcg::thread::yield_now();
                    (cpu::policy(0), cpu::slice())
                })
            })
            .collect();
        tasks.into_iter().any(|task| {
            let (seen, slice) = task.join().unwrap();
            assert_eq!(slice, own_slice, "the slice of policy {seen}");
            seen == policy
        })
    });
}

/// Trace B3.
#[test]
fn workers_leave_sched_batch_beside_a_busy_process_and_come_back() {
    isolated(60, || {
        let cpus = cpu::affinity();
        cpu::set_affinity(0, &cpus[..1]).expect("a CPU of the mask");
        let runtime = runtime_with(1);
        if runtime.metrics().provider_kind() != ProviderKind::Emulated {
            // The kernel reports blocks whatever else runs.
            return comes_to_policy(&runtime, libc::SCHED_OTHER, "the policy that it had");
        }
        comes_to_policy(&runtime, libc::SCHED_BATCH, "SCHED_BATCH at first");
        {
            let Ok(_busy) = BusyProcess::on(cpus[0]) else {
                skip!("no shell to keep a CPU busy");
            };
            comes_to_policy(&runtime, libc::SCHED_OTHER, "SCHED_OTHER beside it");
        }
        comes_to_policy(&runtime, libc::SCHED_BATCH, "SCHED_BATCH again");
    });
}

#[test]
fn stop_and_continue() {
    isolated(60, || {
        let runtime = default_runtime();
        let ticks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&ticks);
        let ticker = runtime.spawn(async move {
            for _ in 0..100 {
                umcg::time::sleep(Duration::from_millis(2)).await;
                counted.fetch_add(1, SeqCst);
            }
        });
        let script = format!(
            "i=0; while [ $i -lt 10 ]; do kill -STOP {0}; sleep 0.02; kill -CONT {0}; sleep 0.01; \
             i=$((i+1)); done",
            id()
        );
        let mut other = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .expect("a shell");
        while other.try_wait().expect("wait for the shell").is_none() {
            run_mixed_tasks(&runtime, 20);
        }
        ticker.join().unwrap();
        assert_eq!(ticks.load(SeqCst), 100);
        assert_blocks_are_seen(&runtime);
    });
}

/// A cgroup of this test, which is removed when this value is dropped.
struct Cgroup {
    path: PathBuf,
    /// The cgroup that this process came from.
    home: PathBuf,
}

impl Cgroup {
    /// A cgroup with a fifth of one CPU, which the calling process joins.
    fn with_quota() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let path_of = |line: &str| line.rsplit_once(':').map(|(_, path)| path.to_owned());
        let v1 = own.lines().find(|line| {
            line.split(':')
                .nth(1)
                .is_some_and(|c| c.split(',').any(|c| c == "cpu"))
        });
        let (root, line) = match v1 {
            Some(line) => ("/sys/fs/cgroup/cpu", line),
            None => (
                "/sys/fs/cgroup",
                own.lines()
                    .find(|line| line.starts_with("0::"))
                    .unwrap_or(""),
            ),
        };
        let own = path_of(line).unwrap_or_default();
        let home = Path::new(root).join(own.trim_start_matches('/'));
        let path = home.join(format!("umcg-test-{}", id()));
        fs::create_dir(&path)?;
        let group = Self { path, home };
        if v1.is_some() {
            fs::write(group.path.join("cpu.cfs_period_us"), "50000")?;
            fs::write(group.path.join("cpu.cfs_quota_us"), "10000")?;
        } else {
            fs::write(group.path.join("cpu.max"), "10000 50000")?;
        }
        fs::write(group.path.join("cgroup.procs"), id().to_string())?;
        Ok(group)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.home.join("cgroup.procs"), id().to_string());
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn a_cpu_quota_delays_and_stops_nothing() {
    isolated(90, || {
        let group = match Cgroup::with_quota() {
            Ok(group) => group,
            Err(error) => skip!("no cgroup with a CPU quota can be made here: {error}"),
        };
        let runtime = default_runtime();
        // Enough work to be throttled in several periods.
        let handles: Vec<_> = (0..60_u64)
            .map(|i| {
                runtime.spawn_blocking(move || {
                    let used = thread_time();
                    while thread_time() - used < Duration::from_millis(1) {}
                    thread::sleep(Duration::from_millis(1));
                    i
                })
            })
            .collect();
        for (i, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), i as u64);
        }
        assert_blocks_are_seen(&runtime);
        drop(runtime);
        drop(group);
    });
}
