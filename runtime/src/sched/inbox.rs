//! The inbox of a server: where workers that have given up the slot queue themselves, or others
//! queue them, until the server takes them all.
//!
//! A worker pushes itself between `leave` and `wait`, where it must neither lock nor allocate
//! (trace B10). So an inbox is a stack without a lock, linked through the workers: anyone pushes
//! one, anyone pops one, and the server takes all.
//!
//! A popper reads the head and then the link of the newest worker. In between, others may pop that
//! worker, and it may come back with another worker below it (ABA). Therefore each step gives the
//! head another tag, so that the popper's compare-and-swap fails; 2^32 steps would have to come in
//! between to defeat that. The link that a popper reads may be old, but it is always memory of the
//! arena, which is not freed while the runtime lives.
//!
//! `models/inbox.rs` checks all this.

use std::fmt;

use super::worker_list::{END, Links};
use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// See the module page.
pub(super) struct Inbox {
    /// In the low half the newest worker, plus one, or [`END`]; in the high half the tag.
    head: AtomicU64,
}

/// One step of the tag.
const TAG: u64 = 1 << 32;

/// The newest worker of a head, plus one, or [`END`].
const fn newest(head: u64) -> u32 {
    head as u32
}

/// The head that follows `head`, with this newest worker.
const fn after(head: u64, newest: u32) -> u64 {
    ((head & !(TAG - 1)).wrapping_add(TAG)) | newest as u64
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            head: AtomicU64::new(END as u64),
        }
    }

    /// Puts a worker in. Whoever pops or takes it owns it then.
    pub(super) fn push(&self, links: &impl Links, index: u32) {
        let link = links.link(index);
        let mut head = self.head.load(Relaxed);
        loop {
            link.store(newest(head), Relaxed);
            // Release: publishes the link and all that the pusher wrote; pairs with the Acquire in
            // `take` and `pop`. Acquire: what older pushes published stays published by this one.
            match self
                .head
                .compare_exchange(head, after(head, index + 1), AcqRel, Relaxed)
            {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    /// The worker that was the newest one at some moment of the call.
    pub(super) fn peek(&self) -> Option<u32> {
        newest(self.head.load(Relaxed)).checked_sub(1)
    }

    /// Takes the newest worker out. The caller owns it.
    pub(super) fn pop(&self, links: &impl Links) -> Option<u32> {
        // Acquire, here and below: pairs with the Release in `push`, so that the link can be read.
        let mut head = self.head.load(Acquire);
        loop {
            let index = newest(head).checked_sub(1)?;
            // If somebody else has popped the worker meanwhile, its link may say anything. Then
            // the head has another tag, and the exchange fails.
            let next = links.link(index).load(Relaxed);
            match self
                .head
                .compare_exchange(head, after(head, next), AcqRel, Acquire)
            {
                Ok(_) => return Some(index),
                Err(found) => head = found,
            }
        }
    }

    /// Takes all workers out, the newest first.
    pub(super) fn take(&self) -> Chain {
        let mut head = self.head.load(Relaxed);
        while newest(head) != END {
            // Acquire: pairs with the Release in `push`.
            match self
                .head
                .compare_exchange(head, after(head, END), AcqRel, Relaxed)
            {
                Ok(_) => break,
                Err(found) => head = found,
            }
        }
        Chain { next: newest(head) }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

/// Workers that were taken out of an inbox. Its holder owns them.
#[derive(Debug)]
#[must_use = "the workers in it would never run again"]
pub(super) struct Chain {
    /// The next worker, plus one, or [`END`].
    next: u32,
}

impl Chain {
    /// The next worker. The caller may use its link from then on.
    pub(super) fn pop(&mut self, links: &impl Links) -> Option<u32> {
        let index = self.next.checked_sub(1)?;
        self.next = links.link(index).load(Relaxed);
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::worker_list::{Fifo, Lifo, Words};

    #[test]
    fn a_stack_in_between_restores_the_order_of_arrival() {
        let words = Words::new(3);
        let inbox = Inbox::new();
        for index in 0..3 {
            inbox.push(&words, index);
        }
        let mut chain = inbox.take();
        let mut stack = Lifo::new();
        while let Some(index) = chain.pop(&words) {
            stack.push(&words, index);
        }
        assert_eq!(stack.len(), 3);
        let mut fifo = Fifo::new();
        fifo.append(&words, stack);
        let order: Vec<_> = std::iter::from_fn(|| fifo.pop(&words)).collect();
        assert_eq!(order, [0, 1, 2]);
        assert!(inbox.take().pop(&words).is_none());
    }

    #[test]
    fn the_newest_is_popped_first() {
        let words = Words::new(3);
        let inbox = Inbox::new();
        for index in 0..3 {
            inbox.push(&words, index);
        }
        assert_eq!(inbox.pop(&words), Some(2));
        inbox.push(&words, 2);
        let order: Vec<_> = std::iter::from_fn(|| inbox.pop(&words)).collect();
        assert_eq!(order, [2, 1, 0]);
        assert!(inbox.take().pop(&words).is_none());
    }
}
