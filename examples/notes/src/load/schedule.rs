//! The times at which requests are due.

use std::time::{Duration, Instant};

/// When requests are due, and which of them are measured.
///
/// In the closed loop, a request is due when its connection is free. In the open loop, request k is
/// due at the start plus k / rate, whatever the service does. A service that stalls for a second
/// then delays all requests of that second, and each of them counts with its delay. A closed loop
/// sends nothing in that second, and one request per connection is all it would count.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// When the warm-up ends. Requests that are due earlier are not measured.
    measure: Instant,
    /// When the load ends. No request is due from then on.
    end: Instant,
    /// Requests a second in the open loop.
    rate: Option<f64>,
    /// The number of requests that the open loop has taken.
    taken: u64,
}

impl Schedule {
    pub(crate) fn new(
        start: Instant,
        warm_up: Duration,
        duration: Duration,
        rate: Option<f64>,
    ) -> Self {
        let measure = start + warm_up;
        Self {
            start,
            measure,
            end: measure + duration,
            rate,
            taken: 0,
        }
    }

    /// Returns when the next request is due, or `None` if that is not before the end.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = match self.rate {
            None => now,
            Some(rate) => self.start + Duration::from_secs_f64(self.taken as f64 / rate),
        };
        (due < self.end).then_some(due)
    }

    /// Takes the next request if it is due, and returns when it was due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due(now).filter(|due| *due <= now)?;
        self.taken += 1;
        Some(due)
    }

    /// Whether a request that was due at `due` is measured.
    pub(crate) fn measures(&self, due: Instant) -> bool {
        due >= self.measure
    }

    /// Whether an answer at `now` counts for the throughput.
    pub(crate) fn counts(&self, now: Instant) -> bool {
        now >= self.measure && now < self.end
    }

    pub(crate) fn end(&self) -> Instant {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_open_loop_keeps_its_rate_after_a_stall() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::ZERO, 100 * MS, Some(1000.0));
        assert_eq!(schedule.take(start), Some(start));
        assert_eq!(schedule.take(start), None);
        assert_eq!(schedule.next_due(start), Some(start + MS));
        // Nothing was sent for 50 ms. All requests of that time are due, each since its own time.
        let now = start + 50 * MS;
        let due: Vec<Instant> = std::iter::from_fn(|| schedule.take(now)).collect();
        assert_eq!(due, (1..=50).map(|k| start + k * MS).collect::<Vec<_>>());
    }

    #[test]
    fn requests_that_were_due_before_the_end_are_sent_after_it_and_no_others() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, 10 * MS, 10 * MS, Some(1000.0));
        let late = start + 100 * MS;
        let due: Vec<Instant> = std::iter::from_fn(|| schedule.take(late)).collect();
        assert_eq!(due.len(), 20);
        assert_eq!(
            due.iter().filter(|due| schedule.measures(**due)).count(),
            10
        );
        assert!(!schedule.counts(late));
        assert_eq!(schedule.next_due(late), None);
    }

    #[test]
    fn the_closed_loop_is_due_at_once_until_the_end() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, MS, MS, None);
        assert_eq!(schedule.take(start + MS), Some(start + MS));
        assert_eq!(schedule.take(start + 2 * MS), None);
    }
}
