#!/usr/bin/env bash
# Runs the tests, with the command that README.md names.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

say "tests"
RUST_BACKTRACE=1 counted timeout 900 cargo test --workspace
