//! The user state: the `state` word in user memory, which repeats what the slot word says.

use crate::{
    UmcgTask, state,
    sync::{Relaxed, SeqCst},
};

/// RUNNING without flags, from whatever the mirror said. The worker itself, which is the slot's
/// by its run word, or an ordinary thread.
pub(crate) fn set_user_running(task: &UmcgTask) {
    force_user_state(task, state::RUNNING);
}

/// The state of a task that is its own, against late mirrors of earlier verdicts. Keeps the
/// application's bits.
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

/// State NONE, whatever it was; the user's bits stay.
pub(crate) fn clear_user_state(user: &UmcgTask) {
    let word = user.state_word();
    let mut seen = word.load(Relaxed);
    while let Err(found) = word.compare_exchange(seen, seen & state::USER_MASK, SeqCst, Relaxed) {
        seen = found;
    }
}
