#!/usr/bin/env bash
# Runs the model checks: loom explores every interleaving of the lock-free protocols, up to a number
# of involuntary switches (preemptions). MODEL_PREEMPTIONS overrides that number.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR=$target/loom

# model CRATE PREEMPTIONS: runs the model checks of one crate.
model() {
    say "model checks of $1, ${MODEL_PREEMPTIONS:-$2} preemptions"
    LOOM_MAX_PREEMPTIONS=${MODEL_PREEMPTIONS:-$2} \
        timeout 900 cargo test --release -p "$1" --lib model
}
model umcg-sys 2
# Fewer than four preemptions would leave one rule of the scheduler unchecked; see section 9 of
# runtime/src/sched/README.md.
model umcg 4
