//! How many workers there may be by default: as many as the system lets this process have threads,
//! less a margin.
//!
//! A task that blocks needs a worker of its own. A worker limit that is lower than what the system
//! allows would let tasks wait although threads are available, so by default the limits of the
//! system are the limit. The runtime stays below them by an eighth: threads that the application
//! and its libraries make, and other processes under the same limit, need room too.
//!
//! The limits are read once, when a runtime is built. How many threads exist at that moment is not
//! subtracted: it says little about later, and a number that is too high does no harm. If the
//! system refuses a thread all the same, the worker spawner tries again until it gets one.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// What the records of the emulated provider suffice for. The scheduler and the device provider
/// allow more.
pub(crate) const MAX_THREADS: u64 = 1 << 20;

/// Each worker has up to four mappings: its stack, its signal stack, and a guard for each.
const MAPPINGS_OF_A_WORKER: u64 = 4;

/// This part of each limit is left for others.
const MARGIN: u64 = 8;

/// The limits that the system sets to the threads of a process. `None`: there is no such limit, or
/// it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadLimits {
    /// RLIMIT_NPROC: the threads of the user. Root is exempt from it in the initial user namespace,
    /// and in others not, so it counts for root as well.
    user: Option<u64>,
    /// The smallest `pids.max` of the process's cgroup and of those that it is in.
    cgroup: Option<u64>,
    /// `vm.max_map_count`: the mappings of the process.
    mappings: Option<u64>,
    /// `kernel.threads-max`: the threads of the system.
    system: Option<u64>,
    /// `kernel.pid_max`: the ids for threads.
    ids: Option<u64>,
}

impl ThreadLimits {
    /// Reads the limits of this process.
    pub(crate) fn read() -> Self {
        Self {
            user: user_limit(),
            cgroup: cgroup_limit(),
            mappings: number("/proc/sys/vm/max_map_count"),
            system: number("/proc/sys/kernel/threads-max"),
            ids: number("/proc/sys/kernel/pid_max"),
        }
    }

    /// The default of [`Builder::max_workers`](crate::Builder::max_workers). At least 1.
    pub(crate) fn workers(&self) -> usize {
        // What Linux sets by default, where these cannot be read: each Linux has them.
        let mappings = self.mappings.unwrap_or(65_530) / MAPPINGS_OF_A_WORKER;
        let ids = self.ids.unwrap_or(32_768);
        let threads = [
            self.user,
            self.cgroup,
            self.system,
            Some(mappings),
            Some(ids),
        ]
        .into_iter()
        .flatten()
        .fold(MAX_THREADS, u64::min);
        let workers = (threads - threads / MARGIN).max(1);
        usize::try_from(workers).expect("it is at most `MAX_THREADS`")
    }
}

fn user_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes to a live rlimit.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn cgroup_limit() -> Option<u64> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    pids_folders(&cgroups, &mounts)
        .iter()
        .filter_map(|folder| number(folder.join("pids.max")))
        .min()
}

/// The number in a file. `None` also if the file says `max`.
fn number(file: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The folders that may have a file `pids.max` which holds for this process, by the texts of
/// `/proc/self/cgroup` and `/proc/self/mountinfo`: those of its cgroup and of all cgroups around
/// it, in version 2 and in version 1. A machine may have mounted both.
fn pids_folders(cgroups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroups.lines() {
        // The number of the hierarchy, its controllers, and the path of the cgroup in it. Version 2
        // names no controllers.
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let has_pids = |list: &str| list.split(',').any(|name| name == "pids");
        let version_2 = id == "0" && controllers.is_empty();
        if !version_2 && !has_pids(controllers) {
            continue;
        }
        let mount = mounts.lines().filter_map(Mount::parse).find(|mount| {
            if version_2 {
                mount.kind == "cgroup2"
            } else {
                mount.kind == "cgroup" && has_pids(mount.options)
            }
        });
        if let Some(mount) = mount {
            let own = mount.folder_of(Path::new(path));
            let top = Path::new(mount.point);
            folders.extend(
                own.ancestors()
                    .take_while(|folder| folder.starts_with(top))
                    .map(Path::to_owned),
            );
        }
    }
    folders
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    /// The folder of the file system that is mounted.
    root: &'a str,
    /// Where it is mounted.
    point: &'a str,
    /// The type of the file system.
    kind: &'a str,
    /// The options of the file system, for cgroups of version 1 the controllers among them.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // The number of optional fields before the dash varies.
        let (place, file_system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut file_system = file_system.split(' ');
        Some(Self {
            root: place.next()?,
            point: place.next()?,
            kind: file_system.next()?,
            options: file_system.nth(1)?,
        })
    }

    /// The folder of a cgroup. A container may see only a part of the hierarchy: then the mount's
    /// root is a cgroup in it, and the cgroup is below that or is not visible. For one that is not
    /// visible this is the folder of the root, which is a cgroup that the container is in.
    fn folder_of(&self, cgroup: &Path) -> PathBuf {
        let mut folder = PathBuf::from(self.point);
        let below = cgroup.strip_prefix(self.root).unwrap_or(Path::new(""));
        if !below.components().any(|part| part == Component::ParentDir) {
            // One by one: `join` with an empty path would add a slash.
            folder.extend(below);
        }
        folder
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The limits of a Debian machine with 24 GB of memory.
    const USUAL: ThreadLimits = ThreadLimits {
        user: Some(96_365),
        cgroup: None,
        mappings: Some(65_530),
        system: Some(192_730),
        ids: Some(4_194_304),
    };

    #[test]
    fn the_lowest_limit_decides() {
        assert_eq!(USUAL.workers(), 14_335, "by its mappings");
        let with = |change: fn(&mut ThreadLimits)| {
            let mut limits = USUAL;
            change(&mut limits);
            limits.workers()
        };
        assert_eq!(with(|limits| limits.user = Some(800)), 700);
        // The default of systemd for a service on a machine whose `pid_max` is 32768.
        assert_eq!(with(|limits| limits.cgroup = Some(4_915)), 4_301);
        assert_eq!(with(|limits| limits.system = Some(8_000)), 7_000);
        assert_eq!(with(|limits| limits.ids = Some(8_000)), 7_000);
        assert_eq!(with(|limits| limits.mappings = Some(32_000)), 7_000);
    }

    #[test]
    fn low_limits_leave_a_worker() {
        for low in 0..3 {
            let limits = ThreadLimits {
                cgroup: Some(low),
                ..USUAL
            };
            assert_eq!(limits.workers(), low.max(1) as usize);
        }
    }

    #[test]
    fn limits_that_are_high_or_unknown_leave_the_providers() {
        let high = Some(u64::MAX);
        let limits = ThreadLimits {
            user: high,
            cgroup: high,
            mappings: high,
            system: high,
            ids: high,
        };
        assert_eq!(limits.workers(), 917_504);
        assert_eq!(ThreadLimits::default().workers(), 14_335);
    }

    #[test]
    fn this_process_has_limits() {
        let limits = ThreadLimits::read();
        assert!(
            limits.mappings.is_some() && limits.ids.is_some(),
            "{limits:?}"
        );
        assert!(limits.workers() > 1, "{limits:?}");
    }

    fn folders(cgroups: &str, mounts: &str) -> Vec<String> {
        pids_folders(cgroups, mounts)
            .iter()
            .map(|folder| folder.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_cgroup_of_version_2_and_those_around_it() {
        let mounts = "25 30 0:23 / /sys rw,nosuid - sysfs sysfs rw\n\
            35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            folders("0::/system.slice/a b.service\n", mounts),
            [
                "/sys/fs/cgroup/system.slice/a b.service",
                "/sys/fs/cgroup/system.slice",
                "/sys/fs/cgroup",
            ]
        );
    }

    #[test]
    fn a_cgroup_of_version_1_beside_version_2() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cgroups = "8:pids:/jobs/7\n1:cpu:/other\n0::/\nnonsense\n";
        assert_eq!(
            folders(cgroups, mounts),
            [
                "/sys/fs/cgroup/pids/jobs/7",
                "/sys/fs/cgroup/pids/jobs",
                "/sys/fs/cgroup/pids",
                "/sys/fs/cgroup/unified",
            ]
        );
    }

    #[test]
    fn a_container_sees_a_part_of_the_hierarchy() {
        let mount = |root: &str| {
            format!("39 31 0:36 {root} /sys/fs/cgroup/pids ro master:11 - cgroup cgroup rw,pids\n")
        };
        let cgroups = "8:pids:/docker/abc/web\n";
        assert_eq!(
            folders(cgroups, &mount("/docker/abc")),
            ["/sys/fs/cgroup/pids/web", "/sys/fs/cgroup/pids"]
        );
        for root in ["/docker/xyz", "/docker/abc/web"] {
            assert_eq!(folders(cgroups, &mount(root)), ["/sys/fs/cgroup/pids"]);
        }
        // A process outside of the cgroup namespace that the mount belongs to.
        assert_eq!(
            folders("8:pids:/../other\n", &mount("/")),
            ["/sys/fs/cgroup/pids"]
        );
    }

    #[test]
    fn without_the_files_of_cgroups_there_is_no_folder() {
        assert!(folders("", "").is_empty());
        assert!(folders("8:pids:/\n0::/\n", "1 2 0:3 / / rw - ext4 /dev/root rw\n").is_empty());
    }
}
