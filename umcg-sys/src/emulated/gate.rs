//! The gate: where a worker without a slot sleeps until it is dispatched.

use super::{
    clock::now,
    failure::{Failure, NOT_RUNNABLE, SERVER_GONE},
    packed::{Index, Phase, Run},
    registry::{OwnTask, Registry},
    user_state::set_user_running,
};
use crate::sync::{Relaxed, SeqCst};

impl Registry {
    /// Takes a worker out of whatever slot it still holds (trace A6) and returns its run word,
    /// which is then in phase OUT and stays so: the caller owns the worker.
    pub(crate) fn take_out(&self, index: Index) -> Result<Run, Failure> {
        let worker = self.record(index);
        loop {
            let run = worker.run();
            // Before the step: once the worker is OUT its next dispatcher writes this.
            let host = worker.host.load(SeqCst);
            match run.phase() {
                Phase::Out => return Ok(run),
                // It left RUNNING, was published, and has not reached its `wait` yet.
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
                // Owned by the slot that names it: the caller did not own it.
                Phase::Dispatched | Phase::Successor => return Err(NOT_RUNNABLE),
            }
        }
    }

    /// The worker, dispatched by `run`, takes its slot: by its own thread. False: the word has
    /// changed.
    pub(crate) fn acknowledge(&self, own: &OwnTask<'_>, run: Run) -> bool {
        let armed = match run.phase() {
            Phase::Successor => {
                self.report_block_of_predecessor(run.index(), own.index());
                // The sentinel woke nobody else.
                self.notify_monitor();
                0
            }
            _ => run.index(),
        };
        // The mirror before the acknowledgement: from then on we can be judged.
        set_user_running(own.task());
        own.running_since.store(now(), Relaxed);
        let acked = Run::new(run.epoch(), armed, Phase::Acked);
        own.step(run, acked).is_ok()
    }

    /// Sleeps until the worker is dispatched. Its run word is not ACKED when it comes here, so
    /// nothing can judge it while it sleeps.
    ///
    /// # Errors
    /// ESRCH: it became an ordinary thread because its server went away; the state is RUNNING.
    pub(crate) fn sleep_in_gate(&self, own: &OwnTask<'_>) -> Result<(), Failure> {
        let task = own.task();
        loop {
            let run = own.run();
            match run.phase() {
                Phase::Out => {
                    // OUT, then look whether the server lives; pairs with the server that stops
                    // living and then looks for workers that are OUT. The fence in between is
                    // that of `pin`, on both sides.
                    if self.server(task.server_tid()).is_none() {
                        let _ = own.step(run, run.to(Phase::Plain));
                    } else {
                        // Who wakes us: the dispatcher (`complete_dispatch`), the monitor again after a
                        // tick, or the server's unregister.
                        own.run.wait(run.0);
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
                // Acked: only the worker's own step leads there. Judged and Switched come from
                // Acked, Adopting from Judged.
                phase => unreachable!("a worker in its gate is {phase:?}"),
            }
        }
    }

    /// The armed worker `successor`, about to run, books the block that brought it in, if that
    /// still is how things are.
    pub(crate) fn report_block_of_predecessor(&self, index: Index, successor: Index) {
        let run = self.record(index).run();
        if run.phase() == Phase::Switched && run.index() == successor {
            self.report_block(index, run);
            self.clear_consumed_spare(index, run);
        }
    }
}
