//! How long tasks have waited for a worker that the spawner could not make.
//!
//! *Problem.* A program whose worker limit is too low seems to hang: tasks are queued, all workers
//! are blocked, and nothing says why. But a limit that is reached is no problem by itself. A pool
//! of a few workers that are always busy may serve its queue fast enough.
//!
//! *How it works.* When the spawner cannot make a worker for a starved server, it notes the time,
//! the number of queued tasks, and how many tasks the workers have taken so far. It looks again
//! after [`LONG`]. If the server, or another one, still starves then, and the workers have taken
//! fewer tasks in between than were queued at first, then tasks have waited too long.
//!
//! *Why it is correct.* Each take removes one task from a queue. So whatever the order of the
//! queues is, one of the tasks of the first look is still queued when there were fewer takes than
//! tasks. Tasks that wait only because running tasks compute are not reported, because no server
//! starves then.
//!
//! *What it costs.* The spawner wakes once more for each time that the limit is reached. It does
//! not wake again for tasks whose wait it has reported, so a program that waits forever costs no
//! CPU time.

use std::time::{Duration, Instant};

/// A wait of this length is reported.
const LONG: Duration = Duration::from_secs(1);

/// At most one warning in this time.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

/// What the spawner knows about tasks that wait for a worker.
#[derive(Debug, Default)]
pub(super) struct WorkerWait {
    /// The wait that goes on, if a server starved at the latest look.
    wait: Option<Wait>,
    /// When the latest warning was due.
    warned: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    /// When the spawner first could not make a worker.
    began: Instant,
    /// How many tasks were queued then.
    queued: usize,
    /// How many tasks the workers had taken until then.
    taken: u64,
    /// The wait was long, and [`WorkerWait::refused`] has said so.
    reported: bool,
}

/// Tasks have waited for [`LONG`] or longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongWait {
    /// A warning is due, too.
    pub(super) warn: bool,
}

impl WorkerWait {
    /// No worker could be made for a starved server. `queued` tasks are queued, and the workers
    /// have taken `taken` tasks so far. A wait is returned once.
    pub(super) fn refused(&mut self, now: Instant, queued: usize, taken: u64) -> Option<LongWait> {
        let wait = self
            .wait
            .get_or_insert_with(|| Wait::new(now, queued, taken));
        if taken.wrapping_sub(wait.taken) >= wait.queued as u64 {
            // The tasks of that wait may all have left the queues since.
            *wait = Wait::new(now, queued, taken);
        }
        if wait.reported || now.saturating_duration_since(wait.began) < LONG {
            return None;
        }
        wait.reported = true;
        let warn = self
            .warned
            .is_none_or(|warned| now.saturating_duration_since(warned) >= BETWEEN_WARNINGS);
        if warn {
            self.warned = Some(now);
        }
        Some(LongWait { warn })
    }

    /// The spawner has looked at all servers at this time. Returns when it must look again, if no
    /// server requests a worker before.
    pub(super) fn looked(&mut self, now: Instant) -> Option<Instant> {
        let wait = self.wait.as_ref().filter(|wait| !wait.reported)?;
        let look = wait.began + LONG;
        if look > now {
            return Some(look);
        }
        // No server starved at this look.
        self.wait = None;
        None
    }
}

impl Wait {
    fn new(now: Instant, queued: usize, taken: u64) -> Self {
        Self {
            began: now,
            queued,
            taken,
            reported: false,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const WITH_WARNING: Option<LongWait> = Some(LongWait { warn: true });
    const WITHOUT: Option<LongWait> = Some(LongWait { warn: false });

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn a_wait_is_reported_once_after_a_second() {
        let (start, mut wait) = (Instant::now(), WorkerWait::default());
        assert_eq!(wait.looked(start), None, "nothing waits");
        assert_eq!(wait.refused(start, 3, 100), None);
        assert_eq!(wait.looked(start), Some(start + LONG));
        assert_eq!(wait.refused(start + ms(999), 9, 102), None);
        assert_eq!(wait.looked(start + ms(999)), Some(start + LONG));
        assert_eq!(wait.refused(start + ms(1000), 9, 102), WITH_WARNING);
        assert_eq!(wait.looked(start + ms(1000)), None, "it was reported");
        assert_eq!(wait.refused(start + ms(500_000), 9, 102), None);
        assert_eq!(wait.looked(start + ms(500_000)), None);
    }

    #[test]
    fn a_queue_that_moves_is_not_reported() {
        let (mut now, mut wait) = (Instant::now(), WorkerWait::default());
        // 40 tasks are always queued, and 100 are taken in a second.
        for taken in 0..1000 {
            assert_eq!(wait.refused(now, 40, taken), None, "{taken}");
            assert!(wait.looked(now).is_some_and(|look| look <= now + LONG));
            now += ms(10);
        }
    }

    #[test]
    fn a_server_that_is_not_starved_any_more_ends_the_wait() {
        let (start, mut wait) = (Instant::now(), WorkerWait::default());
        assert_eq!(wait.refused(start, 3, 0), None);
        assert_eq!(wait.looked(start + LONG), None);
        assert_eq!(wait.refused(start + ms(1500), 3, 0), None, "a new wait");
        assert_eq!(wait.refused(start + ms(2500), 3, 0), WITH_WARNING);
    }

    #[test]
    fn each_wait_is_counted_and_a_warning_comes_once_a_minute() {
        let (mut now, mut wait) = (Instant::now(), WorkerWait::default());
        let (mut taken, mut reports) = (0, Vec::new());
        for _ in 0..4 {
            assert_eq!(wait.refused(now, 1, taken), None);
            now += LONG;
            reports.push(wait.refused(now, 1, taken));
            taken += 1;
            now += ms(29_000);
        }
        assert_eq!(reports, [WITH_WARNING, WITHOUT, WITH_WARNING, WITHOUT]);
    }
}
