#!/usr/bin/env bash
# Runs the examples, with the commands that README.md names.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "examples"
cargo build --quiet --release -p umcg-examples --bins
cargo run --quiet --release --bin hello
cargo run --quiet --release --bin threadpool_dropin
cargo run --quiet --release --bin tree_hash -- .
cargo run --quiet --release --bin bad_neighbour -- --seconds 3
cargo run --quiet --release -p umcg-sys --example seed_loop
