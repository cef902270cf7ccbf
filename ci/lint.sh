#!/usr/bin/env bash
# Formatting and lints of the code and of the scripts.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "rustfmt"
cargo fmt --all --check

say "clippy"
cargo clippy --quiet --workspace --all-targets -- -D warnings
cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
cargo clippy --quiet -p umcg --all-targets --no-default-features -- -D warnings
# Without managed calls `managed_calls!` expands to nothing.
cargo clippy --quiet -p umcg --no-default-features --features macros -- -D warnings

say "shellcheck"
need shellcheck shellcheck
shellcheck --external-sources --source-path=SCRIPTDIR ci/*.sh .ci/run
