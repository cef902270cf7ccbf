//! What the threads of a process are doing, for the report of one that hangs.

use std::{
    env,
    fmt::Write,
    fs,
    process::{Command, Stdio},
};

/// Threads that are listed one by one.
const LISTED: usize = 100;

/// One line a thread: its name, state, CPU time in ticks, kernel function and system call. With
/// `UMCG_TESTS_GDB=1` the stacks, too, if there is a gdb.
#[must_use]
pub fn process(pid: u32) -> String {
    let mut report = format!("--- threads of {pid}\n");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return report + "no such process, or no /proc\n";
    };
    let tids: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    for thread in tids.iter().take(LISTED) {
        let read = |file: &str| {
            fs::read_to_string(thread.join(file)).map_or_else(
                |error| error.kind().to_string(),
                |text| text.trim().to_owned(),
            )
        };
        let stat = read("stat");
        let fields: Vec<_> = stat
            .rsplit_once(") ")
            .map_or("", |(_, rest)| rest)
            .split(' ')
            .collect();
        let field = |number: usize| fields.get(number).copied().unwrap_or("?");
        let _ = writeln!(
            report,
            "{} {} {} user {} system {} cpu {} wchan {} syscall {}",
            thread.file_name().unwrap_or_default().to_string_lossy(),
            read("comm"),
            field(0),
            field(11),
            field(12),
            field(36),
            read("wchan"),
            read("syscall"),
        );
    }
    if tids.len() > LISTED {
        let _ = writeln!(report, "and {} more", tids.len() - LISTED);
    }
    if env::var_os("UMCG_TESTS_GDB").is_some_and(|value| value == "1") {
        report += &stacks(pid);
    }
    report
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
