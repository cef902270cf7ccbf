//! Idle workers beyond `min_idle`: they leave when they have been idle for `keep_alive`.
//!
//! Only a worker that is dispatched can leave. So a server marks the surplus workers, moves them
//! to its ready list and picks them one after the other. An idle server sleeps with a deadline only
//! while it has a surplus: an idle runtime does not wake up at all.

use super::{Lists, run::ServerThread};
use crate::sched::{clock::now_ns, worker_list::Lifo};

impl ServerThread<'_> {
    /// When the longest-idle worker of the surplus has been idle for `keep_alive`. `None`: there is
    /// no surplus.
    pub(super) fn surplus_end(&self) -> Option<u64> {
        let keep_alive = self.shared.config.keep_alive_ns();
        self.surplus_since
            .map(|since| since.saturating_add(keep_alive))
    }

    /// Notes when a surplus of idle workers begins and ends. To be called after each change of
    /// the idle list.
    pub(super) fn watch_surplus(&mut self, lists: &Lists) {
        if lists.idle.len() <= self.shared.config.min_idle {
            self.surplus_since = None;
            // Other servers took the surplus, so the worker in the slot need not make way.
            if self.me.is_retirement_due() {
                self.me.set_retirement_due(false);
            }
        } else if self.surplus_since.is_none() {
            self.surplus_since = Some(now_ns());
        }
    }

    /// Moves the workers of the surplus that have been idle for `keep_alive` to the ready list,
    /// marked, so that they are picked one after the other and leave. It walks over the idle list
    /// once each time that the longest-idle one may be due.
    pub(super) fn retire_surplus(&mut self, lists: &mut Lists) {
        let Some(end) = self.surplus_end() else {
            return;
        };
        let now = now_ns();
        if now < end {
            self.me.set_retirement_due(false);
            return;
        }
        let links = &self.shared.arena;
        let due = now - self.shared.config.keep_alive_ns();
        let mut surplus = lists.idle.len().saturating_sub(self.shared.config.min_idle);
        let mut oldest = now;
        let mut kept = Lifo::new();
        while let Some(index) = lists.idle.pop(links) {
            let worker = self.shared.arena.get(index);
            if surplus > 0 && worker.idle_since() <= due {
                surplus -= 1;
                worker.retire();
                lists.ready.push(links, index);
            } else {
                oldest = oldest.min(worker.idle_since());
                kept.push(links, index);
            }
        }
        while let Some(index) = kept.pop(links) {
            lists.idle.push(links, index);
        }
        self.surplus_since = (lists.idle.len() > self.shared.config.min_idle).then_some(oldest);
        self.me.set_retirement_due(false);
    }
}
