//! What `/proc` says about a thread of this process.

use std::{fs, io};

/// The state letter of `/proc/self/task/TID/stat`, or `None` if there is no such thread.
#[must_use]
pub fn state(tid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether the thread sleeps in the kernel.
#[must_use]
pub fn asleep(tid: u32) -> bool {
    matches!(state(tid), Some('S' | 'D'))
}

/// The value of one line of `/proc/self/task/TID/status`.
#[must_use]
pub fn status(tid: u32, key: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let line = status
        .lines()
        .find(|line| line.split(':').next() == Some(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The tids of all threads of this process.
#[must_use]
pub fn threads() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Turns the result of a system call into a `Result`.
pub(crate) fn check(result: i32) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
