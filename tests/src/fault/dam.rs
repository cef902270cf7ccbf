//! A place to be blocked for as long as a test wants it.

use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::blockers;

/// A pipe that nothing is written to: who reads sleeps in the kernel until it is opened.
#[derive(Debug)]
pub struct Dam {
    reader: File,
    /// Open is closed: the end of file ends all reads.
    writer: Mutex<Option<File>>,
    waiting: AtomicUsize,
}

impl Default for Dam {
    fn default() -> Self {
        Self::new()
    }
}

impl Dam {
    /// A closed one. Takes two descriptors, and one when it is open.
    #[must_use]
    pub fn new() -> Self {
        let (reader, writer) = blockers::pipe();
        Self {
            reader,
            writer: Mutex::new(Some(writer)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Sleeps in `read` until the dam is opened. Signals do not end it.
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

    /// How many wait, or are about to.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// Lets all pass, from now on.
    pub fn open(&self) {
        drop(
            self.writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }
}
