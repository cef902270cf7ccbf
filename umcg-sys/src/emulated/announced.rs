//! Announced blocks: a worker says itself that it is about to sleep, and asks for a slot when it is
//! awake again.
//!
//! *Problem.* A block that a judge has to notice costs the judge's wake-up and its confirmation,
//! and on a CPU that other processes keep busy it is noticed late. But a worker that is about to
//! make a call which sleeps often knows it.
//!
//! *Mechanism.* Without a choice of the worker's, an announcement is a verdict that the worker
//! gives on itself; everything about verdicts holds for it, too. With a choice the worker hands its
//! slot off to another one, as in `wait`, but does not go to its gate: it is OUT and RUNNABLE, on
//! no list and owned by itself, and makes its call. When the call is over it is in the same
//! position as a worker that [`try_checkpoint`](Registry::try_checkpoint) has found without a slot.
//!
//! *Why it is correct.* Between the two calls the worker is what it is between `leave` and `wait`:
//! nobody may claim it, because nobody has found it on a list, and a verdict cannot reach it,
//! because it is not ACKED. If its server goes away the server finds it OUT and makes it PLAIN,
//! which the worker reads when its call is over.
//!
//! *Cost.* One futex wake for a hand-off, and no other thread's attention.

use super::{
    clock::now,
    failure::{Failure, NOT_REGISTERED, SERVER_GONE},
    packed::Phase,
    record::{Counts, status},
    registry::{OwnTask, Registry},
    user_state::set_user_running,
    verdict::Judge,
};
use crate::{
    state,
    sync::{Relaxed, SeqCst},
};

impl Registry {
    /// The calling worker is about to sleep. True: it has given its slot away, to the worker `next`
    /// or, if `next` is 0, to its spare or its server. False: it holds no slot, or has lost it
    /// meanwhile; `next` is still the caller's.
    ///
    /// # Errors
    /// As for `wait` with this `next_tid`. The worker still holds its slot, and owns `next`.
    pub(crate) fn begin_block(&self, own: &OwnTask<'_>, next: u32) -> Result<bool, Failure> {
        let run = own.run();
        if run.phase() != Phase::Acked || self.has_left(own) {
            return Ok(false);
        }
        if next == 0 {
            return Ok(self.judge(own.index(), run, Judge::Itself));
        }
        let Some(worker) = self.guard(own.index(), status::WORKER) else {
            return Err(NOT_REGISTERED);
        };
        let Some(server) = self.guard(worker.host.load(SeqCst), status::SERVER) else {
            return Ok(false);
        };
        if !worker.task().leave() {
            // A late report of an earlier verdict: the next checkpoint repairs that.
            return Ok(false);
        }
        worker.blocked_since.store(now(), Relaxed);
        let outcome = self.hand_off(&worker, &server, run, next);
        if let Ok(true) = outcome {
            Counts::bump(&server.counts.announced);
        } else {
            // Nobody else has seen it RUNNABLE: it was on no list.
            let _ = worker.task().transition(state::RUNNABLE, state::RUNNING);
        }
        outcome
    }

    /// The calling worker is awake again. True: it holds its slot, because it has kept it or
    /// because it could take it without a switch and `wanted` said that it may. False: it is OUT,
    /// is on no list, and owns itself.
    ///
    /// # Errors
    /// ESRCH: the server is gone, and the worker is an ordinary thread from here on.
    pub(crate) fn end_block(
        &self,
        own: &OwnTask<'_>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<bool, Failure> {
        let run = own.run();
        match run.phase() {
            Phase::Out if self.has_left(own) => {
                self.end_of_block(own.record());
                if wanted() {
                    self.try_take_slot(own, run)
                } else {
                    Ok(false)
                }
            }
            Phase::Plain => {
                set_user_running(own.task());
                Err(SERVER_GONE)
            }
            _ => self.try_checkpoint(own, wanted),
        }
    }
}
