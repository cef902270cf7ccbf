//! One run over a tree: the state that its tasks share.

use std::{
    collections::BTreeMap,
    fs::{self, FileType},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use umcg::Handle;

use crate::{
    digest::{self, Kind, TreeDigest},
    walk::{Visitor, Walk},
};

/// Number of failures that are kept with their path. Further ones are only counted.
const SHOWN: usize = 10;

/// Number of tasks that walk the tree.
const WALKERS: usize = 8;

/// A run. Its counts are Relaxed: while the run goes on they are for the progress bar. When it has
/// ended they are exact, because each task ends by taking the lock of `pending`, under which the
/// main thread sees the end.
pub(crate) struct Job {
    /// The directory that is hashed.
    root: PathBuf,
    walk: Walk,
    runtime: Handle,
    /// The tasks that have not ended.
    pending: Mutex<Count>,
    /// Notified when `pending.tasks` becomes smaller and a walker waits for that.
    room: Condvar,
    /// Notified when `pending.tasks` becomes 0.
    ended: Condvar,
    /// Largest number of tasks that hash.
    in_flight: usize,
    digest: Mutex<TreeDigest>,
    failures: Mutex<Failures>,
    /// Entries that are not directories.
    pub(crate) found: AtomicU64,
    /// The number of `found` entries that are in the digest.
    pub(crate) hashed: AtomicU64,
    /// Directories, which are all in the digest.
    pub(crate) directories: AtomicU64,
    /// Bytes that were read.
    pub(crate) bytes: AtomicU64,
}

/// Numbers of tasks.
#[derive(Default)]
struct Count {
    /// Tasks that were spawned and have not ended.
    tasks: usize,
    /// Walkers that wait for [`Job::room`].
    waiting: usize,
}

/// The entries that could not be hashed.
#[derive(Default)]
pub(crate) struct Failures {
    pub(crate) total: u64,
    /// How often each reason occurred.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// The first [`SHOWN`] of them.
    pub(crate) first: Vec<(PathBuf, io::Error)>,
}

impl Job {
    /// Starts hashing the tree at `root` with at most `in_flight` files at a time.
    pub(crate) fn start(
        root: PathBuf,
        one_file_system: bool,
        in_flight: usize,
        runtime: Handle,
    ) -> io::Result<Arc<Self>> {
        let job = Arc::new(Self {
            walk: Walk::new(&root, one_file_system)?,
            root,
            runtime,
            pending: Mutex::default(),
            room: Condvar::new(),
            ended: Condvar::new(),
            in_flight,
            digest: Mutex::default(),
            failures: Mutex::default(),
            found: AtomicU64::new(0),
            hashed: AtomicU64::new(0),
            directories: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        for _ in 0..WALKERS {
            let walker = Pending::enter(&job, usize::MAX);
            let walk = move || walker.job.walk.run(&Found { job: &walker.job });
            drop(job.runtime.spawn_blocking(walk));
        }
        Ok(job)
    }

    /// Waits until the run has ended, or for this time. Returns whether it has ended.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let pending = lock(&self.pending);
        let (pending, _) = self
            .ended
            .wait_timeout_while(pending, timeout, |pending| pending.tasks > 0)
            .unwrap_or_else(PoisonError::into_inner);
        pending.tasks == 0
    }

    /// The digest of everything that was hashed.
    pub(crate) fn digest(&self) -> blake3::Hash {
        lock(&self.digest).finish()
    }

    pub(crate) fn failures(&self) -> MutexGuard<'_, Failures> {
        lock(&self.failures)
    }

    fn hash(&self, path: &Path, kind: FileType) {
        let full = self.root.join(path);
        let entry = if kind.is_file() {
            digest::file(&full, &self.bytes)
                .map(|content| digest::entry(Kind::File, path, content.as_bytes()))
        } else if kind.is_symlink() {
            fs::read_link(&full)
                .map(|to| digest::entry(Kind::Symlink, path, to.as_os_str().as_bytes()))
        } else {
            Ok(digest::entry(Kind::Special, path, &[]))
        };
        match entry {
            Ok(entry) => {
                lock(&self.digest).add(entry);
                self.hashed.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => self.fail(path, error),
        }
    }

    fn fail(&self, path: &Path, error: io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "vanished during the run".to_owned(),
            io::ErrorKind::Other => error.to_string(),
            kind => kind.to_string(),
        };
        let mut failures = lock(&self.failures);
        failures.total += 1;
        *failures.reasons.entry(reason).or_default() += 1;
        if failures.first.len() < SHOWN {
            failures.first.push((path.to_owned(), error));
        }
    }
}

/// The visitor of a walk. Makes a task for each entry.
struct Found<'a> {
    job: &'a Arc<Job>,
}

impl Visitor for Found<'_> {
    fn found(&self, path: PathBuf, kind: FileType) {
        self.job.found.fetch_add(1, Ordering::Relaxed);
        let task = Pending::enter(self.job, self.job.in_flight + WALKERS);
        let hash = move || task.job.hash(&path, kind);
        drop(self.job.runtime.spawn_blocking(hash));
    }

    fn directory(&self, path: &Path) {
        self.job.directories.fetch_add(1, Ordering::Relaxed);
        lock(&self.job.digest).add(digest::entry(Kind::Directory, path, &[]));
    }

    fn failed(&self, path: &Path, error: io::Error) {
        self.job.fail(path, error);
    }
}

/// A task that has not ended yet. The run has ended when there is none.
struct Pending {
    job: Arc<Job>,
}

impl Pending {
    /// Waits until there are fewer than `limit` tasks, and counts one more. A walker that is ahead
    /// of the tasks that hash blocks here, as any thread would.
    fn enter(job: &Arc<Job>, limit: usize) -> Self {
        let mut pending = lock(&job.pending);
        pending.waiting += 1;
        let mut pending = job
            .room
            .wait_while(pending, |pending| pending.tasks >= limit)
            .unwrap_or_else(PoisonError::into_inner);
        pending.waiting -= 1;
        pending.tasks += 1;
        drop(pending);
        Self {
            job: Arc::clone(job),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut pending = lock(&self.job.pending);
        pending.tasks -= 1;
        if pending.tasks == 0 {
            self.job.ended.notify_all();
        } else if pending.waiting > 0 {
            self.job.room.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
