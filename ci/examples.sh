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

# A workspace of its own, with tokio and SQLite, which take some minutes to compile the first time.
say "examples: a service that keeps notes"
export CARGO_TARGET_DIR=$target/notes
notes() {
    cargo "$1" --quiet --manifest-path examples/notes/Cargo.toml "${@:2}"
}
cargo fmt --manifest-path examples/notes/Cargo.toml --check
notes clippy --release --locked --all-targets -- -D warnings
timeout 300 cargo test --quiet --release --locked --manifest-path examples/notes/Cargo.toml
