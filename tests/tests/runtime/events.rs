//! The events of the runtime reach a subscriber (feature `tracing`, which is a default), and
//! contain what an operator needs.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use umcg::Builder;
use umcg_tests::{eventually, isolated, limits};

/// One event: its level, and its fields as text.
#[derive(Clone, Debug)]
struct Seen {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// A subscriber that keeps the events of the target `umcg`.
#[derive(Debug, Default)]
struct Log(Mutex<Vec<Seen>>);

/// The subscriber of this process, because the events come from the runtime's own threads.
fn log() -> &'static Log {
    static LOG: OnceLock<&Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log: &'static Log = Box::leak(Box::default());
        tracing::subscriber::set_global_default(log).expect("no other subscriber is set");
        log
    })
}

impl Log {
    fn events(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first event whose message begins like this and that `matches`.
    fn find(&self, message: &str, matches: impl Fn(&Seen) -> bool) -> Option<Seen> {
        self.events()
            .iter()
            .find(|seen| seen.field("message").starts_with(message) && matches(seen))
            .cloned()
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for &'static Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "umcg"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.events().push(Seen {
            level: *event.metadata().level(),
            fields,
        });
    }

    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn the_start_event_names_the_provider_and_the_reason() {
    isolated(60, || {
        let log = log();
        let runtime = Builder::new().servers(2).max_workers(1001).build().unwrap();
        let seen = log
            .find("runtime started", |seen| {
                seen.field("max_workers") == "1001"
            })
            .expect("the event was there before the runtime");
        let metrics = runtime.metrics();
        assert_eq!(seen.level, Level::INFO);
        assert_eq!(seen.field("servers"), "2");
        assert_eq!(seen.field("provider"), metrics.provider_kind().to_string());
        assert_eq!(seen.field("why"), metrics.provider_why());
        assert!(!metrics.provider_description().is_empty());
        assert_eq!(seen.field("description"), metrics.provider_description());
    });
}

#[test]
fn a_warning_says_that_tasks_wait_because_of_max_workers() {
    isolated(60, || {
        let log = log();
        let runtime = Builder::new().servers(1).max_workers(3).build().unwrap();
        let message = "tasks have waited for a second because max_workers is reached";
        for wait in 1..=2 {
            let mut ends = Vec::new();
            let tasks: Vec<_> = (0..5)
                .map(|_| {
                    let (mut read, write) = UnixStream::pair().unwrap();
                    ends.push(write);
                    runtime.spawn_blocking(move || io::Read::read(&mut read, &mut [0]).unwrap())
                })
                .collect();
            eventually("the wait is counted", || {
                runtime.metrics().worker_limit_waits_count() == wait
            });
            drop(ends);
            for task in tasks {
                assert_eq!(task.join().unwrap(), 0);
            }
        }
        let warnings: Vec<_> = log
            .events()
            .iter()
            .filter(|seen| seen.field("message").starts_with(message))
            .cloned()
            .collect();
        assert_eq!(warnings.len(), 1, "once a minute: {warnings:#?}");
        let seen = &warnings[0];
        assert_eq!(seen.level, Level::WARN);
        assert_eq!(seen.field("max_workers"), "3");
        assert_eq!(seen.field("workers"), "3");
        assert_eq!(seen.field("queued"), "2");
        for remedy in ["Builder::max_workers", "UMCG_MAX_WORKERS"] {
            assert!(seen.field("message").contains(remedy), "{seen:?}");
        }
    });
}

/// The limit of address space has no room for one more stack of the size that the builder asks for.
/// RLIMIT_NPROC would not hold for root.
#[test]
fn an_event_says_that_a_thread_was_refused() {
    isolated(60, || {
        const STACK: u64 = 1 << 30;
        let log = log();
        // The first worker has its stack when the runtime is built. Each further worker needs
        // another one.
        let runtime = Builder::new()
            .servers(1)
            .thread_stack_size(STACK as usize)
            .build()
            .unwrap();
        let before = limits::get(libc::RLIMIT_AS)
            .expect("it has a limit")
            .rlim_cur;
        let limit = address_space() + STACK / 2;
        limits::set_soft(libc::RLIMIT_AS, limit).expect("a lower limit is permitted");
        let (mut read, write) = UnixStream::pair().unwrap();
        let blocked = runtime.spawn_blocking(move || io::Read::read(&mut read, &mut [0]).unwrap());
        let queued = runtime.spawn_blocking(|| 7);
        eventually("the event of a thread that was refused", || {
            log.find("no thread for another worker", |_| true).is_some()
        });
        let seen = log.find("no thread for another worker", |_| true).unwrap();
        assert_eq!(seen.level, Level::ERROR);
        assert!(!seen.field("error").is_empty(), "{seen:?}");
        let retry: u64 = seen.field("retry_ms").parse().expect("a number");
        assert!((1..=100).contains(&retry), "{seen:?}");
        let message = "tasks have waited for a second because the system refused a thread";
        eventually("the wait is counted", || {
            runtime.metrics().worker_limit_waits_count() == 1
        });
        let seen = log.find(message, |_| true).unwrap();
        assert_eq!(seen.level, Level::WARN);
        assert_eq!(seen.field("errno"), libc::EAGAIN.to_string(), "{seen:?}");
        assert!(!seen.field("error").is_empty(), "{seen:?}");
        assert_eq!(seen.field("queued"), "1", "{seen:?}");
        let refused = |seen: &&Seen| seen.field("message").starts_with("no thread for another");
        let events = log.events().iter().filter(refused).count();
        assert_eq!(events, 1, "one for all attempts in a row");
        limits::set_soft(libc::RLIMIT_AS, before).expect("the limit of before");
        assert_eq!(queued.join().unwrap(), 7, "the queued task ran");
        drop(write);
        assert_eq!(blocked.join().unwrap(), 0);
        runtime.shutdown_timeout(Duration::from_secs(10));
    });
}

/// How much address space this process uses, in bytes.
fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
    pages * 4096
}
