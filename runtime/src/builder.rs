//! How a runtime is made.

use std::{env, ffi::OsString, fmt, sync::Arc, time::Duration};

use umcg_sys::{EmulatedOptions, Provider, ProviderChoice, Selected, select_with};

use crate::{
    BuildError, Handle, Runtime,
    hooks::Hooks,
    sched::{Config, Shared},
};

/// How many servers, unless the builder says.
const SERVERS_ENV: &str = "UMCG_SERVERS";
/// How many workers at most, unless the builder says.
pub(crate) const MAX_WORKERS_ENV: &str = "UMCG_MAX_WORKERS";

/// Default of [`Builder::max_workers`]; the reasons are there.
const MAX_WORKERS: usize = 4096;

/// Default of [`Builder::keep_alive`].
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Default of [`Builder::thread_stack_size`], that of std.
const STACK_SIZE: usize = 2 << 20;

/// More servers or workers than any machine has.
const SANE: usize = 1 << 20;

/// Makes a [`Runtime`].
///
/// # Examples
///
/// ```
/// let runtime = umcg::Builder::new()
///     .servers(2)
///     .max_workers(100)
///     .thread_name("io")
///     .on_worker_start(|id| println!("worker {id} starts"))
///     .build()?;
/// assert_eq!(runtime.metrics().servers.len(), 2);
/// # Ok::<(), umcg::BuildError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes no runtime by itself"]
pub struct Builder {
    servers: Option<usize>,
    max_workers: Option<usize>,
    min_idle_workers: u32,
    keep_alive: Duration,
    thread_name: String,
    thread_stack_size: Option<usize>,
    pin: bool,
    queue_limit: Option<usize>,
    provider: Option<ProviderChoice>,
    hooks: Hooks,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// The defaults that each method names.
    pub fn new() -> Self {
        Self {
            servers: None,
            max_workers: None,
            min_idle_workers: 1,
            keep_alive: KEEP_ALIVE,
            thread_name: "umcg".into(),
            thread_stack_size: None,
            pin: true,
            queue_limit: None,
            provider: None,
            hooks: Hooks::default(),
        }
    }

    /// How many servers: the number of workers that may run at a time, apart from those that
    /// unblocked and run on to their next checkpoint (emulated provider).
    ///
    /// Default: the environment variable `UMCG_SERVERS`, or else
    /// [`std::thread::available_parallelism`], which knows the affinity mask and cgroup quotas.
    /// What is set here goes before the variable.
    pub fn servers(mut self, servers: usize) -> Self {
        self.servers = Some(servers);
        self
    }

    /// How many workers, which are threads, there may be. Those that wait in one of the
    /// runtime's own waits (join, scope, park, nested `block_on`) do not count.
    ///
    /// Where the limit is reached with all workers blocked, tasks stay queued until one
    /// unblocks; an event and [`RuntimeMetrics::at_cap`](crate::RuntimeMetrics::at_cap) say so.
    /// Since a program may need another thread to unblock those that wait, the limit is there
    /// against runaways, not to be reached.
    ///
    /// Default: the environment variable `UMCG_MAX_WORKERS`, or else 4096. That is eight times
    /// what tokio allows for blocking calls, and still below what systemd allows a service on a
    /// machine with default limits (4915 tasks). Threads are only made for tasks that are
    /// blocked; a blocked one takes some 30 KiB of memory, so that all of them take about
    /// 130 MiB. What is set here goes before the variable.
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = Some(max_workers);
        self
    }

    /// How many idle workers each server keeps for good. Default 1.
    ///
    /// With at least one, spares are made while others still run, so that a block does not wait
    /// for a new thread. With 0 a server that has nothing to do ends all of its threads but its
    /// own, and its next task waits for a thread.
    pub fn min_idle_workers(mut self, min_idle_workers: u32) -> Self {
        self.min_idle_workers = min_idle_workers;
        self
    }

    /// How long a worker beyond [`min_idle_workers`](Self::min_idle_workers) is idle before it
    /// leaves. Default 10 s.
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// What the names of the runtime's threads begin with. Linux shows the first 15 bytes.
    /// Default `umcg`.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// The stack of each worker in bytes; memory is taken as it is touched. Default: the
    /// environment variable `RUST_MIN_STACK`, or else 2 MiB, as in std.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.thread_stack_size = Some(bytes);
        self
    }

    /// Whether each server and its workers are pinned to a CPU. Default true.
    ///
    /// Emulated provider: without pins there are no sentinels, so a block is seen later (50 us
    /// to 1 ms instead of a few us), and each switch may cross CPUs. Device: default placement
    /// is not pinned anyway.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// How many tasks may be queued before [`Handle::try_spawn`](crate::Handle::try_spawn)
    /// refuses. [`Handle::spawn`](crate::Handle::spawn) and wake-ups are not limited. Default:
    /// no limit.
    pub fn queue_limit(mut self, limit: usize) -> Self {
        self.queue_limit = Some(limit);
        self
    }

    /// Who reports blocks. Default: the environment variable `UMCG_PROVIDER`, or else
    /// [`ProviderChoice::Auto`]. What is set here goes before the variable.
    pub fn provider(mut self, choice: ProviderChoice) -> Self {
        self.provider = Some(choice);
        self
    }

    /// Has each worker call `f` with its id before its first task. If it panics the worker goes
    /// on. It may block, but not on a task of this runtime: the worker joins its server when `f`
    /// returns, and that server gets no other one before.
    ///
    /// Ids are small numbers; one that left may be given to a later worker.
    pub fn on_worker_start(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.hooks.on_worker_start = Some(Arc::new(f));
        self
    }

    /// Has each worker call `f` with its id after its last task, when it has left its server. If
    /// it panics the thread ends all the same.
    pub fn on_worker_stop(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.hooks.on_worker_stop = Some(Arc::new(f));
        self
    }

    /// Makes the runtime: starts its servers, one worker for each, and waits until the servers
    /// are ready. Says in an event which provider it took and why.
    ///
    /// # Errors
    ///
    /// A setting or an environment variable that cannot be used, a provider that cannot be had,
    /// a thread that the operating system refused. Nothing is left running.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let Selected { provider, why, .. } = self.select()?;
        self.build_on(provider, why)
    }

    fn select(&self) -> Result<Selected, BuildError> {
        let choice = match self.provider {
            Some(choice) => choice,
            None => ProviderChoice::from_env()
                .map_err(BuildError::Provider)?
                .unwrap_or_default(),
        };
        let mut options = EmulatedOptions::default();
        options.pin = self.pin;
        select_with(choice, options).map_err(BuildError::Provider)
    }

    fn build_on(self, provider: Arc<dyn Provider>, why: String) -> Result<Runtime, BuildError> {
        let (shared, threads) = Shared::start(self.config()?, provider, why)?;
        Ok(Runtime::from_parts(Handle::new(shared), threads))
    }

    fn config(self) -> Result<Config, BuildError> {
        if self.thread_name.contains('\0') {
            return Err(BuildError::Setting {
                name: "thread_name",
                why: "a thread's name cannot have a NUL byte in it",
            });
        }
        let servers = match checked("servers", self.servers)? {
            Some(servers) => Some(servers),
            None => from_env(SERVERS_ENV)?,
        };
        let max_workers = match checked("max_workers", self.max_workers)? {
            Some(max_workers) => Some(max_workers),
            None => from_env(MAX_WORKERS_ENV)?,
        };
        Ok(Config {
            servers: servers.unwrap_or_else(|| {
                // Unknown: one CPU there is.
                std::thread::available_parallelism().map_or(1, usize::from)
            }),
            max_workers: max_workers.unwrap_or(MAX_WORKERS),
            min_idle: self.min_idle_workers,
            keep_alive: self.keep_alive,
            thread_name: self.thread_name,
            stack_size: self.thread_stack_size.unwrap_or_else(|| {
                env::var("RUST_MIN_STACK")
                    .ok()
                    .and_then(|size| size.parse().ok())
                    .unwrap_or(STACK_SIZE)
            }),
            pin: self.pin,
            queue_limit: self.queue_limit,
            hooks: self.hooks,
        })
    }
}

fn checked(name: &'static str, number: Option<usize>) -> Result<Option<usize>, BuildError> {
    match number {
        Some(0) => Err(BuildError::Setting {
            name,
            why: "at least 1 is needed",
        }),
        Some(number) if number > SANE => Err(BuildError::Setting {
            name,
            why: "more than 1048576 is not supported",
        }),
        number => Ok(number),
    }
}

/// The number in an environment variable. `None`: not set, or empty.
fn from_env(name: &'static str) -> Result<Option<usize>, BuildError> {
    number(name, env::var_os(name))
}

fn number(name: &'static str, value: Option<OsString>) -> Result<Option<usize>, BuildError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    value
        .to_str()
        .and_then(|text| text.trim().parse().ok())
        .filter(|number| (1..=SANE).contains(number))
        .map(Some)
        .ok_or_else(|| BuildError::Env {
            name,
            value: value.to_string_lossy().into_owned(),
            why: "a whole number from 1 to 1048576 is needed",
        })
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("servers", &self.servers)
            .field("max_workers", &self.max_workers)
            .field("min_idle_workers", &self.min_idle_workers)
            .field("keep_alive", &self.keep_alive)
            .field("thread_name", &self.thread_name)
            .field("thread_stack_size", &self.thread_stack_size)
            .field("pin", &self.pin)
            .field("queue_limit", &self.queue_limit)
            .field("provider", &self.provider)
            .field("hooks", &self.hooks)
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Option<usize>, BuildError> {
        number(SERVERS_ENV, Some(value.into()))
    }

    #[test]
    fn variables_hold_whole_numbers_or_nothing() {
        assert_eq!(number(SERVERS_ENV, None).unwrap(), None);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("3").unwrap(), Some(3));
        assert_eq!(parse(" 12 ").unwrap(), Some(12));
    }

    #[test]
    fn other_values_are_errors_that_say_which_and_what_would_be_right() {
        for value in ["0", "-1", "many", "1.5", "99999999999999999999", "1048577"] {
            let error = parse(value).unwrap_err();
            assert!(matches!(error, BuildError::Env { .. }));
            let text = error.to_string();
            assert!(
                text.contains(SERVERS_ENV) && text.contains(value) && text.contains("whole number"),
                "{text}"
            );
        }
    }
}
