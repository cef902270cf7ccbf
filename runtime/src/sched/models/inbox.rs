//! No worker is lost in an inbox, and none comes out twice.

use loom::{sync::Arc, thread};

use super::{check, start};
use crate::{
    sched::{
        inbox::Inbox,
        worker_list::{Links, Words},
    },
    sync::Ordering::Relaxed,
};

/// Takes all workers out and counts, for each, how often it came out.
fn drain(inbox: &Inbox, links: &Words, seen: &mut [u32; 2]) {
    let mut chain = inbox.take();
    while let Some(index) = chain.pop(links) {
        seen[index as usize] += 1;
    }
}

/// Two workers push themselves while the server takes: each comes out exactly once, with what it
/// wrote before.
#[test]
fn nobody_is_lost_or_doubled() {
    check(|| {
        let shared = Arc::new((Inbox::new(), Words::new(2), Words::new(2)));
        let threads: Vec<_> = (0..2)
            .map(|index| {
                start(&shared, move |(inbox, links, written)| {
                    written.link(index).store(7, Relaxed);
                    inbox.push(links, index);
                })
            })
            .collect();
        let (inbox, links, written) = &*shared;
        let mut seen = [0; 2];
        let mut drain = || {
            let mut chain = inbox.take();
            while let Some(index) = chain.pop(links) {
                assert_eq!(written.link(index).load(Relaxed), 7);
                seen[index as usize] += 1;
            }
        };
        for _ in 0..2 {
            drain();
            // The threads are not joined yet: what they wrote is known from the inbox alone.
            thread::yield_now();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        drain();
        assert_eq!(seen, [1, 1]);
    });
}

/// One popper pops the newest worker, which then pushes itself again, while another popper pops
/// and the server takes. Without the tag the second popper would install a link that is old by
/// then.
#[test]
fn a_worker_that_comes_back_meanwhile_fools_no_popper() {
    check(|| {
        let shared = Arc::new((Inbox::new(), Words::new(2)));
        let (inbox, links) = &*shared;
        inbox.push(links, 0);
        inbox.push(links, 1);
        let popper = start(&shared, |(inbox, links)| inbox.pop(links));
        let mut seen = [0; 2];
        if let Some(first) = inbox.pop(links) {
            // The server takes what is below, and the first worker comes back.
            drain(inbox, links, &mut seen);
            inbox.push(links, first);
        }
        if let Some(index) = popper.join().unwrap() {
            seen[index as usize] += 1;
        }
        drain(inbox, links, &mut seen);
        assert_eq!(seen, [1, 1]);
    });
}
