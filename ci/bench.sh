#!/usr/bin/env bash
# The benches: their lints and tests, ratios to peers with generous bounds (20 s), and a comparison
# of the instructions of hot paths with the stored counts (30 s). The benches are a workspace of
# their own, and their peers take some minutes to compile the first time.
#
# A change that is meant to cost or save instructions renews the stored counts:
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
# With the command that README.md names.
benches run --release --locked -- --list >/dev/null
# One set, which runs in a process of its own.
timeout 60 "$CARGO_TARGET_DIR/release/umcg-benches" threads --only futex --quick --rounds 1 --dry |
    grep 'bare threads'
timeout 300 "$CARGO_TARGET_DIR/release/umcg-benches" --check

say "benches: instructions"
need valgrind valgrind
timeout 300 "$CARGO_TARGET_DIR/release/umcg-benches" --instructions
