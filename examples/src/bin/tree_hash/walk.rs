//! The walk over the tree, by a few tasks that share a stack of directories.

use std::{
    fs::{self, FileType, ReadDir},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Largest number of directories on the shared stack. When it is full, a walker enters a directory
/// at once and continues with the outer directory later. So a directory that contains a million
/// others does not become a million paths in memory.
const STACK: usize = 4096;

/// Largest number of directories that a walker has open in that way, each with a descriptor.
const OPEN: usize = 32;

/// Receives the entries that walkers find. Paths are relative to the root.
pub(crate) trait Visitor {
    /// An entry that is not a directory. May block, to slow the walk down.
    fn found(&self, path: PathBuf, kind: FileType);
    /// A directory. Called before the entries in it are visited.
    fn directory(&self, path: &Path);
    /// A directory or an entry that could not be read.
    fn failed(&self, path: &Path, error: io::Error);
}

/// A walk that several tasks carry out together.
pub(crate) struct Walk {
    root: PathBuf,
    /// If set, only directories on this device are entered.
    device: Option<u64>,
    state: Mutex<State>,
    /// Notified when a directory is pushed, and when the walk has ended.
    changed: Condvar,
}

struct State {
    /// Directories, relative to the root, that no walker has opened yet.
    directories: Vec<PathBuf>,
    /// Walkers that are in a directory, and may find more of them. The walk has ended when the
    /// stack is empty and this is 0.
    busy: usize,
}

impl Walk {
    /// A walk of `root`. If `root` is a link, it is followed.
    pub(crate) fn new(root: &Path, one_file_system: bool) -> io::Result<Self> {
        let metadata = fs::metadata(root)?;
        if !metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self {
            root: root.to_owned(),
            device: one_file_system.then(|| metadata.dev()),
            state: Mutex::new(State {
                directories: vec![PathBuf::new()],
                busy: 0,
            }),
            changed: Condvar::new(),
        })
    }

    /// Walks until the whole tree was visited. Any number of tasks may call this.
    pub(crate) fn run(&self, visitor: &impl Visitor) {
        while let Some(directory) = self.next() {
            let _busy = Busy { walk: self };
            self.descend(directory, visitor);
        }
    }

    /// Takes a directory and counts the caller as busy. Waits while another walker may find one.
    /// Returns `None` when the walk has ended.
    fn next(&self) -> Option<PathBuf> {
        let mut state = self.state();
        loop {
            if let Some(directory) = state.directories.pop() {
                state.busy += 1;
                return Some(directory);
            }
            if state.busy == 0 {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn descend(&self, directory: PathBuf, visitor: &impl Visitor) {
        let mut open = Vec::new();
        open.extend(self.enter(directory, visitor));
        while let Some((directory, entries)) = open.last_mut() {
            let (path, kind) = match entries.next() {
                None => {
                    open.pop();
                    continue;
                }
                Some(Err(error)) => {
                    visitor.failed(directory, error);
                    // The same error may come again for ever.
                    open.pop();
                    continue;
                }
                Some(Ok(entry)) => {
                    let path = directory.join(entry.file_name());
                    match entry.file_type() {
                        Ok(kind) => (path, kind),
                        Err(error) => {
                            visitor.failed(&path, error);
                            continue;
                        }
                    }
                }
            };
            if !kind.is_dir() {
                visitor.found(path, kind);
            } else if let Err(path) = self.push(path, open.len() >= OPEN) {
                open.extend(self.enter(path, visitor));
            }
        }
    }

    fn enter(&self, directory: PathBuf, visitor: &impl Visitor) -> Option<(PathBuf, ReadDir)> {
        visitor.directory(&directory);
        let path = self.root.join(&directory);
        let entries = if self.leaves_file_system(&path) {
            Ok(None)
        } else {
            fs::read_dir(&path).map(Some)
        };
        match entries {
            Ok(entries) => entries.map(|entries| (directory, entries)),
            Err(error) => {
                visitor.failed(&directory, error);
                None
            }
        }
    }

    /// Whether this directory is on another file system and must not be entered. After an error
    /// here, opening the directory reports the reason.
    fn leaves_file_system(&self, path: &Path) -> bool {
        self.device.is_some_and(|device| {
            fs::symlink_metadata(path).is_ok_and(|metadata| metadata.dev() != device)
        })
    }

    /// Pushes a directory on the shared stack. Gives it back if the stack is full and `always` is
    /// not set.
    fn push(&self, directory: PathBuf, always: bool) -> Result<(), PathBuf> {
        let mut state = self.state();
        if !always && state.directories.len() >= STACK {
            return Err(directory);
        }
        state.directories.push(directory);
        self.changed.notify_one();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A busy walker. Its destructor counts the walker as not busy even after a panic, so that the
/// others do not wait for it for ever.
struct Busy<'a> {
    walk: &'a Walk,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.walk.state();
        state.busy -= 1;
        if state.busy == 0 && state.directories.is_empty() {
            self.walk.changed.notify_all();
        }
    }
}
