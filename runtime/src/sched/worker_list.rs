//! The lists of a server's workers, linked through the workers: a server must not allocate.
//!
//! A worker has one owner at a time (the contract in `umcg_sys::Provider`), so it is on at most one
//! list, and one link word in its record is enough.

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// The end of a list. Everywhere else, a link holds the index of a worker plus one.
pub(super) const END: u32 = 0;

/// Finds the link word of a worker.
pub(super) trait Links {
    /// The link word of the worker with this index. Written by the owner of the worker.
    fn link(&self, index: u32) -> &AtomicU32;
}

// Relaxed everywhere in this file: a list is used under a lock, or by one thread.

/// A list of workers, first in, first out. Used under a lock.
#[derive(Debug)]
pub(super) struct Fifo {
    /// The oldest worker, plus one; or [`END`].
    head: u32,
    /// The newest worker, plus one; or [`END`].
    tail: u32,
    /// How many workers are in the list.
    len: u32,
}

impl Fifo {
    pub(super) const fn new() -> Self {
        Self {
            head: END,
            tail: END,
            len: 0,
        }
    }

    /// Puts a worker at the back.
    pub(super) fn push(&mut self, links: &impl Links, index: u32) {
        links.link(index).store(END, Relaxed);
        match self.tail.checked_sub(1) {
            Some(tail) => links.link(tail).store(index + 1, Relaxed),
            None => self.head = index + 1,
        }
        self.tail = index + 1;
        self.len += 1;
    }

    /// Puts a worker back to the front, from where it was taken.
    pub(super) fn push_front(&mut self, links: &impl Links, index: u32) {
        links.link(index).store(self.head, Relaxed);
        if self.head == END {
            self.tail = index + 1;
        }
        self.head = index + 1;
        self.len += 1;
    }

    /// Takes the oldest worker.
    pub(super) fn pop(&mut self, links: &impl Links) -> Option<u32> {
        let index = self.head.checked_sub(1)?;
        self.head = links.link(index).load(Relaxed);
        if self.head == END {
            self.tail = END;
        }
        self.len -= 1;
        Some(index)
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// Puts the workers of a stack at the back, the top of the stack first.
    pub(super) fn append(&mut self, links: &impl Links, mut stack: Lifo) {
        while let Some(index) = stack.pop(links) {
            self.push(links, index);
        }
    }
}

/// A stack of workers, last in, first out. Used under a lock.
#[derive(Debug)]
pub(super) struct Lifo {
    /// The newest worker, plus one; or [`END`].
    head: u32,
    /// How many workers are in the stack.
    len: u32,
}

impl Lifo {
    pub(super) const fn new() -> Self {
        Self { head: END, len: 0 }
    }

    /// Puts a worker on top.
    pub(super) fn push(&mut self, links: &impl Links, index: u32) {
        links.link(index).store(self.head, Relaxed);
        self.head = index + 1;
        self.len += 1;
    }

    /// Takes the worker on top.
    pub(super) fn pop(&mut self, links: &impl Links) -> Option<u32> {
        let index = self.head.checked_sub(1)?;
        self.head = links.link(index).load(Relaxed);
        self.len -= 1;
        Some(index)
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }
}

/// Link words for tests, without workers.
#[cfg(test)]
pub(super) struct Words(Vec<AtomicU32>);

#[cfg(test)]
impl Words {
    pub(super) fn new(len: usize) -> Self {
        Self((0..len).map(|_| AtomicU32::new(END)).collect())
    }
}

#[cfg(test)]
impl Links for Words {
    fn link(&self, index: u32) -> &AtomicU32 {
        &self.0[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifo_keeps_the_order_and_takes_back_at_the_front() {
        let words = Words::new(4);
        let mut fifo = Fifo::new();
        for index in 0..3 {
            fifo.push(&words, index);
        }
        assert_eq!(fifo.pop(&words), Some(0));
        fifo.push_front(&words, 0);
        fifo.push(&words, 3);
        assert_eq!(fifo.len(), 4);
        let order: Vec<_> = std::iter::from_fn(|| fifo.pop(&words)).collect();
        assert_eq!(order, [0, 1, 2, 3]);
        fifo.push_front(&words, 2);
        fifo.push(&words, 1);
        assert_eq!((fifo.pop(&words), fifo.pop(&words)), (Some(2), Some(1)));
        assert_eq!((fifo.pop(&words), fifo.len()), (None, 0));
    }
}
