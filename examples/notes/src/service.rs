//! The service as a child process.

use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

/// Where and how the kernel schedules a child process.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// The CPUs that it may use. Empty: those of this process.
    pub cpus: Vec<usize>,
    /// Whether its threads have the policy SCHED_BATCH, as under `chrt -b 0`.
    pub batch: bool,
}

impl Placement {
    /// Has `command` start its process with this placement.
    pub fn apply(&self, command: &mut Command) {
        let batch = self.batch;
        let set = (!self.cpus.is_empty()).then(|| {
            // SAFETY: a cpu_set_t is an array of integers, for which zero is valid.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            for &cpu in &self.cpus {
                // SAFETY: CPU_SET writes to a live set, and checks the bounds of its array.
                unsafe { libc::CPU_SET(cpu, &mut set) };
            }
            set
        });
        let place = move || {
            if let Some(set) = &set {
                // SAFETY: sched_setaffinity reads a live set of the given size.
                if unsafe { libc::sched_setaffinity(0, size_of_val(set), set) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if batch {
                let parameter = libc::sched_param { sched_priority: 0 };
                // SAFETY: sched_setscheduler reads a live sched_param.
                if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter) }
                    != 0
                {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec, the closure makes two system calls and reads errno. It
        // does not allocate, and takes no locks.
        unsafe { command.pre_exec(place) };
    }
}

/// Returns the CPUs that this process may use.
///
/// # Errors
/// The system's.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sched_getaffinity writes to a live set of the given size.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..libc::CPU_SETSIZE as usize)
        // SAFETY: CPU_ISSET reads a live set, and the number is within its bounds.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// A service that runs as a child process. If this is dropped, the process is killed.
#[derive(Debug)]
pub struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts the binary `program` on the system `on`, with the database `file` and on a free port.
    /// Waits until it listens.
    ///
    /// # Errors
    /// The process cannot be started, ends at once, or does not listen within ten seconds.
    pub fn start(
        program: &Path,
        on: &str,
        file: &Path,
        placement: &Placement,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--on", on, "--file"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        placement.apply(&mut command);
        let mut child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let stdout = child.stdout.take().context("the service has no stdout")?;
        let mut service = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let (sender, receiver) = mpsc::channel();
        // Reads in a thread of its own, because a read from a pipe has no time limit.
        thread::spawn(move || {
            let mut line = String::new();
            let result = BufReader::new(stdout).read_line(&mut line).map(|_| line);
            // An error means that nobody waits for the line any more.
            let _ = sender.send(result);
        });
        let line = receiver
            .recv_timeout(Duration::from_secs(10))
            .context("the service did not listen within 10 s")??;
        let address = line.trim_end().rsplit(' ').next().unwrap_or_default();
        service.address = address
            .parse()
            .with_context(|| format!("the service ended, or printed {line:?} first"))?;
        Ok(service)
    }

    /// Returns the address that the service listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM to the process, unless it has ended.
    ///
    /// # Errors
    /// The system's.
    pub fn terminate(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        // SAFETY: kill has no memory preconditions. The child has not been waited for, so its id
        // cannot have gone to another process.
        if unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// It did not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(
                Instant::now() < end,
                "the service did not end within {limit:?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops the service with SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It did not end within ten seconds, or it failed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.terminate().context("SIGTERM cannot be sent")?;
        let status = self.wait(Duration::from_secs(10))?;
        anyhow::ensure!(status.success(), "the service ended with {status}");
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail if the process has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
