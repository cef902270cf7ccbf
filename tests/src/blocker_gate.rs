//! A gate that blocks every task which comes to it, until the test opens it.

use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::blockers;

/// A pipe that nothing is written to: whoever reads from it sleeps in the kernel until the gate is
/// opened.
#[derive(Debug)]
pub struct BlockerGate {
    /// The end that callers read from.
    reader: File,
    /// `None` when the gate is open: closing the last writer ends all reads.
    writer: Mutex<Option<File>>,
    /// The callers of [`wait`](Self::wait) that have not come back.
    waiting: AtomicUsize,
}

impl Default for BlockerGate {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockerGate {
    /// A closed gate. It takes two descriptors, and one when it is open.
    #[must_use]
    pub fn new() -> Self {
        let (reader, writer) = blockers::pipe();
        Self {
            reader,
            writer: Mutex::new(Some(writer)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Sleeps in `read` until the gate is opened. A signal does not end the wait.
    ///
    /// # Panics
    /// If the read fails.
    pub fn wait(&self) {
        self.waiting.fetch_add(1, SeqCst);
        let read = loop {
            match (&self.reader).read(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.waiting.fetch_sub(1, SeqCst);
        assert_eq!(read.expect("read of a pipe"), 0);
    }

    /// How many callers are blocked, or are about to be.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        drop(writer.take());
    }
}
