//! The queue of a driver's timers: wakers sorted by deadline.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

/// Armed timers, the earliest first. Timers with one deadline fire in the order of their
/// insertion.
pub(super) struct Timers {
    entries: BTreeMap<Key, Waker>,
    /// The time from which the keys count.
    start: Instant,
    /// The number of the next entry. Never used twice, so a key names one entry for all time.
    next: u64,
}

/// Names an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    // The order of the fields is the order of the entries.
    /// The deadline, in nanoseconds since [`Timers::start`]. At most 584 years.
    nanos: u64,
    number: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            start: Instant::now(),
            next: 0,
        }
    }
}

impl Timers {
    /// Inserts an entry.
    pub(super) fn insert(&mut self, deadline: Instant, waker: Waker) -> Key {
        let nanos = deadline.saturating_duration_since(self.start).as_nanos();
        let key = Key {
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
            number: self.next,
        };
        self.next += 1;
        self.entries.insert(key, waker);
        key
    }

    /// The waker of an entry, to be replaced. `None`: the entry has gone.
    pub(super) fn waker(&mut self, key: Key) -> Option<&mut Waker> {
        self.entries.get_mut(&key)
    }

    /// Removes an entry, if it is still there.
    pub(super) fn remove(&mut self, key: Key) -> Option<Waker> {
        self.entries.remove(&key)
    }

    /// Moves the entries whose deadline has come to the end of `due`. True: there were some.
    pub(super) fn take_due(&mut self, now: Instant, due: &mut VecDeque<Waker>) -> bool {
        let before = due.len();
        let now = now.saturating_duration_since(self.start).as_nanos();
        while let Some(first) = self.entries.first_entry() {
            if u128::from(first.key().nanos) > now {
                break;
            }
            due.push_back(first.remove());
        }
        due.len() > before
    }

    /// The earliest deadline.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        let (first, _) = self.entries.first_key_value()?;
        Some(self.start + Duration::from_nanos(first.nanos))
    }

    /// All wakers, the earliest first.
    pub(super) fn into_wakers(self) -> impl Iterator<Item = Waker> {
        self.entries.into_values()
    }

    #[cfg(test)]
    pub(super) fn count_from(&self, number: u64) -> usize {
        self.entries
            .keys()
            .filter(|key| key.number >= number)
            .count()
    }

    #[cfg(test)]
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waker() -> Waker {
        Waker::noop().clone()
    }

    #[test]
    fn entries_are_due_in_the_order_of_their_deadlines() {
        let mut timers = Timers::default();
        let start = timers.start;
        let at = |ms| start + Duration::from_millis(ms);
        timers.insert(at(2), waker());
        timers.insert(at(3), waker());
        timers.insert(at(1), waker());
        assert_eq!(timers.first_deadline(), Some(at(1)));
        let mut due = VecDeque::new();
        assert!(!timers.take_due(at(0), &mut due));
        assert!(timers.take_due(at(2), &mut due));
        assert_eq!(due.len(), 2);
        assert!(!timers.take_due(at(2), &mut due));
        assert_eq!(timers.first_deadline(), Some(at(3)));
    }

    #[test]
    fn key_of_a_removed_entry_never_names_a_later_one() {
        let now = Instant::now();
        let mut timers = Timers::default();
        let key = timers.insert(now, waker());
        assert!(timers.remove(key).is_some());
        let later = timers.insert(now, waker());
        assert!(timers.waker(key).is_none());
        assert!(timers.remove(key).is_none());
        assert!(timers.waker(later).is_some());
    }
}
