//! The way out of a slot, and the gate in which a worker without a slot sleeps until it is
//! dispatched.

use super::{
    clock::now,
    failure::{Failure, NOT_RUNNABLE, SERVER_GONE},
    interrupt,
    packed::{Index, Phase, Run},
    registry::{OwnTask, Registry},
    user_state::set_user_running,
};
use crate::sync::{Relaxed, SeqCst};

impl Registry {
    /// Takes a worker out of the slot that it still holds, if any (trace A6). Returns its run word,
    /// which is OUT then and stays so, because the caller owns the worker.
    pub(crate) fn take_out(&self, index: Index) -> Result<Run, Failure> {
        let worker = self.record(index);
        loop {
            let run = worker.run();
            // Read before the step to OUT: after it the worker's next dispatcher may write this.
            let host = worker.host.load(SeqCst);
            match run.phase() {
                Phase::Out => return Ok(run),
                // The worker left RUNNING, was published, and has not reached its `wait` yet.
                Phase::Acked => {
                    let out = run.naming(0).to(Phase::Out);
                    if worker.step(run, out).is_ok() {
                        self.release_slot(host, index, run);
                        return Ok(out);
                    }
                }
                Phase::Judged | Phase::Switched => {
                    self.carry_out_verdict(host, index, run);
                    let _ = worker.step(run, run.naming(0).to(Phase::Out));
                }
                Phase::Adopting => {
                    let _ = worker.step(run, run.to(Phase::Out));
                }
                Phase::Plain => return Err(SERVER_GONE),
                // A slot names the worker, so the slot owns it and the caller does not.
                Phase::Dispatched | Phase::Successor => return Err(NOT_RUNNABLE),
            }
        }
    }

    /// The calling worker, dispatched by `run`, takes its slot. False: the run word has changed.
    pub(crate) fn acknowledge(&self, own: &OwnTask<'_>, run: Run) -> bool {
        let spare = match run.phase() {
            Phase::Successor => {
                self.report_block_of_predecessor(run.index(), own.index());
                // If a sentinel made this dispatch it has not woken the monitor.
                self.notify_monitor();
                0
            }
            _ => run.index(),
        };
        // The user state before the acknowledgement: from then on a judge may write BLOCKED.
        set_user_running(own.task());
        own.running_since.store(now(), Relaxed);
        let acked = Run::new(run.epoch(), spare, Phase::Acked);
        own.step(run, acked).is_ok()
    }

    /// Sleeps until the calling worker is dispatched. Its run word is not ACKED when it comes here,
    /// so nobody can judge it while it sleeps.
    ///
    /// # Errors
    /// ESRCH: its server went away, and the worker is an ordinary thread now; its state is RUNNING.
    pub(crate) fn sleep_in_gate(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        let task = own.task();
        loop {
            let run = own.run();
            match run.phase() {
                Phase::Out => {
                    // OUT, then the look at the server's status; `unregister_server` sets the
                    // status, then looks for workers that are OUT. The fences in between are those
                    // of `guard` here, and of `close` and `guard` there.
                    if self.server(task.server_tid()).is_none() {
                        let _ = own.step(run, run.to(Phase::Plain));
                    } else {
                        // Ended by the dispatcher (`complete_dispatch`), by the monitor's repeated
                        // wake, or by the server's unregister.
                        if own.run.wait(run.0, interrupt::ends_every_sleep()) {
                            interrupt::call_hook();
                        }
                    }
                }
                Phase::Dispatched | Phase::Successor => {
                    if self.acknowledge(own, run) {
                        return Ok(());
                    }
                }
                Phase::Plain => {
                    set_user_running(task);
                    return Err(SERVER_GONE);
                }
                // Only the worker's own step leads to ACKED. JUDGED and SWITCHED come from ACKED,
                // and ADOPTING comes from JUDGED.
                phase => unreachable!("a worker in its gate is {phase:?}"),
            }
        }
    }

    /// The spare `successor`, which is about to run, reports the block of its predecessor `index`,
    /// unless that worker has moved on from the verdict that consumed this spare.
    pub(crate) fn report_block_of_predecessor(&self, index: Index, successor: Index) {
        let run = self.record(index).run();
        if run.phase() == Phase::Switched && run.index() == successor {
            self.report_block(index, run);
            self.clear_consumed_spare(index, run);
        }
    }
}
