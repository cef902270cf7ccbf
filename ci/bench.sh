#!/usr/bin/env bash
# The benches: their lints and tests, ratios to peers in one run with generous bounds (20 s), and
# the instructions of hot paths beside those that are stored (30 s). A workspace of its own, and
# the peers take some minutes to compile the first time.
#
# After a change that is meant to cost or save instructions:
#     cargo run --release --manifest-path benches/Cargo.toml -- --instructions --store
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

export CARGO_TARGET_DIR=$target/benches
benches() {
    cargo "$1" --quiet --manifest-path benches/Cargo.toml "${@:2}"
}

say "benches: lints and tests"
cargo fmt --manifest-path benches/Cargo.toml --check
benches clippy --locked --all-targets -- -D warnings
benches test --release --locked --lib

say "benches: ratios to peers"
benches build --release --locked
# The way that README.md names.
benches run --release --locked -- --list >/dev/null
# A set, in its process.
timeout 60 "$CARGO_TARGET_DIR/release/umcg-benches" threads --only futex --quick --rounds 1 --dry |
    grep 'bare threads'
timeout 300 "$CARGO_TARGET_DIR/release/umcg-benches" --check

say "benches: instructions"
need valgrind valgrind
timeout 300 "$CARGO_TARGET_DIR/release/umcg-benches" --instructions
