//! Dispatch, acknowledgement, verdict, checkpoint, with a judge that stops anywhere.

use loom::thread;

use super::{Model, check_with_stops};

/// Steps of a sentinel that judges twice: verdict, slot, bell, wake.
const STEPS: u32 = 8;

/// A judge is stopped for ever anywhere in its verdict while the worker returns and queues up,
/// and another waits: both run, one at a time in the slot, and the server loses neither.
#[test]
fn a04_a_verdict_that_stops_anywhere_is_finished_by_others() {
    check_with_stops(STEPS, |steps| {
        let m = Model::new(1, &[1]);
        m.runs_in(2, 1);
        m.sleeps(1);
        let worker = {
            let m = m.clone();
            thread::spawn(move || m.one_checkpoint(2))
        };
        let judge = {
            let m = m.clone();
            thread::spawn(move || m.sentinel(1, steps))
        };
        m.serve(1, &[], 1);
        worker.join().unwrap();
        judge.join().unwrap();
    });
}
