//! What the threads of a process are doing, for the report of a test that hangs.

use std::{
    env,
    fmt::Write,
    fs,
    process::{Command, Stdio},
};

/// The most threads that are listed one by one.
const LISTED: usize = 100;

/// A report with one line for each thread. With `UMCG_TESTS_GDB=1` it has the stacks as well, if
/// there is a gdb.
#[must_use]
pub fn of_process(pid: u32) -> String {
    let mut report = format!("--- threads of {pid}\n");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return report + "no such process, or no /proc\n";
    };
    let tids: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for &tid in tids.iter().take(LISTED) {
        let _ = writeln!(report, "{tid} {}", of_thread(pid, tid));
    }
    if tids.len() > LISTED {
        let _ = writeln!(report, "and {} more", tids.len() - LISTED);
    }
    if env::var_os("UMCG_TESTS_GDB").is_some_and(|value| value == "1") {
        report += &stacks(pid);
    }
    report
}

/// One thread: its name, its state, its CPU time in ticks, its CPU, and the kernel function and the
/// system call that it sleeps in.
#[must_use]
pub fn of_thread(pid: u32, tid: u32) -> String {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}")).map_or_else(
            |error| error.kind().to_string(),
            |text| text.trim().to_owned(),
        )
    };
    let stat = read("stat");
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return "no such thread".to_owned();
    };
    let fields: Vec<_> = fields.split(' ').collect();
    let field = |number: usize| fields.get(number).copied().unwrap_or("?");
    format!(
        "{} {} user {} system {} cpu {} wchan {} syscall {}",
        read("comm"),
        field(0),
        field(11),
        field(12),
        field(36),
        read("wchan"),
        read("syscall"),
    )
}

fn stacks(pid: u32) -> String {
    let output = Command::new("gdb")
        .args(["-p", &pid.to_string(), "-batch", "-nx"])
        .args(["-ex", "set pagination off", "-ex", "thread apply all bt 24"])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => format!("no gdb: {error}\n"),
    }
}
