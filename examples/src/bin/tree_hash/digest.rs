//! The digest of one entry of the tree, and the digest of the whole tree.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// The kind of an entry. The number is part of the digest.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    File = 0,
    Symlink = 1,
    Directory = 2,
    /// A FIFO, socket or device. Its name is hashed, and nothing is read from it.
    Special = 3,
}

/// The digest of the whole tree: the sum of the digests of its entries. The order of the entries
/// does not matter, so two runs agree however their tasks were scheduled, and memory does not grow
/// with the tree.
///
/// A sum of digests is good enough to compare trees. It does not protect against somebody who
/// builds a tree that has a given digest.
#[derive(Default)]
pub(crate) struct TreeDigest {
    sum: [u64; 4],
    entries: u64,
}

impl TreeDigest {
    pub(crate) fn add(&mut self, entry: blake3::Hash) {
        for (sum, word) in self.sum.iter_mut().zip(entry.as_bytes().chunks_exact(8)) {
            let word = word.try_into().expect("chunks of 8 bytes");
            *sum = sum.wrapping_add(u64::from_le_bytes(word));
        }
        self.entries += 1;
    }

    pub(crate) fn finish(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.entries.to_le_bytes());
        for word in self.sum {
            hasher.update(&word.to_le_bytes());
        }
        hasher.finalize()
    }
}

/// The digest of an entry: of its kind, its path below the root, and its content.
pub(crate) fn entry(kind: Kind, path: &Path, content: &[u8]) -> blake3::Hash {
    let path = path.as_os_str().as_bytes();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind as u8]);
    hasher.update(&(path.len() as u64).to_le_bytes());
    hasher.update(path);
    hasher.update(content);
    hasher.finalize()
}

/// The digest of the content of a file. Adds the number of bytes to `bytes` while it reads them.
///
/// The path may name something else than a file by now. So a link is not followed, and the open
/// does not wait for the other end of a FIFO.
pub(crate) fn file(path: &Path, bytes: &AtomicU64) -> io::Result<blake3::Hash> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("no longer a regular file"));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Counted { file, bytes })?;
    Ok(hasher.finalize())
}

struct Counted<'a> {
    file: File,
    bytes: &'a AtomicU64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        // Relaxed: the progress bar shows the count, and nothing else depends on it.
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
