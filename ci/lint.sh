#!/usr/bin/env bash
# Formatting and lints of the code and of the scripts.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "rustfmt"
cargo fmt --all --check

say "clippy"
cargo clippy --quiet --workspace --all-targets -- -D warnings
cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
cargo clippy --quiet -p umcg --all-targets --no-default-features -- -D warnings

say "shellcheck"
need shellcheck shellcheck
shellcheck --external-sources --source-path=SCRIPTDIR ci/*.sh .ci/run
