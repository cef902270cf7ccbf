//! The user state: the `state` word in user memory.
//!
//! It is a copy, made for the application, of what the run word and the slot word say, and may lag
//! behind them. The application's bits 16 to 31 are kept by every change.

use crate::{
    UmcgTask, state,
    sync::{Relaxed, SeqCst},
};

/// Sets the state to RUNNING, without flags, whatever it was. For a worker whose run word says that
/// it has a slot, or that it is an ordinary thread.
pub(crate) fn set_user_running(task: &UmcgTask) {
    force_user_state(task, state::RUNNING);
}

/// Sets the state of a task that nobody else owns, against late reports of earlier verdicts.
pub(crate) fn force_user_state(task: &UmcgTask, to: u32) {
    let word = task.state_word();
    let mut seen = word.load(Relaxed);
    loop {
        let next = (seen & state::USER_MASK) | to;
        if seen == next {
            return;
        }
        match word.compare_exchange(seen, next, SeqCst, Relaxed) {
            Ok(_) => return,
            Err(found) => seen = found,
        }
    }
}

/// Sets the state to NONE, whatever it was.
pub(crate) fn clear_user_state(task: &UmcgTask) {
    let word = task.state_word();
    let mut seen = word.load(Relaxed);
    while let Err(found) = word.compare_exchange(seen, seen & state::USER_MASK, SeqCst, Relaxed) {
        seen = found;
    }
}
