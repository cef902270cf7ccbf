//! What the process of the service uses, from /proc.

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::Context;

/// What a process has used up to a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// The CPU time of all its threads, ended ones included, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The voluntary and involuntary context switches of each thread that exists, by thread id.
    pub(crate) switches: HashMap<u32, u64>,
    /// Its resident memory in KiB.
    pub(crate) resident_kib: u64,
}

impl Usage {
    /// Reads what the process `pid` has used.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let read = |file| {
            fs::read_to_string(folder.join(file))
                .with_context(|| format!("the process {pid} cannot be examined"))
        };
        let mut usage = Self {
            cpu_seconds: cpu_ticks(&read("stat")?).context("/proc/PID/stat has an unknown form")?
                as f64
                / ticks_per_second(),
            resident_kib: field(&read("status")?, "VmRSS").unwrap_or(0),
            ..Self::default()
        };
        for task in fs::read_dir(folder.join("task"))? {
            let task = task?;
            let Some(tid) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // An error means that the thread has just ended.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else {
                continue;
            };
            let switches = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
                .iter()
                .filter_map(|name| field(&status, name))
                .sum();
            usage.switches.insert(tid, switches);
        }
        Ok(usage)
    }

    /// Returns the context switches since `before`. Those of threads that have ended since then are
    /// not known and not counted.
    pub(crate) fn switches_since(&self, before: &Self) -> u64 {
        let of = |usage: &Self, tid| usage.switches.get(tid).copied().unwrap_or(0);
        self.switches
            .iter()
            // A thread that has the id of one that ended may have fewer.
            .map(|(tid, count)| count.saturating_sub(of(before, tid)))
            .sum()
    }
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// Returns the user and system time from the text of /proc/PID/stat.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name of the program, in parentheses, may contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Returns the number in the line `name:` of /proc/PID/status.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_understood() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 300 45 0 0 20 0 9";
        assert_eq!(cpu_ticks(stat), Some(345));
        let status = "Name:\tx\nVmRSS:\t   1234 kB\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(status, "VmRSS"), Some(1234));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches"), Some(7));
        assert_eq!(field(status, "voluntary_ctxt_switches"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 0 && !usage.switches.is_empty());
        assert!(Usage::of(u32::MAX).is_err());
    }

    #[test]
    fn switches_of_new_threads_count_and_those_of_ended_ones_do_not() {
        let usage = |switches: &[(u32, u64)]| Usage {
            switches: switches.iter().copied().collect(),
            ..Usage::default()
        };
        let before = usage(&[(1, 10), (2, 100)]);
        assert_eq!(usage(&[(1, 15), (3, 7)]).switches_since(&before), 12);
    }
}
