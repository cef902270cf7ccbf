#!/usr/bin/env bash
# The model checks: every interleaving, within a bound, of the protocols that lock nothing.
# MODEL_PREEMPTIONS bounds the involuntary switches in one interleaving.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR=$target/loom
export LOOM_MAX_PREEMPTIONS=${MODEL_PREEMPTIONS:-2}

for crate in umcg-sys umcg; do
    say "model checks of $crate"
    timeout 900 cargo test --release -p "$crate" --lib model
done
