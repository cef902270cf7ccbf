//! The inbox of a server.

use std::fmt;

use super::worker_list::{END, Links};
use crate::sync::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Push-one and pop-one by anyone, take-all by a server: no lock, no allocation, so that a worker
/// may push between `leave` and `wait` (B10). After each step the head has another tag, so that
/// a popper that was stopped between its two looks fails (ABA); it would take 2^32 steps
/// meanwhile to fool it. What it reads in between is a link in the arena, which is never freed.
pub(super) struct Inbox {
    /// The newest, plus one, or [`END`]; above it the tag.
    head: AtomicU64,
}

const TAG: u64 = 1 << 32;

/// The newest of a head.
const fn newest(head: u64) -> u32 {
    head as u32
}

/// The head after `head` with that newest one.
const fn after(head: u64, newest: u32) -> u64 {
    ((head & !(TAG - 1)).wrapping_add(TAG)) | newest as u64
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            head: AtomicU64::new(END as u64),
        }
    }

    /// Gives the worker to whoever pops or takes it.
    pub(super) fn push(&self, links: &impl Links, index: u32) {
        let link = links.link(index);
        let mut head = self.head.load(Relaxed);
        loop {
            link.store(newest(head), Relaxed);
            // AcqRel: publishes the link and all that the worker wrote; pairs with the steps in
            // `take` and `pop`. Acquire keeps what older pushes published published.
            match self
                .head
                .compare_exchange(head, after(head, index + 1), AcqRel, Relaxed)
            {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    /// Which is the newest one, at some moment of the call.
    pub(super) fn peek(&self) -> Option<u32> {
        newest(self.head.load(Relaxed)).checked_sub(1)
    }

    /// The newest one. The caller owns it.
    pub(super) fn pop(&self, links: &impl Links) -> Option<u32> {
        // Acquire, here and below: pairs with the push, and makes the link readable.
        let mut head = self.head.load(Acquire);
        loop {
            let index = newest(head).checked_sub(1)?;
            // Of a worker that somebody else has popped meanwhile it may say anything; then the
            // head is another.
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

    /// Takes all of them, newest first.
    pub(super) fn take(&self) -> Chain {
        let mut head = self.head.load(Relaxed);
        while newest(head) != END {
            // Acquire: pairs with the push.
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

/// Workers that were taken from an inbox; the holder owns them.
#[derive(Debug)]
#[must_use = "the workers in it would never run again"]
pub(super) struct Chain {
    next: u32,
}

impl Chain {
    /// The next worker; its link is free from then on.
    pub(super) fn pop(&mut self, links: &impl Links) -> Option<u32> {
        let index = self.next.checked_sub(1)?;
        self.next = links.link(index).load(Relaxed);
        Some(index)
    }
}

#[cfg(all(test, not(loom)))]
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

#[cfg(all(test, loom))]
mod model {
    use loom::{sync::Arc, thread};

    use super::*;
    use crate::sched::worker_list::Words;

    /// Two workers push themselves while the server takes: each comes out exactly once, with
    /// what it wrote before.
    #[test]
    fn nobody_is_lost_or_doubled() {
        loom::model(|| {
            let shared = Arc::new((Inbox::new(), Words::new(2), Words::new(2)));
            let threads: Vec<_> = (0..2)
                .map(|index| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        shared.2.link(index).store(7, Relaxed);
                        shared.0.push(&shared.1, index);
                    })
                })
                .collect();
            let mut seen = [0; 2];
            let mut drain = || {
                let mut chain = shared.0.take();
                while let Some(index) = chain.pop(&shared.1) {
                    assert_eq!(shared.2.link(index).load(Relaxed), 7);
                    seen[index as usize] += 1;
                }
            };
            for _ in 0..2 {
                drain();
                // Not joined yet: what was pushed is known from the inbox alone.
                thread::yield_now();
            }
            for thread in threads {
                thread.join().unwrap();
            }
            drain();
            assert_eq!(seen, [1, 1]);
        });
    }

    /// One worker pops the newest and pushes it back while another pops and the server takes:
    /// without the tag the second popper would put a link in place that is old by then.
    #[test]
    fn a_worker_that_comes_back_meanwhile_fools_no_popper() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(3);
        builder.check(|| {
            let shared = Arc::new((Inbox::new(), Words::new(2)));
            shared.0.push(&shared.1, 0);
            shared.0.push(&shared.1, 1);
            let popper = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.0.pop(&shared.1))
            };
            let mut seen = [0; 2];
            if let Some(first) = shared.0.pop(&shared.1) {
                // Somebody takes what is below, and the first comes back.
                let mut chain = shared.0.take();
                while let Some(index) = chain.pop(&shared.1) {
                    seen[index as usize] += 1;
                }
                shared.0.push(&shared.1, first);
            }
            if let Some(index) = popper.join().unwrap() {
                seen[index as usize] += 1;
            }
            let mut chain = shared.0.take();
            while let Some(index) = chain.pop(&shared.1) {
                seen[index as usize] += 1;
            }
            assert_eq!(seen, [1, 1]);
        });
    }
}
