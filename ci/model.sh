#!/usr/bin/env bash
# The model checks: every interleaving, within a bound, of the protocols that lock nothing.
# MODEL_PREEMPTIONS bounds the involuntary switches in one interleaving.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR=$target/loom

# model CRATE PREEMPTIONS
model() {
    say "model checks of $1, ${MODEL_PREEMPTIONS:-$2} preemptions"
    LOOM_MAX_PREEMPTIONS=${MODEL_PREEMPTIONS:-$2} \
        timeout 900 cargo test --release -p "$1" --lib model
}
model umcg-sys 2
# With fewer than four one of the scheduler's rules is not checked: section 8 of
# runtime/src/sched/README.md.
model umcg 4
