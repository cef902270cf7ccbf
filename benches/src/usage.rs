//! The resources that the process has used, and the number of its threads.

use std::{fs, thread, time::Duration};

/// CPU time and context switches of the whole process, including threads that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// How often a thread gave its CPU up.
    pub voluntary: u64,
    /// How often a thread was taken off its CPU.
    pub involuntary: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
}

impl Usage {
    /// The usage so far.
    pub fn now() -> Self {
        // SAFETY: an all-zero rusage is valid, and the call fills it.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the buffer is alive.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        let part = |t: libc::timeval| {
            Duration::from_secs(t.tv_sec as u64) + Duration::from_micros(t.tv_usec as u64)
        };
        Self {
            cpu: part(usage.ru_utime) + part(usage.ru_stime),
            voluntary: usage.ru_nvcsw as u64,
            involuntary: usage.ru_nivcsw as u64,
            minor_faults: usage.ru_minflt as u64,
        }
    }

    /// The difference to an `earlier` value.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            voluntary: self.voluntary - earlier.voluntary,
            involuntary: self.involuntary - earlier.involuntary,
            minor_faults: self.minor_faults - earlier.minor_faults,
        }
    }
}

/// Waits until the process uses almost no CPU time, so that the last measurement does not disturb
/// the next.
pub fn settle() {
    for _ in 0..100 {
        let before = Usage::now();
        thread::sleep(Duration::from_millis(3));
        if Usage::now().since(before).cpu < Duration::from_micros(100) {
            return;
        }
    }
}

/// The number of threads of the process.
pub fn threads() -> usize {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may contain any characters. After it, state is field 3 and num_threads
    // is field 20.
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(17))
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// The number of threads whose name begins with one of `prefixes`, which are separated by `|`.
pub fn threads_named(prefixes: &str) -> usize {
    fs::read_dir("/proc/self/task")
        .map(|tasks| {
            tasks
                .flatten()
                .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
                .filter(|name| prefixes.split('|').any(|prefix| name.starts_with(prefix)))
                .count()
        })
        .unwrap_or(0)
}

/// A field of `/proc/self/status` in KiB.
pub fn status_kib(field: &str) -> u64 {
    field_kib("/proc/self/status", field)
}

/// A field of `/proc/meminfo` in KiB, which is about the whole machine.
pub fn memory_kib(field: &str) -> u64 {
    field_kib("/proc/meminfo", field)
}

fn field_kib(file: &str, field: &str) -> u64 {
    fs::read_to_string(file)
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|n| n.parse().ok())
        })
        .unwrap_or(0)
}

/// The number of voluntary switches so far of all living threads but the calling one.
pub fn switches_of_others() -> u64 {
    // SAFETY: no arguments, never fails.
    let me = unsafe { libc::gettid() }.to_string();
    fs::read_dir("/proc/self/task")
        .map(|tasks| {
            tasks
                .flatten()
                .filter(|task| task.file_name().to_str() != Some(&me))
                .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
                .filter_map(|text| {
                    text.lines()
                        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
                        .and_then(|n| n.trim().parse::<u64>().ok())
                })
                .sum()
        })
        .unwrap_or(0)
}
