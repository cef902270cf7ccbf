//! How a runtime is made.

use std::{env, ffi::OsString, fmt, sync::Arc, time::Duration};

use umcg_sys::{EmulatedOptions, Provider, ProviderChoice, Selected, select_with};

use crate::{
    BuildError, Handle, Runtime,
    hooks::Hooks,
    sched::{Config, Shared},
    thread_limits::ThreadLimits,
};

/// The environment variable for [`Builder::servers`].
const SERVERS_ENV: &str = "UMCG_SERVERS";
/// The environment variable for [`Builder::max_workers`].
const MAX_WORKERS_ENV: &str = "UMCG_MAX_WORKERS";
/// The environment variable for [`Builder::managed_calls`].
const MANAGED_CALLS_ENV: &str = "UMCG_MANAGED_CALLS";

/// Default of [`Builder::keep_alive`].
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Default of [`Builder::thread_stack_size`], that of std.
const STACK_SIZE: usize = 2 << 20;

/// More servers or workers than any machine has.
const SANE: usize = 1 << 20;

/// Makes a [`Runtime`].
///
/// # Coming from tokio
///
/// Methods that a program for tokio calls on its `Builder` exist under their names:
/// [`new_multi_thread`](Self::new_multi_thread), [`new_current_thread`](Self::new_current_thread),
/// [`worker_threads`](Self::worker_threads), [`max_blocking_threads`](Self::max_blocking_threads),
/// [`enable_all`](Self::enable_all), [`thread_name`](Self::thread_name),
/// [`thread_stack_size`](Self::thread_stack_size), [`thread_keep_alive`](Self::thread_keep_alive),
/// [`on_thread_start`](Self::on_thread_start) and others. The methods of this builder take it by
/// value. Not offered are `event_interval` and `global_queue_interval` (the scheduler has no such
/// constants), `on_thread_park` and `on_thread_unpark`, and what is unstable in tokio.
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
/// assert_eq!(runtime.metrics().num_servers(), 2);
/// # Ok::<(), umcg::BuildError>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder makes no runtime by itself"]
pub struct Builder {
    /// `None`: from the environment, or else the number of CPUs.
    servers: Option<usize>,
    /// `None`: from the environment, or else from the [`ThreadLimits`].
    max_workers: Option<usize>,
    /// For each server.
    min_idle_workers: usize,
    keep_alive: Duration,
    thread_name: String,
    /// `None`: from the environment, or else [`STACK_SIZE`].
    thread_stack_size: Option<usize>,
    pin: bool,
    /// `None`: no limit.
    managed_calls: Option<bool>,
    queue_limit: Option<usize>,
    provider: ProviderSource,
    hooks: Hooks,
}

/// Where the provider comes from.
#[derive(Clone, Debug)]
enum ProviderSource {
    /// From the environment, or else [`ProviderChoice::Auto`].
    Environment,
    /// The builder was told which one to make.
    Choice(ProviderChoice),
    /// The builder was given one.
    Given(Arc<dyn Provider>),
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A builder with the defaults that are given with each method.
    pub fn new() -> Self {
        Self {
            servers: None,
            max_workers: None,
            min_idle_workers: 1,
            keep_alive: KEEP_ALIVE,
            thread_name: "umcg".into(),
            thread_stack_size: None,
            pin: true,
            managed_calls: None,
            queue_limit: None,
            provider: ProviderSource::Environment,
            hooks: Hooks::default(),
        }
    }

    /// [`new`](Self::new), by tokio's name: every runtime runs its tasks on several threads.
    pub fn new_multi_thread() -> Self {
        Self::new()
    }

    /// [`new`](Self::new) with one [server](Self::servers), by tokio's name.
    ///
    /// At most one task runs at a time, but not on the thread that calls `block_on`: tasks run on
    /// workers, as in every runtime, and when one of them blocks another one runs meanwhile. So
    /// tasks and what they share have to be `Send`.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = umcg::Builder::new_current_thread().enable_all().build()?;
    /// assert_eq!(runtime.metrics().num_servers(), 1);
    /// # Ok::<(), umcg::BuildError>(())
    /// ```
    pub fn new_current_thread() -> Self {
        Self::new().servers(1)
    }

    /// Sets the number of servers. This is how many workers may run at a time, except that with
    /// the emulated provider a worker that unblocked also runs until its next checkpoint.
    ///
    /// Default: the environment variable `UMCG_SERVERS`, or else
    /// [`std::thread::available_parallelism`], which takes the affinity mask and cgroup quotas into
    /// account. A number that is set here takes precedence over the variable.
    pub fn servers(mut self, servers: usize) -> Self {
        self.servers = Some(servers);
        self
    }

    /// [`servers`](Self::servers), by tokio's name. It limits how many tasks run at a time. The
    /// number of threads is larger when tasks are blocked, see [`max_workers`](Self::max_workers).
    pub fn worker_threads(self, servers: usize) -> Self {
        self.servers(servers)
    }

    /// Sets the worker limit. A worker is a thread; those that wait in a call of the runtime
    /// (join, scope, park, nested `block_on`) do not count.
    ///
    /// If the limit is reached and all workers are blocked, tasks stay queued until one of the
    /// workers unblocks. A program may need another thread to unblock the ones that wait, so the
    /// limit is meant to stop runaway programs, not to be reached. When tasks have waited for a
    /// second because of it, a warning of `tracing` says so, at most once a minute, and
    /// [`RuntimeMetrics::worker_limit_waits_count`](crate::RuntimeMetrics::worker_limit_waits_count)
    /// counts it.
    ///
    /// Default: the environment variable `UMCG_MAX_WORKERS`, or else seven eighths of the number of
    /// threads that the system allows this process. That is the lowest of: RLIMIT_NPROC
    /// (`ulimit -u`), `pids.max` of the process's cgroup and of the cgroups around it (systemd's
    /// `TasksMax`), a quarter of `vm.max_map_count`, since a thread has up to four mappings,
    /// `kernel.threads-max`, and `kernel.pid_max`. It is 14335 if only `vm.max_map_count` has its
    /// usual value and the others are higher. The last eighth is left for threads that are no
    /// workers. The limits are read when the runtime is built. A number that is set here takes
    /// precedence over the variable.
    ///
    /// Workers are made for tasks that are blocked, and a high limit costs nothing until then. A
    /// blocked worker takes some 24 KiB of memory.
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = Some(max_workers);
        self
    }

    /// [`max_workers`](Self::max_workers), by tokio's name. In tokio it limits the threads for
    /// blocking closures alone. Here all tasks share the workers, so it limits all of them.
    pub fn max_blocking_threads(self, max_workers: usize) -> Self {
        self.max_workers(max_workers)
    }

    /// Sets how many idle workers each server keeps permanently. Default 1.
    ///
    /// With at least one, spare workers are made while others still run, so that a block does not
    /// wait for a new thread. With 0, a server that has nothing to do ends all of its threads but
    /// its own, and its next task waits for a thread.
    pub fn min_idle_workers(mut self, min_idle_workers: usize) -> Self {
        self.min_idle_workers = min_idle_workers;
        self
    }

    /// Sets how long a worker beyond [`min_idle_workers`](Self::min_idle_workers) is idle before
    /// it leaves. Default 10 s.
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// [`keep_alive`](Self::keep_alive), by tokio's name.
    pub fn thread_keep_alive(self, keep_alive: Duration) -> Self {
        self.keep_alive(keep_alive)
    }

    /// Sets what the names of the runtime's threads begin with. Linux shows the first 15 bytes of
    /// a thread's name. Default `umcg`.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Sets the stack size of each worker in bytes. Memory is taken as it is touched. Default: the
    /// environment variable `RUST_MIN_STACK`, or else 2 MiB, as in std.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.thread_stack_size = Some(bytes);
        self
    }

    /// Sets whether each server and its workers are pinned to a CPU. Default true.
    ///
    /// With the emulated provider, only pinned servers have sentinels. Without pins a block is seen
    /// later (50 us to 1 ms instead of a few us), and each switch may cross CPUs. The device does
    /// not pin by default.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Sets how many tasks may be queued before [`Handle::try_spawn`](crate::Handle::try_spawn)
    /// refuses more. [`Handle::spawn`](crate::Handle::spawn) and wake-ups are not limited. Default:
    /// no limit.
    pub fn queue_limit(mut self, limit: usize) -> Self {
        self.queue_limit = Some(limit);
        self
    }

    /// Sets which provider reports blocks. Default: the environment variable `UMCG_PROVIDER`, or
    /// else [`ProviderChoice::Auto`]. A choice that is made here takes precedence over the
    /// variable.
    pub fn provider(mut self, choice: ProviderChoice) -> Self {
        self.provider = ProviderSource::Choice(choice);
        self
    }

    /// Sets whether the runtime manages calls of libc that sleep: `recv`, `sleep`, locks and so on,
    /// see [`managed_calls!`](crate::managed_calls). It does so only in a program that has asked
    /// for it, by `#[umcg::main]` or by the macro, and only with the emulated provider: with the
    /// device the kernel reports every block.
    ///
    /// Default: on, unless the environment variable `UMCG_MANAGED_CALLS` is `0`.
    pub fn managed_calls(mut self, on: bool) -> Self {
        self.managed_calls = Some(on);
        self
    }

    /// Uses a provider that the program has made, instead of one that the builder makes: another
    /// implementation of [`umcg_sys::Provider`], or one that is wrapped to observe its calls.
    ///
    /// Replaces an earlier call of [`provider`](Self::provider), and is replaced by a later one.
    /// Several runtimes may share one provider.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use umcg_sys::{ProviderChoice, select};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let provider = select(ProviderChoice::Auto)?.provider;
    /// let runtime = umcg::Builder::new()
    ///     .with_provider(Arc::clone(&provider))
    ///     .build()?;
    /// assert_eq!(runtime.metrics().provider_kind(), provider.kind());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = ProviderSource::Given(provider);
        self
    }

    /// Does nothing, and is here so that code written for tokio compiles: timers always work (the
    /// first one makes their thread), and I/O needs no driver, since tasks may block.
    pub fn enable_all(self) -> Self {
        self
    }

    /// Does nothing, see [`enable_all`](Self::enable_all).
    pub fn enable_io(self) -> Self {
        self
    }

    /// Does nothing, see [`enable_all`](Self::enable_all).
    pub fn enable_time(self) -> Self {
        self
    }

    /// Has each worker call `f` with its id before its first task. Replaces an earlier hook.
    ///
    /// If `f` panics, the worker goes on. `f` may block, but not on a task of this runtime: the
    /// worker joins its server when `f` returns, and until then the server gets no other worker.
    ///
    /// Ids are small numbers. The id of a worker that left may be given to a later one.
    pub fn on_worker_start(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.hooks.on_worker_start = Some(Arc::new(f));
        self
    }

    /// Has each worker call `f` with its id after its last task, when it has left its server.
    /// Replaces an earlier hook. If `f` panics, the thread ends all the same.
    pub fn on_worker_stop(mut self, f: impl Fn(usize) + Send + Sync + 'static) -> Self {
        self.hooks.on_worker_stop = Some(Arc::new(f));
        self
    }

    /// [`on_worker_start`](Self::on_worker_start) with a hook that takes no id, by tokio's name.
    pub fn on_thread_start(self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_worker_start(move |_| f())
    }

    /// [`on_worker_stop`](Self::on_worker_stop) with a hook that takes no id, by tokio's name.
    pub fn on_thread_stop(self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_worker_stop(move |_| f())
    }

    /// Makes the runtime: starts its servers, and one worker for each, and waits until the servers
    /// are ready. An event says which provider the runtime uses, and why.
    ///
    /// # Errors
    ///
    /// A setting or an environment variable has a value that cannot be used, the provider that was
    /// asked for is not available, or the operating system refused a thread. Then nothing is left
    /// running.
    pub fn build(mut self) -> Result<Runtime, BuildError> {
        let source = std::mem::replace(&mut self.provider, ProviderSource::Environment);
        let choice = match source {
            ProviderSource::Given(provider) => {
                let why = "the program gave it to `Builder::with_provider`".to_owned();
                return self.build_on(provider, why);
            }
            ProviderSource::Choice(choice) => choice,
            ProviderSource::Environment => ProviderChoice::from_env()
                .map_err(BuildError::Provider)?
                .unwrap_or_default(),
        };
        let mut options = EmulatedOptions::default();
        options.pin = self.pin;
        let Selected { provider, why, .. } =
            select_with(choice, options).map_err(BuildError::Provider)?;
        self.build_on(provider, why)
    }

    fn build_on(self, provider: Arc<dyn Provider>, why: String) -> Result<Runtime, BuildError> {
        let (shared, threads) = Shared::start(self.config()?, provider, why)?;
        Ok(Runtime::from_parts(Handle::new(shared), threads))
    }

    fn config(self) -> Result<Config, BuildError> {
        if self.thread_name.contains('\0') {
            return Err(BuildError::Setting {
                name: "thread_name",
                why: "the name of a thread cannot contain a NUL byte",
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
        let min_idle = u32::try_from(self.min_idle_workers)
            .ok()
            .filter(|number| *number as usize <= SANE)
            .ok_or(BuildError::Setting {
                name: "min_idle_workers",
                why: "more than 1048576 is not supported",
            })?;
        Ok(Config {
            servers: servers.unwrap_or_else(|| {
                // The number is unknown; there is at least one CPU.
                std::thread::available_parallelism().map_or(1, usize::from)
            }),
            max_workers: max_workers.unwrap_or_else(|| ThreadLimits::read().workers()),
            min_idle,
            keep_alive: self.keep_alive,
            thread_name: self.thread_name,
            stack_size: self.thread_stack_size.unwrap_or_else(|| {
                env::var("RUST_MIN_STACK")
                    .ok()
                    .and_then(|size| size.parse().ok())
                    .unwrap_or(STACK_SIZE)
            }),
            pin: self.pin,
            managed_calls: self.managed_calls.unwrap_or_else(|| {
                // Any other value leaves them on.
                env::var_os(MANAGED_CALLS_ENV).is_none_or(|value| value != "0")
            }),
            queue_limit: self.queue_limit,
            hooks: self.hooks,
        })
    }
}

// Here, so that `runtime.rs` does not know builders.
impl Runtime {
    /// A runtime with the defaults of [`Builder`].
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> Result<Self, BuildError> {
        Builder::new().build()
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

/// The number in an environment variable. `None`: the variable is not set, or empty.
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
            .field("managed_calls", &self.managed_calls)
            .field("queue_limit", &self.queue_limit)
            .field("provider", &self.provider)
            .field("hooks", &self.hooks)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Option<usize>, BuildError> {
        number(SERVERS_ENV, Some(value.into()))
    }

    #[test]
    fn names_of_tokio_set_the_same_as_ours() {
        let ported = Builder::new_multi_thread()
            .worker_threads(3)
            .max_blocking_threads(70)
            .enable_all()
            .enable_io()
            .enable_time()
            .thread_keep_alive(Duration::from_secs(2));
        assert_eq!(ported.servers, Some(3));
        assert_eq!(ported.max_workers, Some(70));
        assert_eq!(ported.keep_alive, Duration::from_secs(2));
        assert_eq!(Builder::new_current_thread().servers, Some(1));
    }

    #[test]
    fn settings_out_of_range_are_errors_that_name_the_method() {
        let builders = [
            ("servers", Builder::new().servers(0)),
            ("max_workers", Builder::new().max_workers(SANE + 1)),
            (
                "min_idle_workers",
                Builder::new().min_idle_workers(SANE + 1),
            ),
            ("thread_name", Builder::new().thread_name("a\0b")),
        ];
        for (method, builder) in builders {
            let error = builder.build().unwrap_err();
            assert!(
                matches!(error, BuildError::Setting { name, .. } if name == method),
                "{error}"
            );
        }
    }

    #[test]
    fn given_provider_is_the_one_that_is_used() {
        let provider = umcg_sys::select(ProviderChoice::Emulated).unwrap().provider;
        let references = Arc::strong_count(&provider);
        let runtime = Builder::new()
            .servers(1)
            .with_provider(Arc::clone(&provider))
            .build()
            .unwrap();
        assert!(Arc::strong_count(&provider) > references);
        let metrics = runtime.metrics();
        assert_eq!(metrics.provider_kind(), umcg_sys::ProviderKind::Emulated);
        assert!(metrics.provider_why().contains("with_provider"));
        assert_eq!(
            runtime
                .block_on(async { crate::spawn(async { 7 }).await })
                .unwrap(),
            7
        );
    }

    #[test]
    fn hooks_without_an_id_are_called() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (start, stop) = (Arc::clone(&started), Arc::clone(&stopped));
        let runtime = Builder::new()
            .servers(1)
            .on_thread_start(move || {
                start.fetch_add(1, SeqCst);
            })
            .on_thread_stop(move || {
                stop.fetch_add(1, SeqCst);
            })
            .build()
            .unwrap();
        runtime.spawn(async {}).join().unwrap();
        drop(runtime);
        assert!(started.load(SeqCst) >= 1);
        assert_eq!(started.load(SeqCst), stopped.load(SeqCst));
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
